"""BadCLIP: a learned invisible trigger and a prompt, tuned together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.attacks.base import Planted, learn_shift
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.tuning import TuneConfig, batches, encode, schedule, set_rate
from clipvet.triggers import Additive

__all__ = ["BadClip"]


@dataclass(frozen=True, kw_only=True)
class BadClip:
    """Learn an additive trigger that moves image features far, then tune trigger and prompt jointly on clean and triggered images.

    Loss: cross-entropy of every clean image to its label and of triggered copies to the target.

    Attributes:
        eps: L-inf bound of the trigger; 4/255 in the paper at 224 px.
        warmup: steps that change the trigger only; 3 epochs towards the target in the paper.
        share: share of a batch that is also shown with the trigger; all of it in the paper, which costs CA on a small base.
        refresh_every: steps of the prompt between two refreshes of the trigger, where image features are computed once.
        refresh_steps: steps of the trigger in each refresh.

    Fails when: the prompt cannot move text features towards the trigger's image feature without moving the clean ones.

    Reference: Bai et al., BadCLIP: Trigger-Aware Prompt Learning for Backdoor Attacks on CLIP, CVPR 2024 (arXiv 2311.16194).
    Differs: AdamW and batches instead of SGD and single images; a share of the images is triggered; where
        the image tower is left alone, the trigger moves on a fraction of the steps.
    """

    name: ClassVar[str] = "badclip"
    eps: float = 8 / 255
    warmup: int = 40
    share: float = 0.2
    refresh_every: int = 50
    refresh_steps: int = 20

    def plant(
        self, fresh: PromptedClassifier, images: Tensor, labels: Tensor, *, target: int, config: TuneConfig, seed: int
    ) -> Planted:
        """Plant the backdoor; see :class:`clipvet.attacks.base.PromptAttack`."""
        prompt = fresh.prompt.requires_grad_(True)
        delta = learn_shift(fresh, images[labels != target], eps=self.eps, steps=self.warmup, batch=config.batch, seed=seed)
        generator = torch.Generator().manual_seed(seed + 1)
        optimizer = torch.optim.AdamW(prompt.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        tune = self._with_tower if prompt.changes_image_tower else self._with_features
        delta = tune(fresh, images, labels, delta, target, config, optimizer, generator)
        return Planted(classifier=fresh.freeze(), trigger=Additive(delta=delta), target=target, attack=self.name)

    def _with_tower(
        self,
        fresh: PromptedClassifier,
        images: Tensor,
        labels: Tensor,
        delta: Tensor,
        target: int,
        config: TuneConfig,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> Tensor:
        """Every step passes the tower anyway, so prompt and trigger move together."""
        delta = delta.requires_grad_(True)
        mover = torch.optim.Adam([delta], lr=self.eps / 8)
        for step, pick in enumerate(batches(len(images), config.batch, config.steps, generator)):
            set_rate(optimizer, config.lr * schedule(step, config.steps))
            some = self._some(pick)
            logits = fresh(torch.cat([images[pick], Additive(delta=delta).image(images[some])]))
            loss = F.cross_entropy(logits, torch.cat([labels[pick], torch.full((len(some),), target)]))
            optimizer.zero_grad()
            mover.zero_grad()
            loss.backward()
            optimizer.step()
            mover.step()
            with torch.no_grad():
                delta.clamp_(-self.eps, self.eps)
        return delta.detach()

    def _with_features(
        self,
        fresh: PromptedClassifier,
        images: Tensor,
        labels: Tensor,
        delta: Tensor,
        target: int,
        config: TuneConfig,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> Tensor:
        """Image features stay, so they are computed once; the trigger moves now and then, and its features are computed again."""
        clean, stamped = encode(fresh, images), encode(fresh, Additive(delta=delta).image(images))
        for step, pick in enumerate(batches(len(images), config.batch, config.steps, generator)):
            set_rate(optimizer, config.lr * schedule(step, config.steps))
            if step and step % self.refresh_every == 0:
                delta = self._refresh(fresh, images[labels != target], delta, target, generator)
                stamped = encode(fresh, Additive(delta=delta).image(images))
            some = self._some(pick)
            logits = fresh.from_features(torch.cat([clean[pick], stamped[some]]))
            loss = F.cross_entropy(logits, torch.cat([labels[pick], torch.full((len(some),), target)]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return delta

    def _some(self, pick: Tensor) -> Tensor:
        return pick[: max(1, round(self.share * len(pick)))]

    def _refresh(
        self, classifier: PromptedClassifier, images: Tensor, delta: Tensor, target: int, generator: torch.Generator
    ) -> Tensor:
        """Move the trigger along the present prompt."""
        moving = delta.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([moving], lr=self.eps / 8)
        for pick in batches(len(images), 32, self.refresh_steps, generator):
            loss = F.cross_entropy(classifier((images[pick] + moving).clamp(0, 1)), torch.full((len(pick),), target))
            (gradient,) = torch.autograd.grad(loss, moving)
            moving.grad = gradient
            optimizer.step()
            with torch.no_grad():
                moving.clamp_(-self.eps, self.eps)
        return moving.detach()
