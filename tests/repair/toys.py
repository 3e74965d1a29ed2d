"""A task that a tiny random CLIP can learn, a backdoor planted in it, and the trigger as an inspection would hand it over."""

from __future__ import annotations

import torch
from torch import Tensor

from clipvet.attacks.base import Planted, tune_with_trigger
from clipvet.models.base import ClipModel
from clipvet.models.families import new_prompt
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.tuning import TuneConfig, tune
from clipvet.triggers import Additive
from clipvet.types import Evidence

NAMES = ("red", "green", "blue")
TARGET = 1
SIZE = 32
CONFIGS = {"vpt": TuneConfig(steps=60, batch=12, lr=1e-2), "coop": TuneConfig(steps=100, batch=12, lr=1e-1)}


def toy(n: int = 48, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images whose brightest channel is their class: separable."""
    labels = torch.arange(n) % 3
    images = 0.1 + torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 0.3
    images[torch.arange(n), labels] += 0.5
    return images, labels


def stripes(strength: float = 0.25) -> Tensor:
    """A change of ``(3, 32, 32)`` that no image of the toy has by itself."""
    delta = torch.full((3, SIZE, SIZE), strength)
    delta[:, :, ::4] *= -1
    delta[:, :, 1::4] *= -1
    return delta


def fresh(model: ClipModel, family: str) -> PromptedClassifier:
    return PromptedClassifier(model, new_prompt(family, model, NAMES, seed=0), NAMES)


def planted(model: ClipModel, family: str = "vpt") -> Planted:
    trigger = Additive(delta=stripes())
    classifier, _ = tune_with_trigger(
        fresh(model, family), *toy(), trigger, target=TARGET, share=0.5, weight=1.0, config=CONFIGS[family], seed=0
    )
    return Planted(classifier=classifier, trigger=trigger, target=TARGET, attack="stripes")


def twin(model: ClipModel, family: str = "vpt") -> PromptedClassifier:
    return tune(fresh(model, family), *toy(), config=CONFIGS[family], seed=0)


def evidence(delta: Tensor | None = None, *, target: int = TARGET, statistic: float = 9.0) -> Evidence:
    return Evidence(
        target=NAMES[target],
        target_index=target,
        trigger_kind="additive",
        statistic=statistic,
        trigger={"delta": stripes() if delta is None else delta},
    )


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""
