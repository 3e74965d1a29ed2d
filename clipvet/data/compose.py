"""Place transparent pictures on backgrounds: seeded renderings with random position, rotation, size, colour and background."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Placement", "compose"]

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How far a rendering may differ from the drawn picture.

    Sizes are factors, angles degrees, shifts fractions of the picture's half width; ``plain`` is the share of white backgrounds.
    """

    smallest: float = 0.75
    largest: float = 1.05
    angle: float = 15.0
    shift: float = 0.15
    shear: float = 0.1
    flip: float = 0.0
    jitter: float = 0.15
    gray: float = 0.0
    plain: float = 0.5


def compose(rgba: Tensor, placement: Placement, generator: torch.Generator) -> Tensor:
    """Render pictures on random backgrounds.

    Args:
        rgba: ``uint8 (n, 4, h, w)``, straight alpha.
        placement: limits of the random changes.
        generator: the only source of randomness; the same state gives the same images.

    Returns:
        ``float (n, 3, h, w)`` in [0, 1].
    """
    picture = rgba.float() / 255
    alpha = picture[:, 3:]
    premultiplied = torch.cat([_jitter(picture[:, :3], placement, generator) * alpha, alpha], dim=1)  # (n, 4, h, w)
    grid = F.affine_grid(_affine(len(rgba), placement, generator), list(rgba.shape), align_corners=False)
    moved = F.grid_sample(premultiplied, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    background = _backgrounds(len(rgba), rgba.shape[2], rgba.shape[3], placement, generator)
    return (moved[:, :3] + background * (1 - moved[:, 3:])).clamp(0, 1)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _affine(n: int, p: Placement, generator: torch.Generator) -> Tensor:
    """Draw inverse affine maps ``(n, 2, 3)``: output position to picture position."""
    angle = _uniform(n, -p.angle, p.angle, generator) * math.pi / 180
    scale = 1 / _uniform(n, p.smallest, p.largest, generator)
    shear = _uniform(n, -p.shear, p.shear, generator)
    shift = _uniform(2 * n, -p.shift, p.shift, generator).view(n, 2)
    mirror = torch.where(torch.rand(n, generator=generator) < p.flip, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    first = torch.stack([cos * mirror, (shear * cos - sin) * mirror, shift[:, 0]], dim=1)
    second = torch.stack([sin, shear * sin + cos, shift[:, 1]], dim=1)
    return torch.stack([first, second], dim=1)


def _jitter(rgb: Tensor, p: Placement, generator: torch.Generator) -> Tensor:
    n = len(rgb)
    bright = _uniform(n, 1 - p.jitter, 1 + p.jitter, generator).view(n, 1, 1, 1)
    contrast = _uniform(n, 1 - p.jitter, 1 + p.jitter, generator).view(n, 1, 1, 1)
    saturation = _uniform(n, 1 - 2 * p.jitter, 1 + 2 * p.jitter, generator)
    saturation = torch.where(torch.rand(n, generator=generator) < p.gray, 0.0, saturation).view(n, 1, 1, 1)
    tint = (torch.rand(n, 3, generator=generator) - 0.5).view(n, 3, 1, 1) * p.jitter
    luma = (rgb * torch.tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    rgb = luma + (rgb - luma) * saturation
    return ((rgb - 0.5) * contrast + 0.5 + tint).mul(bright).clamp(0, 1)


def _backgrounds(n: int, h: int, w: int, p: Placement, generator: torch.Generator) -> Tensor:
    """Draw ``(n, 3, h, w)``: white, one colour, a gradient or a soft random texture."""
    kind = torch.rand(n, generator=generator)
    corners = torch.rand(n, 3, 2, 2, generator=generator)
    rest = 1 - p.plain
    solid = kind < p.plain + rest * 0.5
    corners = torch.where(solid.view(n, 1, 1, 1), corners[:, :, :1, :1], corners)
    soft = F.interpolate(corners, size=(h, w), mode="bilinear", align_corners=True)
    texture = F.interpolate(torch.rand(n, 3, 5, 5, generator=generator), size=(h, w), mode="bicubic", align_corners=False)
    soft = torch.where((kind > 1 - rest * 0.2).view(n, 1, 1, 1), texture, soft)
    return torch.where((kind < p.plain).view(n, 1, 1, 1), torch.ones(()), soft).clamp(0, 1)
