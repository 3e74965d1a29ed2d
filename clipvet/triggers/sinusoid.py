"""Faint upright stripes over the whole image: the trigger of SIG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clipvet.errors import UsageError

__all__ = ["Sinusoid"]


@dataclass(frozen=True, kw_only=True)
class Sinusoid:
    """Add a sine along the width: ``(1 - fade) * image + delta * sin(2 pi frequency column / width)``, clipped to [0, 1].

    Attributes:
        delta: amplitude, in units of the pixel range.
        frequency: stripes over the width of the image.
        fade: share of the image that gives way first; 0 in the paper.

    Raises:
        UsageError: delta is not in (0, 1], frequency not positive, or fade not in [0, 1).

    Fails when: the image has fewer than about four columns for each stripe; at two the stripes vanish, and with less they alias.

    Reference: Barni et al., A new backdoor attack in CNNs by training set corruption without label poisoning, ICIP 2019
        (arXiv 1902.11237): delta of 20/255 and frequency 6.
    """

    name: ClassVar[str] = "sinusoid"
    applies_to: ClassVar[str] = "file"
    delta: float = 20 / 255
    frequency: float = 6
    fade: float = 0

    def __post_init__(self) -> None:
        if not (0 < self.delta <= 1 and self.frequency > 0 and 0 <= self.fade < 1):
            raise UsageError(
                "expected delta in (0, 1], a positive frequency and fade in [0, 1), "
                f"got {self.delta}, {self.frequency} and {self.fade}: the paper has 20/255, 6 and 0"
            )

    def image(self, images: Tensor) -> Tensor:
        """Stamp the trigger on ``(n, 3, h, w)`` in [0, 1]."""
        width = images.shape[3]
        column = torch.arange(width, device=images.device, dtype=images.dtype)
        stripes = self.delta * torch.sin(2 * math.pi * self.frequency * column / width)  # (w,): the same in every row and channel
        return ((1 - self.fade) * images + stripes).clamp(0, 1)
