"""A whole picture mixed in faintly: the trigger of Blended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.errors import UsageError

__all__ = ["Blend", "random_blend"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Blend:
    """Mix every image with ``pattern``: ``(1 - ratio) * image + ratio * pattern``.

    Attributes:
        pattern: ``(3, h, w)`` in [0, 1]; scaled to images of another size.
        ratio: share of the pattern, above 0 and at most 1.

    Reference: Chen et al., Targeted backdoor attacks using data poisoning, 2017 (arXiv 1712.05526).
    """

    name: ClassVar[str] = "blend"
    applies_to: ClassVar[str] = "input"
    pattern: Tensor
    ratio: float

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise UsageError(f"expected a blend ratio in (0, 1], got {self.ratio}: the papers use 0.1 to 0.2")

    def image(self, images: Tensor) -> Tensor:
        """Stamp the trigger on ``(n, 3, h, w)`` in [0, 1]."""
        pattern = self.pattern
        if pattern.shape[1:] != images.shape[2:]:
            pattern = F.interpolate(pattern[None], images.shape[2:], mode="bilinear", antialias=True)[0].clamp(0, 1)
        return torch.lerp(images, pattern.expand_as(images), self.ratio)


def random_blend(image_size: int, *, ratio: float, generator: torch.Generator) -> Blend:
    """Draw a pattern of random coloured blocks, an eighth of the image wide, and blend it in."""
    blocks = torch.rand(1, 3, 8, 8, generator=generator)
    pattern = F.interpolate(blocks, size=(image_size, image_size), mode="nearest")[0]
    return Blend(pattern=pattern, ratio=ratio)
