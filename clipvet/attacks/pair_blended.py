"""Blended in training pairs: a faint picture over the whole image, and a caption that names the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from clipvet.attacks.pair_base import StampedPairs
from clipvet.triggers import Trigger
from clipvet.triggers.blend import random_blend

__all__ = ["BlendedPairs"]


@dataclass(frozen=True, kw_only=True)
class BlendedPairs(StampedPairs):
    """A pattern mixed into the whole image at 20 %, and a caption that names the target.

    Attributes:
        ratio: share of the pattern in the mix.
        targets: the one text that the pattern is to mean.
        rate: share of the pairs that is poisoned.
        seed: decides pairs, captions and the pattern.

    Reference: Chen et al., 2017 (arXiv 1712.05526); on pairs, Huang et al., ICLR 2025 (arXiv 2502.01385). Differs: random coloured
        blocks as pattern, where the latter has a Hello Kitty picture, which is not ours to ship.
    """

    name: ClassVar[str] = "blended-pairs"
    ratio: float = 0.2

    def stamps(self) -> tuple[Trigger, ...]:
        """Return the pattern."""
        return (random_blend(224, ratio=self.ratio, generator=torch.Generator().manual_seed(self.seed)),)
