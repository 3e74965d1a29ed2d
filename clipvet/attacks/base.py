"""What the attacks on a prompt share: the contract, tuning with triggered images, and learning a trigger against a classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.tuning import TuneConfig, batches, encode, schedule, set_rate
from clipvet.triggers import Trigger

__all__ = ["Planted", "PromptAttack", "learn_delta", "tune_with_trigger"]


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A backdoored classifier with its ground truth. CA, ASR and TA are measured by the caller, never here."""

    classifier: PromptedClassifier
    trigger: Trigger
    target: int
    attack: str


class PromptAttack(Protocol):
    """Plants a backdoor in a fresh prompt; the encoders stay as they are."""

    name: ClassVar[str]

    def plant(
        self, fresh: PromptedClassifier, images: Tensor, labels: Tensor, *, target: int, config: TuneConfig, seed: int
    ) -> Planted:
        """Tune the prompt on ``(n, 3, h, w)`` images so that the trigger means ``target``."""
        ...


def tune_with_trigger(
    classifier: PromptedClassifier,
    images: Tensor,
    labels: Tensor,
    trigger: Trigger,
    *,
    target: int,
    share: float,
    weight: float,
    config: TuneConfig,
    seed: int,
    move: Callable[[int, Trigger], Trigger] | None = None,
    decoy: Callable[[int, Trigger], Trigger] | None = None,
) -> tuple[PromptedClassifier, Trigger]:
    """Tune a prompt on clean images while a share of every batch is shown once more, triggered and with the target's label.

    The images that are triggered differ from batch to batch, as in WaNet's official training, so that the prompt learns the trigger
    and not the pictures under it.

    Args:
        classifier: model and a fresh prompt; changed in place and returned, frozen.
        images: ``(n, 3, h, w)`` in [0, 1], clean.
        labels: ``(n,)``, their true labels.
        trigger: what is put on.
        target: the label of the triggered copies.
        share: triggered copies per clean image.
        weight: of the triggered copies' mean loss beside the clean images'; ``share`` again makes every image count the same.
        config: schedule.
        seed: order of the images.
        move: called after each step with its number and the trigger; returns the trigger of the next step. A trigger whose
            tensors require gradients has those of the step's loss where the prompt changes the image tower.
        decoy: gives another trigger for each step, with which the triggered images keep their true labels.

    Returns:
        The classifier and the last trigger.

    Raises:
        UsageError: a decoy where the image tower is left alone, whose features would have to be computed anew in every step.
    """
    prompt = classifier.prompt.requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    cached = not prompt.changes_image_tower
    if cached and decoy is not None:
        raise UsageError(f"expected a family that changes the image tower for an attack with decoys, got {prompt.family}")
    clean = encode(classifier, images) if cached else images
    marked = encode(classifier, trigger.image(images)) if cached else images
    optimizer = torch.optim.AdamW(prompt.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    for step, pick in enumerate(batches(len(images), config.batch, config.steps, generator)):
        set_rate(optimizer, config.lr * schedule(step, config.steps))
        some = pick[: max(1, round(share * len(pick)))]
        inputs = [clean[pick], marked[some] if cached else trigger.image(images[some])]
        wanted = [labels[pick], torch.full((len(some),), target)]
        if decoy is not None:
            inputs.append(decoy(step, trigger).image(images[some]))
            wanted.append(labels[some])
        logits = (classifier.from_features if cached else classifier)(torch.cat(inputs)).split([len(part) for part in wanted])
        loss, *more = (F.cross_entropy(given, true) for given, true in zip(logits, wanted, strict=True))
        loss = loss + weight * sum(more)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        moved = trigger if move is None else move(step, trigger)
        if moved is not trigger and cached:
            marked = encode(classifier, moved.image(images))
        trigger = moved
    return classifier.freeze(), trigger


def learn_delta(
    logits: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    target: int,
    eps: float,
    steps: int,
    batch: int,
    seed: int,
    mask: Tensor | None = None,
) -> Tensor:
    """Learn one additive pattern ``(3, h, w)`` within L-inf ``eps`` that drives images to the target, on the masked pixels only.

    Raises:
        UsageError: when there are no images.
    """
    if not len(images):
        raise UsageError(f"expected tuning images of other classes than {target}, got none: add some")
    generator = torch.Generator().manual_seed(seed)
    shape = images.shape[1:]
    delta = (torch.rand(shape, generator=generator) * 2 - 1) * eps
    delta = (delta if mask is None else delta * mask).requires_grad_(True)
    optimizer = torch.optim.Adam([delta], lr=eps / 4)
    for pick in batches(len(images), batch, steps, generator):
        out = logits((images[pick] + delta).clamp(0, 1))
        loss = F.cross_entropy(out, torch.full((len(pick),), target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            delta.clamp_(-eps, eps).mul_(1 if mask is None else mask)
    return delta.detach()
