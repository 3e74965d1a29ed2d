"""Classifiers whose margins can be worked by hand, and a run without a journal, a clock or a screen."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import torch
from torch import Tensor

from clipvet.inspection.base import Run
from clipvet.inspection.journal import MemoryJournal

SIZE = 8


class Linear:
    """``logits = (pixels - 0.5) @ weights.T``: stands in for a classifier where only calls and names matter."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self.class_names = tuple(f"class {i}" for i in range(len(weights)))
        # What the size of a chunk is read off, and a tower that knows one precision.
        self.model = SimpleNamespace(is_vit=False, mixed_precision=lambda *, wanted: nullcontext())

    def __call__(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.weights.T


def toy_weights(n_classes: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(n_classes, 3 * SIZE * SIZE, generator=torch.Generator().manual_seed(seed))


def planted_weights(target: int, n_classes: int = 8, seed: int = 0, strength: float = 6.0) -> Tensor:
    """One class listens to one direction more than the others do to anything."""
    weights = toy_weights(n_classes, seed)
    direction = torch.randn(weights.shape[1], generator=torch.Generator().manual_seed(seed + 100))
    weights[target] += strength * direction.sign()
    return weights


def toy_images(n: int = 24, seed: int = 0) -> Tensor:
    """Images away from 0 and 1, so that a small trigger is not clipped."""
    return 0.4 + 0.2 * torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def patched_weights(target: int, n_classes: int = 10, seed: int = 0, strength: float = 6.0) -> Tensor:
    """One class listens to the four pixels of a small square more than the others do to any."""
    weights = toy_weights(n_classes, seed).view(n_classes, 3, SIZE, SIZE)
    square = weights[target, :, 5:7, 5:7]
    square += strength * square.sign()
    return weights.flatten(1)


def noisy_images(n: int = 24, seed: int = 0) -> Tensor:
    """Images that differ so much that more than a pixel is needed to turn them all."""
    return torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def quiet_run(*, seed: int = 0, journal: MemoryJournal | None = None, clock: Callable[[], None] | None = None) -> Run:
    return Run(
        seed=seed, journal=journal or MemoryJournal(), clock=clock or (lambda: None), progress=lambda stage, done, total: None
    )


def loop_margins(logits: Tensor, targets: Tensor) -> list[float]:
    """Target's logit minus the largest other one, image by image."""
    found = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        found.append(row[target] - max(value for i, value in enumerate(row) if i != target))
    return found
