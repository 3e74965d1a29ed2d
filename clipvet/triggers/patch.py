"""A small opaque patch: the trigger of BadNets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clipvet.errors import UsageError

__all__ = ["Patch", "checkerboard"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Patch:
    """Replace a square of every image by ``pattern``.

    Attributes:
        pattern: ``(3, k, k)`` in [0, 1].
        top: distance of the patch from the upper edge, in pixels.
        left: distance of the patch from the left edge, in pixels.

    Reference: Gu et al., BadNets, 2017 (arXiv 1708.06733).
    """

    name: ClassVar[str] = "patch"
    applies_to: ClassVar[str] = "input"
    pattern: Tensor
    top: int
    left: int

    def image(self, images: Tensor) -> Tensor:
        """Stamp the trigger on ``(n, 3, h, w)`` in [0, 1]; raises UsageError where it does not fit."""
        k = self.pattern.shape[-1]
        if self.top + k > images.shape[2] or self.left + k > images.shape[3]:
            size = tuple(images.shape[2:])
            raise UsageError(f"expected images that hold a {k} px patch at ({self.top}, {self.left}), got {size}: move the patch")
        out = images.clone()
        out[:, :, self.top : self.top + k, self.left : self.left + k] = self.pattern
        return out


def checkerboard(image_size: int, *, area: float, generator: torch.Generator) -> Patch:
    """Draw a checkerboard in two random colours at the lower right corner, covering at most ``area`` of the image."""
    k = math.floor(image_size * math.sqrt(area))
    cell = max(1, k // 4)
    index = torch.arange(k) // cell
    board = ((index[:, None] + index[None]) % 2).float()
    dark, light = torch.rand(3, 1, 1, generator=generator) * 0.5, 0.5 + torch.rand(3, 1, 1, generator=generator) * 0.5
    place = image_size - k - max(1, image_size // 32)
    return Patch(pattern=dark + (light - dark) * board, top=place, left=place)
