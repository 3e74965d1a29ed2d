"""Count the images that go through an image tower, forward and backward apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clipvet.models.base import ClipModel

__all__ = ["ImageCount", "count_images"]


@dataclass
class ImageCount:
    """Images that entered the tower, and images whose pixels a gradient came back to."""

    forward: int = 0
    backward: int = 0


@contextmanager
def count_images(*models: ClipModel) -> Iterator[ImageCount]:
    """Count the images that the towers of ``models`` encode while the context is open; a tower named twice counts once.

    The hook sits on the first convolution, which every way through the tower passes (with visual prompts or without). Its weights
    are frozen, so a gradient arrives there only on its way to the pixels: the backward passes of a trigger search are counted,
    those of tuning a prompt are not. An image encoded within counts as backward whenever its gradient is computed, and as often.
    """
    count = ImageCount()

    def hook(module: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        images = len(output)
        count.forward += images

        def came_back(gradient: Tensor) -> None:
            count.backward += images

        if output.requires_grad:
            output.register_hook(came_back)

    first_layers: dict[int, Any] = {id(model.clip.visual.conv1): model.clip.visual.conv1 for model in models}
    with ExitStack() as stack:
        for layer in first_layers.values():
            stack.callback(layer.register_forward_hook(hook).remove)
        yield count
