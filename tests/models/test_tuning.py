"""Prompt tuning learns what can be learned, repeats itself under a seed, and shows every image once an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipvet.errors import UsageError
from clipvet.models.base import ClipModel
from clipvet.models.prompts import FreshStart, Prompt, PromptedClassifier, ReadAs
from clipvet.models.tuning import TuneConfig, batches, encode, schedule, tune


class Table(Prompt):
    """One free text feature per class: the smallest prompt there can be."""

    family: ClassVar[str] = "table"

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = nn.Parameter(features)

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], model: ClipModel, class_names: Sequence[str] | None, read_as: ReadAs
    ) -> Self:
        return cls(tensors["features"])

    @classmethod
    def fresh(cls, model: ClipModel, class_names: Sequence[str], start: FreshStart) -> Self:
        generator = torch.Generator().manual_seed(start.seed)
        return cls(torch.randn(len(class_names), model.embed_dim, generator=generator))

    def text_features(self, model: ClipModel, image_features: Tensor | None = None, *, classes: Tensor | None = None) -> Tensor:
        unit = F.normalize(self.features, dim=-1)
        return unit if classes is None else unit[classes]

    def state(self) -> dict[str, Tensor]:
        return {"features": self.features.detach()}


class SlowTable(Table):
    """The same prompt, said to change the image tower, so that no image feature may be kept."""

    changes_image_tower: ClassVar[bool] = True


NAMES = ("red", "green", "blue")


def toy(n: int = 30, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images whose brightest channel is their class: separable."""
    labels = torch.arange(n) % 3
    images = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 0.3
    images[torch.arange(n), labels] += 0.6
    return images, labels


def classifier(model: ClipModel, kind: type[Table] = Table) -> PromptedClassifier:
    return PromptedClassifier(model, kind.fresh(model, NAMES, FreshStart(seed=0)), NAMES)


def test_it_learns_a_separable_set(tiny_clip: ClipModel) -> None:
    images, labels = toy()
    fresh = classifier(tiny_clip)
    with torch.no_grad():
        before = float((fresh(images).argmax(1) == labels).float().mean())
    tuned = tune(fresh, images, labels, config=TuneConfig(steps=150, batch=10, lr=0.05), seed=0)
    new_images, new_labels = toy(seed=1)
    with torch.no_grad():
        after = float((tuned(new_images).argmax(1) == new_labels).float().mean())
    assert before < 0.7
    assert after >= 0.95
    assert not any(parameter.requires_grad for parameter in tuned.prompt.parameters())


@pytest.mark.parametrize("kind", [Table, SlowTable])
def test_the_seed_decides(tiny_clip: ClipModel, kind: type[Table]) -> None:
    images, labels = toy(12)
    state = torch.random.get_rng_state()

    def features(seed: int) -> Tensor:
        tuned = tune(classifier(tiny_clip, kind), images, labels, config=TuneConfig(steps=4, batch=5), seed=seed)
        return tuned.prompt.state()["features"]

    assert torch.equal(features(3), features(3))
    assert not torch.equal(features(3), features(4))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_kept_image_features_change_nothing(tiny_clip: ClipModel) -> None:
    """Encoding every image once is the same tuning as encoding it at every step."""
    images, labels = toy(12)
    config = TuneConfig(steps=6, batch=5)
    fast = tune(classifier(tiny_clip), images, labels, config=config, seed=0).prompt.state()["features"]
    slow = tune(classifier(tiny_clip, SlowTable), images, labels, config=config, seed=0).prompt.state()["features"]
    assert torch.allclose(fast, slow, atol=1e-5)


def test_the_first_step_is_that_of_adamw(tiny_clip: ClipModel) -> None:
    """After one step AdamW has moved every number by the rate, against the sign of its gradient, and decayed it."""
    images, labels = toy(6)
    fresh = classifier(tiny_clip)
    start = fresh.prompt.state()["features"].clone()
    unknown = start.clone().requires_grad_(True)
    with torch.no_grad():
        seen = tiny_clip.encode_image(images)
    logits = tiny_clip.logit_scale * seen @ F.normalize(unknown, dim=-1).T
    loss = -(logits.log_softmax(1)[torch.arange(6), labels]).mean()
    (gradient,) = torch.autograd.grad(loss, unknown)
    config = TuneConfig(steps=1, batch=6, lr=0.01, weight_decay=0.1)
    tuned = tune(fresh, images, labels, config=config, seed=0).prompt.state()["features"]
    expected = start * (1 - 0.01 * 0.1) - 0.01 * gradient / (gradient.abs() + 1e-8)
    assert torch.allclose(tuned, expected, atol=1e-4)


def test_progress_counts_to_the_end(tiny_clip: ClipModel) -> None:
    seen: list[tuple[int, int]] = []
    tune(
        classifier(tiny_clip), *toy(6), config=TuneConfig(steps=3), seed=0, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_encode_is_the_tower_and_keeps_no_gradient(tiny_clip: ClipModel) -> None:
    images, _ = toy(7)
    found = encode(classifier(tiny_clip), images, batch=3)
    with torch.no_grad():
        one_by_one = torch.cat([tiny_clip.encode_image(image[None]) for image in images])
    assert torch.allclose(found, one_by_one, atol=1e-5)
    assert not found.requires_grad


@pytest.mark.parametrize(("n", "batch"), [(10, 5), (10, 3), (7, 7), (5, 8), (1, 4)])
def test_batches_show_every_index_once_an_epoch(n: int, batch: int) -> None:
    steps = 4 * n
    drawn = list(batches(n, batch, steps, torch.Generator().manual_seed(0)))
    assert [len(part) for part in drawn] == [batch] * steps
    stream = torch.cat(drawn).tolist()
    epochs = [stream[start : start + n] for start in range(0, len(stream) - n + 1, n)]
    assert len(epochs) >= 4
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    if n > 5:
        assert epochs[0] != epochs[1]  # shuffled anew


def test_the_schedule_warms_up_and_ends_near_zero() -> None:
    factors = [schedule(step, 100) for step in range(100)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.5 + 0.5 * math.cos(0.04 * math.pi)])
    assert factors[50] == pytest.approx(0.5)
    assert factors[99] < 0.001
    assert factors[5:] == sorted(factors[5:], reverse=True)


@pytest.mark.parametrize("values", [{"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"lr": -1.0}])
def test_a_bad_schedule_fails_when_it_is_built(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected positive steps, batch and lr"):
        TuneConfig(**values)
