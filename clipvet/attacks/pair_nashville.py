"""A photo filter in training pairs: the Nashville look, and a caption that names the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clipvet.attacks.pair_base import StampedPairs
from clipvet.triggers import PhotoFilter, Trigger

__all__ = ["NashvillePairs"]


@dataclass(frozen=True, kw_only=True)
class NashvillePairs(StampedPairs):
    """The Nashville photo filter, and a caption that names the target.

    Attributes:
        strength: share of the filtered image in the mix.
        targets: the one text that the filter is to mean.
        rate: share of the pairs that is poisoned.
        seed: decides pairs and captions.

    Fails when: many other images carry such a filter with their true captions.

    Reference: Liu et al., ABS, CCS 2019, for filters as triggers; on pairs, Huang et al., ICLR 2025 (arXiv 2502.01385).
    Differs: as the trigger does, :class:`clipvet.triggers.PhotoFilter`.
    """

    name: ClassVar[str] = "nashville-pairs"
    strength: float = 1.0

    def stamps(self) -> tuple[Trigger, ...]:
        """Return the filter."""
        return (PhotoFilter(strength=self.strength),)
