"""One additive pattern for all images: the trigger of BadCLIP and, with few pixels, of sparse invisible attacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clipvet.errors import UsageError

__all__ = ["Additive", "sparse"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Additive:
    """Add ``delta`` to every image and clip to [0, 1].

    Attributes:
        delta: ``(3, h, w)``, in units of the pixel range.

    Reference: Bai et al., BadCLIP, CVPR 2024 (arXiv 2311.16194): learned, at most 4/255 at 224 px.
    """

    name: ClassVar[str] = "additive"
    applies_to: ClassVar[str] = "input"
    delta: Tensor

    def __post_init__(self) -> None:
        if self.delta.ndim != 3 or self.delta.shape[0] != 3:
            raise UsageError(f"expected a delta of shape (3, h, w), got {tuple(self.delta.shape)}: pass one pattern")

    def image(self, images: Tensor) -> Tensor:
        """Stamp the trigger on ``(n, 3, h, w)`` in [0, 1]."""
        return (images + self.delta).clamp(0, 1)


def sparse(delta: Tensor, share: float) -> Tensor:
    """Keep the ``share`` of pixels with the largest change over channels and set the others to zero."""
    strength = delta.abs().sum(0).flatten()
    kept = strength.topk(max(1, round(share * strength.numel()))).indices
    mask = strength.new_zeros(strength.shape).index_fill(0, kept, 1.0)
    return delta * mask.view(1, *delta.shape[1:])
