"""A learned pattern moves features further than others within the same bound do, and repeats itself under a seed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clipvet.models.base import ClipModel
from clipvet.models.families import new_prompt
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.shift import learn_shift

NAMES = ("cat", "dog", "owl")
EPS = 8 / 255
IMAGES = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def learned(classifier: PromptedClassifier, seed: int = 0) -> Tensor:
    return learn_shift(classifier, IMAGES, eps=EPS, steps=10, batch=8, seed=seed)


@torch.no_grad()
def moved(classifier: PromptedClassifier, delta: Tensor) -> float:
    """How far the mean feature moves."""
    features = classifier.image_features((IMAGES + delta).clamp(0, 1)) - classifier.image_features(IMAGES)
    return float(features.mean(0).norm())


@pytest.mark.parametrize("family", ["coop", "vpt"])
def test_the_pattern_moves_features_within_its_bound(tiny_clip: ClipModel, family: str) -> None:
    classifier = PromptedClassifier(tiny_clip, new_prompt(family, tiny_clip, NAMES, seed=0), NAMES)
    delta = learned(classifier)
    assert delta.shape == (3, 32, 32)
    assert not delta.requires_grad
    assert float(delta.abs().max()) <= EPS + 1e-7
    generator = torch.Generator().manual_seed(1)
    others = [moved(classifier, EPS * torch.randn(3, 32, 32, generator=generator).sign()) for _ in range(5)]
    assert moved(classifier, delta) > 2 * max(others)
    assert all(parameter.grad is None for parameter in classifier.prompt.parameters())


def test_the_seed_decides(tiny_clip: ClipModel) -> None:
    classifier = PromptedClassifier(tiny_clip, new_prompt("coop", tiny_clip, NAMES, seed=0), NAMES)
    state = torch.random.get_rng_state()
    assert torch.equal(learned(classifier), learned(classifier))
    assert not torch.equal(learned(classifier), learned(classifier, seed=1))
    assert torch.equal(torch.random.get_rng_state(), state)
