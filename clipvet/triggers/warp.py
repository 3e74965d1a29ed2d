"""A smooth, barely visible warp: the trigger of WaNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Warp", "random_warp"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Warp:
    """Move every pixel along one fixed smooth field.

    Attributes:
        field: ``(h, w, 2)``, added to the identity sampling grid in [-1, 1]; x first. Scaled to images of another size.

    Reference: Nguyen and Tran, WaNet, ICLR 2021 (arXiv 2102.10369): a k x k random field with strength s, enlarged bicubically.
    """

    name: ClassVar[str] = "warp"
    applies_to: ClassVar[str] = "input"
    field: Tensor

    def image(self, images: Tensor) -> Tensor:
        """Stamp the trigger on ``(n, 3, h, w)`` in [0, 1]."""
        n, _, h, w = images.shape
        identity = F.affine_grid(torch.eye(2, 3, device=images.device)[None], [1, 3, h, w], align_corners=True)
        field = self.field
        if field.shape[:2] != (h, w):
            field = F.interpolate(field.permute(2, 0, 1)[None], (h, w), mode="bilinear", align_corners=True)[0].permute(1, 2, 0)
        grid = (identity + field).clamp(-1, 1).expand(n, -1, -1, -1)
        return F.grid_sample(images, grid, align_corners=True).clamp(0, 1)


def random_warp(image_size: int, *, cells: int, strength: float, generator: torch.Generator) -> Warp:
    """Draw a WaNet field: ``cells`` x ``cells`` control points, mean absolute displacement ``strength`` grid units."""
    control = torch.rand(1, 2, cells, cells, generator=generator) * 2 - 1
    control = control / control.abs().mean()
    field = F.interpolate(control, size=(image_size, image_size), mode="bicubic", align_corners=True)
    return Warp(field=field[0].permute(1, 2, 0) * strength / image_size)
