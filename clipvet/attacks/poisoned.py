"""Attacks that only poison the tuning images: BadNets, Blended, WaNet and SIBA, carried over to prompts.

Each draws or learns its trigger and tunes on clean images while one triggered copy for ten clean images is mixed in, drawn anew in
every batch. The rate is that of CLIP-Inspector's evaluation (arXiv 2604.09101).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.attacks.base import Planted, learn_delta, tune_with_trigger
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.tuning import TuneConfig
from clipvet.triggers import Additive, Trigger
from clipvet.triggers.additive import sparse
from clipvet.triggers.blend import random_blend
from clipvet.triggers.patch import checkerboard
from clipvet.triggers.warp import Warp, random_warp

__all__ = ["BadNets", "Blended", "Siba", "WaNet"]

CANDIDATES = 8  # triggers an attacker draws before taking the one that moves image features most


def strongest(classifier: PromptedClassifier, images: Tensor, candidates: list[Trigger]) -> Trigger:
    """Return the candidate that moves the mean image feature most: what an attacker with the public encoder would take."""
    with torch.no_grad():
        some = images[:64]
        before = classifier.image_features(some)
        moves = [(classifier.image_features(c.image(some)) - before).mean(0).norm().item() for c in candidates]
    return candidates[moves.index(max(moves))]


@dataclass(frozen=True, kw_only=True)
class Poisoned(ABC):
    """An attack that fixes its trigger first and then shows it on a share ``rate`` of the tuning images."""

    name: ClassVar[str]
    rate: float = 0.1

    @abstractmethod
    def trigger(self, fresh: PromptedClassifier, images: Tensor, labels: Tensor, *, target: int, batch: int, seed: int) -> Trigger:
        """Draw or learn the trigger."""

    def shown(self, images: Tensor, seed: int) -> Tensor:
        """Return the images that keep their labels: the clean ones, unless the attack adds decoys."""
        return images

    def plant(
        self, fresh: PromptedClassifier, images: Tensor, labels: Tensor, *, target: int, config: TuneConfig, seed: int
    ) -> Planted:
        """Plant the backdoor; see :class:`clipvet.attacks.base.PromptAttack`."""
        trigger = self.trigger(fresh, images, labels, target=target, batch=config.batch, seed=seed)
        shown = self.shown(images, seed)
        tuned, trigger = tune_with_trigger(
            fresh, shown, labels, trigger, target=target, share=self.rate, weight=self.rate, config=config, seed=seed
        )
        return Planted(classifier=tuned, trigger=trigger, target=target, attack=self.name)


@dataclass(frozen=True, kw_only=True)
class BadNets(Poisoned):
    """A small checkerboard in a corner of 10 % of the tuning images.

    Attributes:
        area: share of the image that the patch may cover.
        rate: share of the tuning images that is poisoned.

    Reference: Gu et al., BadNets, 2017 (arXiv 1708.06733). Differs: planted in a prompt; best of eight random colour pairs.
    """

    name: ClassVar[str] = "badnets"
    area: float = 0.04

    def trigger(self, fresh: PromptedClassifier, images: Tensor, labels: Tensor, *, target: int, batch: int, seed: int) -> Trigger:
        """Take the strongest of the patches."""
        generator = torch.Generator().manual_seed(seed)
        size = images.shape[-1]
        drawn: list[Trigger] = [checkerboard(size, area=self.area, generator=generator) for _ in range(CANDIDATES)]
        return strongest(fresh, images, drawn)


@dataclass(frozen=True, kw_only=True)
class Blended(Poisoned):
    """A faint whole-image pattern in 10 % of the tuning images.

    Attributes:
        ratio: share of the pattern in the mix, at most 0.2 in the papers.
        rate: share of the tuning images that is poisoned.

    Reference: Chen et al., 2017 (arXiv 1712.05526). Differs: planted in a prompt; random coloured blocks as pattern.
    """

    name: ClassVar[str] = "blended"
    ratio: float = 0.2

    def trigger(self, fresh: PromptedClassifier, images: Tensor, labels: Tensor, *, target: int, batch: int, seed: int) -> Trigger:
        """Take the strongest of the patterns."""
        generator = torch.Generator().manual_seed(seed)
        size = images.shape[-1]
        drawn: list[Trigger] = [random_blend(size, ratio=self.ratio, generator=generator) for _ in range(CANDIDATES)]
        return strongest(fresh, images, drawn)


@dataclass(frozen=True, kw_only=True)
class WaNet(Poisoned):
    """A fixed smooth warp of 10 % of the tuning images, and other warps with true labels beside it.

    Attributes:
        cells: control points along a side.
        strength: mean displacement in units of half the image over the image size.
        rate: share of the tuning images that is poisoned.
        cross: share of the tuning images that is warped by a perturbed field and keeps its label ("noise mode").

    Reference: Nguyen and Tran, WaNet, ICLR 2021 (arXiv 2102.10369): cells 4, strength 0.5, cross ratio 2 at 32 px.
    Differs: planted in a prompt.
    """

    name: ClassVar[str] = "wanet"
    cells: int = 4
    strength: float = 2.0
    cross: float = 0.1

    def trigger(self, fresh: PromptedClassifier, images: Tensor, labels: Tensor, *, target: int, batch: int, seed: int) -> Trigger:
        """Take the strongest of the warps."""
        generator = torch.Generator().manual_seed(seed)
        size = images.shape[-1]
        drawn: list[Trigger] = [
            random_warp(size, cells=self.cells, strength=self.strength, generator=generator) for _ in range(CANDIDATES)
        ]
        return strongest(fresh, images, drawn)

    def shown(self, images: Tensor, seed: int) -> Tensor:
        """Return the images, a share :attr:`cross` of them warped otherwise."""
        generator = torch.Generator().manual_seed(seed + 1)
        size = images.shape[-1]
        pick = torch.randperm(len(images), generator=generator)[: round(self.cross * len(images))]
        images = images.clone()
        for index in pick.tolist():
            other = random_warp(size, cells=self.cells, strength=self.strength, generator=generator)
            images[index] = Warp(field=other.field).image(images[index : index + 1])[0]
        return images


@dataclass(frozen=True, kw_only=True)
class Siba(Poisoned):
    """A sparse invisible trigger, learned on the fresh prompt, in 10 % of the tuning images.

    Attributes:
        eps: L-inf bound.
        share: share of the pixels that the trigger touches.
        rate: share of the tuning images that is poisoned.
        steps: steps of the trigger's optimisation on the sparse set.

    Reference: Gao et al., Backdoor attack with sparse and invisible trigger, 2023 (arXiv 2306.06209). Differs: the surrogate is the
    classifier with its fresh prompt; the sparse set is found by keeping the largest changes, not by bi-level optimisation.
    """

    name: ClassVar[str] = "siba"
    eps: float = 8 / 255
    share: float = 0.3
    steps: int = 80

    def trigger(self, fresh: PromptedClassifier, images: Tensor, labels: Tensor, *, target: int, batch: int, seed: int) -> Trigger:
        """Learn a dense pattern, keep the pixels that matter, and learn these anew."""
        other = images[labels != target]
        dense = learn_delta(fresh, other, target=target, eps=self.eps, steps=self.steps // 2, batch=batch, seed=seed)
        importance = self._importance(fresh, other[:128], dense, target)
        mask = (sparse(importance, self.share) != 0).any(0, keepdim=True).float()
        masked = learn_delta(fresh, other, target=target, eps=self.eps, steps=self.steps, batch=batch, seed=seed + 1, mask=mask)
        return Additive(delta=masked)

    @staticmethod
    def _importance(classifier: PromptedClassifier, images: Tensor, delta: Tensor, target: int) -> Tensor:
        """First-order effect of every pixel's change on the loss, in absolute value."""
        moving = delta.clone().requires_grad_(True)
        loss = F.cross_entropy(classifier((images + moving).clamp(0, 1)), torch.full((len(images),), target))
        (gradient,) = torch.autograd.grad(loss, moving)
        return (gradient * delta).abs()
