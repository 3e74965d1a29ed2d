"""The end of a repair: let the prompt settle on images without triggers, unless a trigger comes back by that."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from clipvet.models.prompts import PromptedClassifier
from clipvet.models.tuning import TuneConfig, tune
from clipvet.repair.base import LARGEST_ASR, Progress
from clipvet.repair.moving import MovingStamps

__all__ = ["reached", "settle"]

LOOKED_AT = 64  # of the labelled images at most, which tell whether a trigger comes back


def settle(
    tuned: PromptedClassifier,
    images: Tensor,
    labels: Tensor,
    stamps: MovingStamps,
    config: TuneConfig,
    *,
    seed: int,
    progress: Progress,
) -> PromptedClassifier:
    """Tune a copy on images without triggers; return it, or what was given where the first target's triggers come back by that.

    What tells are some of the images that it was tuned on, and the triggers as the repair moved them; the report measures other
    images, and the triggers as they were reconstructed. A trigger that stands for no class says nothing: nothing is changed then.

    Args:
        tuned: the repaired prompt; it stays as it is.
        images: ``(n, 3, h, w)`` in [0, 1].
        labels: ``long (n,)``, the true ones.
        stamps: the triggers as the repair left them.
        config: of the tuning.
        seed: order of the images.
        progress: called with (stage, done, total).
    """
    if int(stamps.targets[0]) < 0:
        return tuned
    settled = PromptedClassifier(tuned.model, copy.deepcopy(tuned.prompt), tuned.class_names)

    def report(done: int, total: int) -> None:
        progress("settling on images without triggers", done, total)

    tune(settled, images, labels, config=config, seed=seed, progress=report)
    pick = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:LOOKED_AT]
    before, after = (reached(one, images[pick], labels[pick], stamps) for one in (tuned, settled))
    return settled if after <= max(before, LARGEST_ASR) else tuned


@torch.no_grad()
def reached(classifier: PromptedClassifier, images: Tensor, labels: Tensor, stamps: MovingStamps) -> float:
    """Largest share of ``(n, 3, h, w)`` images of other classes that a trigger of the first target brings to it."""
    first = int(stamps.targets[0])
    others = images[labels != first]
    if not len(others):
        return 0.0
    own = [at for at, target in enumerate(stamps.targets.tolist()) if target == first]
    return max(float((classifier(stamps.put_one(others, at)).argmax(1) == first).float().mean()) for at in own)
