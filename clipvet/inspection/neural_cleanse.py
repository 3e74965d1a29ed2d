"""Neural Cleanse, adapted to CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clipvet.inspection.smallest_trigger import SmallestTrigger
from clipvet.inspection.sparse_search import SparseShape

__all__ = ["MaskShape", "NeuralCleanse"]

EDGE = 1e-6  # keeps initial values away from the infinite ends of tanh


def _unit(variable: Tensor) -> Tensor:
    """From a free variable to (0, 1)."""
    return variable.tanh() / 2 + 0.5


class MaskShape(SparseShape):
    """``(1 - mask) x + mask pattern``, both free in (0, 1) through tanh; one mask for the three channels."""

    channels: ClassVar[dict[str, int]] = {"mask": 1, "pattern": 3}

    @staticmethod
    def start(drawn: Tensor) -> Tensor:
        """Begin with masks and patterns drawn uniformly from (0, 1)."""
        return (drawn * (1 - EDGE)).atanh()

    @staticmethod
    def size(variables: Mapping[str, Tensor]) -> Tensor:
        """L1 norm of the masks, in pixels: ``(k,)``."""
        return _unit(variables["mask"]).sum((1, 2, 3))

    def cost(self) -> Tensor:
        """The L1 norm itself."""
        return self.size(self.variables)

    def apply(self, images: Tensor, part: Tensor) -> Tensor:
        """Stamp the triggers ``part`` on images."""
        mask, pattern = (_unit(self.variables[name][part, None]) for name in ("mask", "pattern"))
        return (1 - mask) * images[None] + mask * pattern

    @torch.no_grad()
    def tensors(self, position: int) -> dict[str, Tensor]:
        """Return the mask ``(1, h, w)`` and the pattern ``(3, h, w)``."""
        return {name: _unit(self.variables[name][position]) for name in ("mask", "pattern")}


@dataclass(frozen=True, kw_only=True)
class NeuralCleanse(SmallestTrigger):
    """One mask and pattern per class, as small as still works; an outlier rule on the small side of the masks' L1 norms.

    Loss: ``CE(f((1 - mask) x + mask pattern), target) + weight * |mask|_1``. Adam (0.5, 0.9) on mask and pattern through tanh; the
    weight begins at zero, and then follows whether ``reach`` of the images are turned. Per class the smallest mask is kept at which
    they were, the last one where they never were. The anomaly index of a class is how far its L1 norm lies below the median of all
    classes, in units of 1.4826 times the median absolute deviation; above ``k`` the class is flagged.

    The official code looks at the share of turned images once an epoch, for up to 1,000 epochs. Five epochs, the budget of the
    comparison with CLIP-Inspector, would leave the weight at zero, so the weight follows every batch here. Our guesses also: a
    trigger below ``least_asr`` on images that the search did not see flags nothing; a spread below one pixel counts as one.

    Attributes:
        epochs: passes over the probe images, parts of one allowed; 5 in the comparison with CLIP-Inspector.
        batch: probe images per step.
        lr: Adam's step.
        reach: share of a batch that must be turned for the mask to count and the weight to rise.
        start_weight: weight of the mask's norm to begin with.
        weight: what it becomes when the trigger first works.
        patience: batches in a row before the weight changes; 5 or 10 in the official code.
        multiplier: of the weight upwards; downwards it is taken to the power 1.5.
        evaluation: probe images set aside to measure the reconstructed ASR on.
        k: anomaly index above which a class is flagged.
        least_asr: reconstructed ASR below which a trigger does not count; not in the paper.
        strength: L-inf bound of the pattern that positive controls are planted with; the search has none.
        mixed_precision: pass the towers in bfloat16 where the device computes it faster than float32.
        least_classes: with fewer classes, common names are put beside them up to this number; not in the paper.
        least_alone: the same where there is no base.

    Fails when: the trigger is not small (additive, blended, warped); a small mask turns a class without any backdoor, as on CLIP,
        where the norms of clean and backdoored classes hardly differ; several classes are targets; the steps are too few for any
        mask to shrink.

    Reference: Neural Cleanse, IEEE S&P 2019 (Wang et al., doi 10.1109/SP.2019.00031, github.com/bolunwang/backdoor); its figures on
        CLIP are those of CLIP-Inspector (arXiv 2604.09101). Differs: logits of CLIP; unlabelled probe images instead of clean
        samples of the task; pixels in [0, 1] at the model's size; the weight follows batches; a fixed number of steps instead of
        an early stop; classes share passes through the tower.
    """

    name: ClassVar[str] = "neural-cleanse"
    kind: ClassVar[str] = "mask"
    measure: ClassVar[str] = "mask_norm"
    shape: ClassVar[type[SparseShape]] = MaskShape
