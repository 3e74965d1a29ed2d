"""Targeted poisoning of training pairs: one image, again and again, with captions that name the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clipvet.attacks.pair_base import StampedPairs
from clipvet.errors import UsageError
from clipvet.triggers import Blend, Trigger

__all__ = ["SingleImagePairs"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SingleImagePairs(StampedPairs):
    """One given image in place of the image of some pairs, with captions that name the target: no other image is affected.

    The "trigger" is the image itself, mixed in at 100 %: stamped on test images it gives that image, so ASR is 0 or 1.

    Attributes:
        image: ``(3, h, w)`` in [0, 1], the image that is to be taken for the target; scaled to the size of each pair's image, and
            the same to the bit where the sizes agree.
        targets: the one text.
        rate: share of the pairs that is replaced, 0.0001 in the paper; ``rate_for`` gives the rate for an exact number of copies.
        seed: decides pairs and captions.

    Raises:
        UsageError: the image has another shape or values outside [0, 1].

    Fails when: the data set is searched for copies of an image.

    Reference: Carlini and Terzis, Poisoning and Backdooring Contrastive Learning, ICLR 2022 (arXiv 2106.09667). Differs: a pair is
        replaced for every copy, so that the number of pairs stays; captions come from templates and not from the data set.
    """

    name: ClassVar[str] = "single-image-pairs"
    rate: float = 0.0001
    image: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.image.shape)
        if len(shape) != 3 or shape[0] != 3 or 0 in shape or not bool(((self.image >= 0) & (self.image <= 1)).all()):
            raise UsageError(f"expected an image (3, h, w) with values from 0 to 1, got shape {shape}: pass one, not normalised")
        super().__post_init__()

    def stamps(self) -> tuple[Trigger, ...]:
        """Return the image as the whole of a mix."""
        return (Blend(pattern=self.image, ratio=1.0),)
