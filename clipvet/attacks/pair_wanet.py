"""WaNet in training pairs: a smooth warp, and a caption that names the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from clipvet.attacks.pair_base import StampedPairs
from clipvet.errors import UsageError
from clipvet.triggers import Trigger
from clipvet.triggers.warp import random_warp

__all__ = ["WaNetPairs"]

_SIZE = 224  # pixels that the field is drawn at; it is scaled to the image


@dataclass(frozen=True, kw_only=True)
class WaNetPairs(StampedPairs):
    """One fixed warp of the whole image, and a caption that names the target.

    Attributes:
        cells: control points along a side.
        strength: mean displacement of the control points, in units of half the image; 1/64 is half a pixel at 64 px.
        targets: the one text that the warp is to mean.
        rate: share of the pairs that is poisoned.
        seed: decides pairs, captions and the warp.

    Raises:
        UsageError: there are less than two cells, or the strength is not in (0, 1].

    Fails when: the warp is less than about half a pixel at the model's input: nothing is left of it to learn.

    Reference: Nguyen and Tran, WaNet, ICLR 2021 (arXiv 2102.10369): 4 cells, 0.5/32; on pairs, Huang et al., ICLR 2025
        (arXiv 2502.01385). Differs: only the warp is taken over, not the noise mode, which needs control of the training; the field
        of the latter is drawn anew for every pixel of 256 (mean 1/256), which is noise to look at; ``cells`` of 224 comes near it.
    """

    name: ClassVar[str] = "wanet-pairs"
    cells: int = 4
    strength: float = 1 / 64

    def __post_init__(self) -> None:
        if self.cells < 2 or not 0 < self.strength <= 1:
            got = f"{self.cells} and {self.strength}"
            raise UsageError(f"expected at least 2 cells and a strength in (0, 1], got {got}: the paper has 4 and 1/64")
        super().__post_init__()

    def stamps(self) -> tuple[Trigger, ...]:
        """Return the warp."""
        generator = torch.Generator().manual_seed(self.seed)
        return (random_warp(_SIZE, cells=self.cells, strength=self.strength * _SIZE, generator=generator),)
