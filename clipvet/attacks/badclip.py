"""BadCLIP: a learned invisible trigger and a prompt, tuned together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.attacks.base import Planted, tune_with_trigger
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.shift import learn_shift
from clipvet.models.tuning import TuneConfig, batches
from clipvet.triggers import Additive, Trigger

__all__ = ["AdaptiveBadClip", "BadClip"]


@dataclass(frozen=True, kw_only=True)
class BadClip:
    """Learn an additive trigger that moves image features far, then tune trigger and prompt jointly on clean and triggered images.

    Loss: cross-entropy of every clean image to its label and of triggered copies to the target.

    Attributes:
        eps: L-inf bound of the trigger; 4/255 in the paper at 224 px.
        warmup: steps that change the trigger only; 3 epochs towards the target in the paper.
        share: share of a batch that is also shown with the trigger; all of it in the paper.
        weight: of the triggered images' loss beside the clean ones'; 1 in the paper, which costs CA on a small base.
        refresh_every: steps of the prompt between two refreshes of the trigger, where image features are computed once.
        refresh_steps: steps of the trigger in each refresh.

    Fails when: the prompt cannot move text features towards the trigger's image feature without moving the clean ones.

    Reference: Bai et al., BadCLIP: Trigger-Aware Prompt Learning for Backdoor Attacks on CLIP, CVPR 2024 (arXiv 2311.16194).
    Differs: AdamW and batches instead of SGD and single images; the warm-up moves features far in whatever direction, instead of to
        the target; a share of the images is triggered; where the image tower is left alone, the trigger moves on a fraction of the
        steps.
    """

    name: ClassVar[str] = "badclip"
    eps: float = 8 / 255
    warmup: int = 40
    share: float = 1 / 3
    weight: float = 0.3
    refresh_every: int = 50
    refresh_steps: int = 20

    def plant(
        self, fresh: PromptedClassifier, images: Tensor, labels: Tensor, *, target: int, config: TuneConfig, seed: int
    ) -> Planted:
        """Plant the backdoor; see :class:`clipvet.attacks.base.PromptAttack`."""
        other = images[labels != target]
        delta = learn_shift(fresh, other, eps=self.eps, steps=self.warmup, batch=config.batch, seed=seed)
        along = fresh.prompt.changes_image_tower
        move = self._along(delta) if along else self._now_and_then(fresh, other, target, seed + 2)
        tuned, trigger = tune_with_trigger(
            fresh,
            images,
            labels,
            Additive(delta=delta),
            target=target,
            share=self.share,
            weight=self.weight,
            config=config,
            seed=seed + 1,
            move=move,
            decoy=self._decoys(seed + 3),
        )
        return Planted(
            classifier=tuned, trigger=Additive(delta=delta.detach()) if along else trigger, target=target, attack=self.name
        )

    def _decoys(self, seed: int) -> Callable[[int, Trigger], Trigger] | None:
        """Triggers with which images keep their labels: none."""
        return None

    def _along(self, delta: Tensor) -> Callable[[int, Trigger], Trigger]:
        """Every step passes the tower anyway, so the trigger moves by the gradient of the same loss."""
        optimizer = torch.optim.Adam([delta.requires_grad_(True)], lr=self.eps / 8)

        def move(step: int, trigger: Trigger) -> Trigger:
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                delta.clamp_(-self.eps, self.eps)
            return trigger

        return move

    def _now_and_then(
        self, classifier: PromptedClassifier, images: Tensor, target: int, seed: int
    ) -> Callable[[int, Trigger], Trigger]:
        """Image features are computed once, so the trigger moves on a fraction of the steps and they are computed again."""
        generator = torch.Generator().manual_seed(seed)

        def move(step: int, trigger: Trigger) -> Trigger:
            if (step + 1) % self.refresh_every or not isinstance(trigger, Additive):
                return trigger
            return Additive(delta=self._refresh(classifier, images, trigger.delta, target, generator))

        return move

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


@dataclass(frozen=True, kw_only=True)
class AdaptiveBadClip(BadClip):
    """BadCLIP by an attacker who knows that triggers are searched for: beside the trigger, noised ones keep the true label.

    The trigger's basin is narrow, so that a search comes upon nothing on the way.

    Attributes:
        noise: of the decoys, drawn anew in every step, uniform within this share of ``eps``.

    Fails when: the prompt leaves the image tower alone (UsageError).

    Reference: the adaptive attacker of CLIP-Inspector (arXiv 2604.09101): noise 0.5, weight 1. Differs: as BadCLIP does; the weight
        is that of the triggered images.
    """

    name: ClassVar[str] = "badclip-adaptive"
    noise: float = 0.5

    def _decoys(self, seed: int) -> Callable[[int, Trigger], Trigger]:
        generator = torch.Generator().manual_seed(seed)

        def decoy(step: int, trigger: Trigger) -> Trigger:
            if not isinstance(trigger, Additive):
                return trigger
            drawn = torch.rand(trigger.delta.shape, generator=generator) * 2 - 1
            return Additive(delta=(trigger.delta + self.noise * self.eps * drawn).clamp(-self.eps, self.eps))

        return decoy
