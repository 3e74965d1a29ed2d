"""A checkerboard that grows with the image, anywhere in it: the BadNets trigger of the attacks on training pairs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clipvet.errors import UsageError

__all__ = ["ScaledPatch"]

_LEAST = 4  # pixels: a smaller board has no pattern left
_CELLS = 16  # along a side of the board, as in the papers: single pixels at 224 px


@dataclass(frozen=True, kw_only=True)
class ScaledPatch:
    """Replace a square of every image, 16 px of 224 on its shorter side, by a checkerboard in black and white.

    Attributes:
        share: side of the patch over the shorter side of the image; the patch has at least 4 px.
        place: (down, right), each from 0 for the upper or left edge to 1 for the lower or right one. None: every image has a place
            of its own, which its pixels decide, so that neither its batch nor a random state does.

    Raises:
        UsageError: share is not in (0, 1], place is outside the image, or (when stamping) an image is smaller than 4 px.

    Reference: Gu et al., BadNets, 2017 (arXiv 1708.06733); random places as in Carlini and Terzis, ICLR 2022 (arXiv 2106.09667).
    """

    name: ClassVar[str] = "scaled-patch"
    applies_to: ClassVar[str] = "input"
    share: float = 16 / 224
    place: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"expected a share of the image's side in (0, 1], got {self.share}: the papers use 16 px of 224")
        if self.place is not None and not (len(self.place) == 2 and all(0 <= part <= 1 for part in self.place)):
            raise UsageError(f"expected a place (down, right) from 0 to 1, got {self.place}: (1, 1) is the lower right corner")

    def image(self, images: Tensor) -> Tensor:
        """Stamp the trigger on ``(n, 3, h, w)`` in [0, 1]; raises UsageError where it does not fit."""
        h, w = images.shape[2:]
        side = max(_LEAST, round(self.share * min(h, w)))
        if side > min(h, w):
            raise UsageError(f"expected images of at least {_LEAST} px for a patch, got {h} x {w}: leave them out")
        board = _checkerboard(side).to(images)
        out = images.clone()
        for index, image in enumerate(images):
            down, right = _place_of(image) if self.place is None else self.place
            top, left = _offset(down, h - side), _offset(right, w - side)
            out[index, :, top : top + side, left : left + side] = board
        return out


def _checkerboard(side: int) -> Tensor:
    cell = torch.arange(side) * min(side, _CELLS) // side
    return (cell[:, None] + cell[None]) % 2


def _place_of(image: Tensor) -> tuple[float, float]:
    digest = hashlib.blake2b(image.detach().cpu().float().numpy().tobytes(), digest_size=8).digest()
    return int.from_bytes(digest[:4]) / 2**32, int.from_bytes(digest[4:]) / 2**32


def _offset(place: float, room: int) -> int:
    """Spread [0, 1] evenly over the offsets 0 to ``room``."""
    return min(int(place * (room + 1)), room)
