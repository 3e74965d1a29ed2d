"""Prompt tuning on any base: the one home of it, used by attacks, repair and calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.models.prompts import PromptedClassifier

__all__ = ["SCHEDULES", "TuneConfig", "batches", "encode", "schedule", "schedule_of", "set_rate", "tune"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """How a prompt is tuned: AdamW with a cosine schedule.

    The official code of the families uses SGD with 0.002 and batches of 1 (CoCoOp) to 32 over 5 to 50 epochs, which assumes the
    scale of ViT-B/16; AdamW needs no scale of its own and reaches the same training loss on small bases in fewer steps.
    """

    steps: int = 500
    batch: int = 32
    lr: float = 3e-3
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.lr <= 0:
            raise UsageError(f"expected positive steps, batch and lr, got {self.steps}, {self.batch}, {self.lr}")


SCHEDULES = {  # steps that reach the plateau of the clean loss on the pocket; other families take 300 steps of the default
    "coop": TuneConfig(steps=300, batch=32, lr=3e-3),
    "cocoop": TuneConfig(steps=200, batch=8, lr=3e-3),
    **dict.fromkeys(("maple", "ivlp", "vpt", "promptsrc"), TuneConfig(steps=300, batch=24, lr=3e-3)),
}


def schedule_of(family: str) -> TuneConfig:
    """How a prompt of a family is tuned unless a caller says otherwise."""
    return SCHEDULES.get(family, TuneConfig(steps=300))


@torch.no_grad()
def encode(classifier: PromptedClassifier, images: Tensor, *, batch: int = 128) -> Tensor:
    """Encode images once: features ``(n, d)`` of a tower that the prompt does not change."""
    return torch.cat([classifier.image_features(part) for part in images.split(batch)])


def batches(n: int, batch: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield ``steps`` index batches, reshuffled every epoch; the last batch of an epoch is filled from the next.

    Raises:
        UsageError: when there is nothing to draw from.
    """
    if n < 1:
        raise UsageError("expected images to draw batches from, got none: add some")
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        yield order[:batch]
        order = order[batch:]


def tune(
    classifier: PromptedClassifier,
    images: Tensor,
    labels: Tensor,
    *,
    config: TuneConfig,
    seed: int,
    progress: Progress | None = None,
) -> PromptedClassifier:
    """Tune the prompt in place with cross-entropy and return the classifier, frozen.

    Where the prompt leaves the image tower alone, every image is encoded once and only texts are encoded again.

    Args:
        classifier: model and a fresh prompt.
        images: ``(n, 3, h, w)`` in [0, 1]; an attacker passes triggered images among them.
        labels: ``(n,)``, the label each image is tuned to.
        config: schedule.
        seed: order of the images.
        progress: called with (step, steps).
    """
    prompt = classifier.prompt.requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    features = None if prompt.changes_image_tower else encode(classifier, images)
    optimizer = torch.optim.AdamW(prompt.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    for step, pick in enumerate(batches(len(images), config.batch, config.steps, generator)):
        set_rate(optimizer, config.lr * schedule(step, config.steps))
        logits = classifier(images[pick]) if features is None else classifier.from_features(features[pick])
        loss = F.cross_entropy(logits, labels[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step + 1, config.steps)
    return classifier.freeze()


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def schedule(step: int, steps: int) -> float:
    """Factor on the learning rate: a warm-up of 5 %, then a cosine to zero."""
    warm = max(1, steps // 20)
    return min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
