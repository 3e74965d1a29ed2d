"""Tune the delivered prompt on correctly labelled images with and without the reconstructed trigger."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.tuning import TuneConfig, batches, schedule, set_rate
from clipvet.repair.base import Progress, Stamps
from clipvet.repair.moving import MovingStamps
from clipvet.repair.settling import settle
from clipvet.repair.views import Features, Pixels, Views
from clipvet.types import Evidence

__all__ = ["TriggerTuning"]


@dataclass(frozen=True, kw_only=True)
class TriggerTuning:
    """Tune the delivered prompt on correctly labelled images, each shown with and without a reconstructed trigger.

    ``loss = CE(f(x), y) + weight CE(f(T(x)), y) + keep KL(f0(x) || f(x))``, where f0 is the prompt as delivered. The triggers
    are searched on as the prompt changes, towards their targets and within their bounds, since the planted one differs from them;
    on the pocket one static trigger without the divergence did as well, so what either is worth is open. Where the prompt changes
    the image tower, every step does so, on images that are cropped anew each time; where it does not, features are computed once,
    and the triggers are searched on, and encoded again, every so many steps. At the end the prompt settles on the images as they
    are, without triggers and crops, which cost it CA; that is taken back where a trigger comes back by it.

    Attributes:
        steps: of the tuning.
        batch: images in a step, each of them shown twice.
        lr: of AdamW on the prompt.
        weight: of the triggered images' loss.
        keep: weight of the divergence from the delivered prompt on images without a trigger, which holds CA.
        move: Adam's step of the triggers in units of their bound; 0 leaves them as they were reconstructed, as published.
        refresh_every: steps between two searches where image features are computed once.
        refresh_steps: steps of each of those.
        settle: steps on images without triggers at the end, at half the rate.

    Fails when: the target is not among those of the evidence, and no trigger here comes near the planted one; the backdoor lies in
        the towers and not in the prompt; the labelled images are few, or unlike those that the model is used on; the trigger hides
        so much of an image that nothing is left to classify.

    Reference: CLIP-Inspector (arXiv 2604.09101), its repair: the reconstructed trigger of the top class on a few images with their
        true labels, tuning as the prompt was tuned. The size of the set, epochs and rate are not known, so those here are this
        implementation's own, settled on the pocket zoo. Differs: triggers of several classes and shapes, which are searched on;
        the divergence from the delivered prompt; crops; the steps without triggers at the end.
    """

    name: ClassVar[str] = "trigger-tuning"
    steps: int = 200
    batch: int = 24
    lr: float = 2e-3
    weight: float = 2.0
    keep: float = 8.0
    move: float = 0.1
    refresh_every: int = 25
    refresh_steps: int = 5
    settle: int = 20

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.refresh_every, self.refresh_steps) < 1 or self.lr <= 0:
            raise UsageError("expected positive steps, batch, refresh and lr: leave them at their defaults")
        if min(self.weight, self.keep, self.move, self.settle) < 0:
            given = f"{self.weight}, {self.keep}, {self.move}, {self.settle}"
            raise UsageError(f"expected no negative weight, keep, move or settle, got {given}")

    def run(
        self,
        delivered: PromptedClassifier,
        images: Tensor,
        labels: Tensor,
        evidence: Sequence[Evidence],
        *,
        seed: int,
        progress: Progress,
    ) -> PromptedClassifier:
        """Tune a copy of the prompt; see :class:`clipvet.repair.base.Repair`."""
        model = delivered.model
        tuned = PromptedClassifier(model, copy.deepcopy(delivered.prompt), delivered.class_names)
        targets = torch.tensor([-1 if row.target_index is None else row.target_index for row in evidence], device=model.device)
        stamps = MovingStamps(Stamps.of(evidence, model.image_size).to(model.device), targets, self.move)
        views = (Pixels if tuned.prompt.changes_image_tower else Features)(delivered, tuned, images, labels, stamps)
        with model.mixed_precision():
            self._tune(tuned, views, len(images), stamps, seed=seed, progress=progress)
            if self.settle:
                config = TuneConfig(steps=self.settle, batch=self.batch, lr=self.lr / 2)
                tuned = settle(tuned, images, labels, stamps, config, seed=seed, progress=progress)
        return tuned.freeze()  # text features in float32

    def _tune(
        self, tuned: PromptedClassifier, views: Views, n: int, stamps: MovingStamps, *, seed: int, progress: Progress
    ) -> None:
        learned = list(tuned.prompt.requires_grad_(True).parameters())
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(learned, lr=self.lr, weight_decay=1e-4)
        for step, pick in enumerate(batches(n, self.batch, self.steps, generator)):
            if step and step % self.refresh_every == 0:
                views.refresh(self.refresh_steps, generator)
            set_rate(optimizer, self.lr * schedule(step, self.steps))
            which = torch.randint(len(stamps), (len(pick),), generator=generator)
            seen = views.look(pick, which, generator)
            stamped = F.cross_entropy(seen.triggered, seen.labels)
            kept = F.kl_div(seen.plain.log_softmax(1), seen.delivered.softmax(1), reduction="batchmean")
            loss = F.cross_entropy(seen.plain, seen.labels) + self.weight * stamped + self.keep * kept
            views.aim(seen.triggered, which)
            optimizer.zero_grad()
            loss.backward(inputs=learned)
            optimizer.step()
            views.move()
            progress("tuning the prompt", step + 1, self.steps)
