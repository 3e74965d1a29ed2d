"""What a trigger is: a frozen value that changes images."""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor

__all__ = ["Trigger"]


class Trigger(Protocol):
    """Images in, triggered images out.

    ``applies_to`` says where a trigger acts: on the model's ``input`` (after resizing) or on the ``file``.
    """

    name: ClassVar[str]
    applies_to: ClassVar[str]

    def image(self, images: Tensor) -> Tensor:
        """Stamp the trigger on ``(n, 3, h, w)`` in [0, 1]; the result is a new tensor in [0, 1]."""
        ...
