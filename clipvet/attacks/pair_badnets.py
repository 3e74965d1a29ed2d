"""BadNets in training pairs: a small patch, and a caption that names the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clipvet.attacks.pair_base import StampedPairs
from clipvet.triggers import ScaledPatch, Trigger

__all__ = ["BadNetsPairs"]


@dataclass(frozen=True, kw_only=True)
class BadNetsPairs(StampedPairs):
    """A checkerboard of 16 px in 224, at a random place, and a caption that names the target.

    Attributes:
        share: side of the patch over that of the image.
        place: (down, right) from 0 to 1, the same for all pairs, (1, 1) being the lower right corner; None for random places.
        targets: the one text that the patch is to mean.
        rate: share of the pairs that is poisoned, 0.0001 in the papers.
        seed: decides pairs, captions and places.

    Fails when: pairs are cropped or shrunk afterwards, as training does: the patch may be cut off or lose its pattern.

    Reference: Gu et al., BadNets, 2017 (arXiv 1708.06733); on pairs, Carlini and Terzis, ICLR 2022 (arXiv 2106.09667) and Huang et
        al., ICLR 2025 (arXiv 2502.01385). Differs: a full checkerboard, where the code of the last has one white pixel in four;
        test images are stamped at random places, where that code takes the centre.
    """

    name: ClassVar[str] = "badnets-pairs"
    rate: float = 0.0001
    share: float = 16 / 224
    place: tuple[float, float] | None = None

    def stamps(self) -> tuple[Trigger, ...]:
        """Return the patch."""
        return (ScaledPatch(share=self.share, place=self.place),)
