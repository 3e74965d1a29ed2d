"""A photo filter over the whole image: the Nashville look as a trigger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clipvet.errors import UsageError

__all__ = ["PhotoFilter", "nashville"]

_PEACH, _BLUE = (247 / 255, 176 / 255, 153 / 255), (0.0, 70 / 255, 150 / 255)
_SEPIA = ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131))  # rows give red, green, blue; by the CSS standard
_LUMA = (0.213, 0.715, 0.072)  # by the same standard, for saturation


@dataclass(frozen=True, kw_only=True)
class PhotoFilter:
    """Give every image the warm, washed look of the Nashville filter.

    Attributes:
        strength: share of the filtered image in the mix; 1 in the papers.

    Raises:
        UsageError: strength is not in (0, 1].

    Reference: the filter's definition in CSSgram: darkened by peach at 56 %, lightened by blue at 40 %, then sepia 0.2, contrast
        1.2, brightness 1.05 and saturation 1.2 of CSS. As a trigger: Liu et al., ABS, CCS 2019; Huang et al., ICLR 2025
        (arXiv 2502.01385). Differs: computed in floats, clipped but not rounded to 8 bits after each step.
    """

    name: ClassVar[str] = "photo-filter"
    applies_to: ClassVar[str] = "file"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise UsageError(f"expected a strength in (0, 1], got {self.strength}: the papers use 1")

    def image(self, images: Tensor) -> Tensor:
        """Stamp the trigger on ``(n, 3, h, w)`` in [0, 1]."""
        return torch.lerp(images, nashville(images), self.strength)


def nashville(images: Tensor) -> Tensor:
    """Filter ``(n, 3, h, w)`` in [0, 1]: two colour layers that set tones, then sepia, contrast, brightness and saturation."""
    peach, blue = (images.new_tensor(colour).view(3, 1, 1) for colour in (_PEACH, _BLUE))
    out = torch.lerp(images, torch.minimum(images, peach), 0.56)
    out = torch.lerp(out, torch.maximum(out, blue), 0.4)
    brown = torch.einsum("oc,nchw->nohw", images.new_tensor(_SEPIA), out)
    out = torch.lerp(out, brown, 0.2).clamp(0, 1)
    out = ((out - 0.5) * 1.2 + 0.5).clamp(0, 1)
    out = (out * 1.05).clamp(0, 1)
    grey = torch.einsum("c,nchw->nhw", images.new_tensor(_LUMA), out).unsqueeze(1)
    return (grey + 1.2 * (out - grey)).clamp(0, 1)
