"""The search takes Adam's steps, keeps the trigger's bounds, and treats every class as if it were alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.inspection.search import Search, SearchConfig, margins
from clipvet.inspection.shapes import SHAPES
from tests.inspection.toys import SIZE, Linear, loop_margins, toy_images, toy_weights

STRENGTH = {"additive": 0.05, "patch": 0.1, "blend": 0.2}


def run(shape: str, targets: list[int], *, steps: int = 6, seed: int = 0, chunk: int = 128, batch: int = 6) -> Search:
    config = SearchConfig(shape=shape, strength=STRENGTH[shape], batch=batch, chunk=chunk)
    search = Search(Linear(toy_weights()), toy_images(), torch.tensor(targets), config=config, seed=seed)
    for _ in range(steps):
        search.step()
    return search


def test_margins_are_those_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 7, generator=generator)
    targets = torch.randint(7, (40,), generator=generator)
    before = logits.clone()
    assert margins(logits, targets).tolist() == pytest.approx(loop_margins(logits, targets), abs=1e-6)
    assert torch.equal(logits, before)
    few = margins(logits, targets, 3)
    for row, target, margin in zip(logits.tolist(), targets.tolist(), few.tolist(), strict=True):
        assert margin == pytest.approx(row[target] - max(value for i, value in enumerate(row[:3]) if i != target), abs=1e-6)


def numpy_adam(
    start: np.ndarray, images: np.ndarray, weights: np.ndarray, target: int, eps: float, lr: float, steps: int
) -> np.ndarray:
    """Adam (Kingma and Ba, algorithm 1) on minus the mean margin of a linear classifier, clipped to the bound."""
    delta, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for t in range(1, steps + 1):
        logits = (images + delta - 0.5) @ weights.T
        others = np.where(np.arange(len(weights)) == target, -np.inf, logits).argmax(1)
        gradient = -(weights[target] - weights[others]).mean(0)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        delta = delta - lr * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        delta = delta.clip(-eps, eps)
    return delta


@pytest.mark.parametrize("steps", [1, 4])
def test_steps_are_adam_worked_by_hand(steps: int) -> None:
    """The batch is all images, whose order cannot matter; nothing reaches 0 or 1, so that clipping pixels cannot either."""
    images, weights, eps = toy_images(), toy_weights(), 0.05
    config = SearchConfig(strength=eps, batch=len(images), lr=0.3)
    search = Search(Linear(weights), images, torch.tensor([5, 2]), config=config, seed=1)
    start = search.shape.state()["delta"].double().flatten(1).numpy()
    for _ in range(steps):
        search.step()
    found = search.shape.state()["delta"].flatten(1).numpy()
    pixels = images.double().flatten(1).numpy()
    for row, target in enumerate((5, 2)):
        expected = numpy_adam(start[row], pixels, weights.double().numpy(), target, eps, 0.3 * eps, steps)
        assert np.abs(found[row] - expected).max() < 1e-5
        assert np.abs(expected - start[row]).max() > 0.2 * eps


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("targets", "chunk"), [([3], 128), ([6, 3, 0], 128), ([6, 3, 0], 6), ([6, 3, 0], 13), ([0, 1, 3], 1)])
def test_a_class_does_not_see_the_others_or_the_chunk(shape: str, targets: list[int], chunk: int) -> None:
    together = run(shape, list(range(8)))
    some = run(shape, targets, chunk=chunk)
    at = targets.index(3)
    for name, value in some.shape.state().items():
        assert torch.allclose(value[at], together.shape.state()[name][3], atol=1e-5)
    assert float(some.last_loss[at]) == pytest.approx(float(together.last_loss[3]), abs=1e-4)
    logits, images = Linear(toy_weights()), toy_images(20, seed=9)
    one, all_ = some.measure(logits, images), together.measure(logits, images)
    assert float(one.margin[at]) == pytest.approx(float(all_.margin[3]), abs=1e-4)
    assert float(one.asr[at]) == float(all_.asr[3])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_seed_decides_and_the_global_one_is_left_alone(shape: str) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (run(shape, [1, 2], seed=seed).shape.state() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_every_probe_is_seen_once_an_epoch() -> None:
    seen: list[Tensor] = []

    def logits(images: Tensor) -> Tensor:
        seen.append(images.detach()[:, 0, 0, 0])
        return Linear(toy_weights())(images)

    images = toy_images(12)
    images[:, 0, 0, 0] = 0.4 + torch.arange(12) / 100
    config = SearchConfig(strength=1e-4, batch=5)
    search = Search(logits, images, torch.tensor([0]), config=config, seed=0)
    for _ in range(12):
        search.step()
    order = ((torch.cat(seen) - 0.4) * 100).round().int().tolist()
    assert all(sorted(order[i : i + 12]) == list(range(12)) for i in range(0, 60, 12))


@pytest.mark.parametrize("shape", SHAPES)
def test_bounds_are_kept_after_every_step(shape: str) -> None:
    config = SearchConfig(shape=shape, strength=STRENGTH[shape], batch=6, lr=2.0)  # long steps run into every bound
    images = torch.rand(12, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))  # near 0 and 1 as well
    search = Search(Linear(toy_weights()), images, torch.tensor([0, 1]), config=config, seed=0)
    for _ in range(5):
        search.step()
        stamped = search.shape.apply(images, torch.arange(2)).detach()
        assert stamped.shape == (2, *images.shape)
        assert float(stamped.min()) >= 0
        assert float(stamped.max()) <= 1
        tensors = search.trigger(1)
        if shape == "additive":
            assert float(tensors["delta"].abs().max()) <= STRENGTH[shape] + 1e-7
            assert torch.allclose(stamped[1], (images + tensors["delta"]).clamp(0, 1))
        else:
            mask, pattern = tensors["mask"], tensors["pattern"]
            assert (mask.shape, pattern.shape) == ((1, SIZE, SIZE), (3, SIZE, SIZE))
            assert float(pattern.min()) >= 0
            assert float(pattern.max()) <= 1
            assert torch.allclose(stamped[1], images * (1 - mask) + pattern * mask, atol=1e-6)
        if shape == "patch":
            assert float(mask.sum()) <= STRENGTH[shape] * SIZE**2 + 1e-4
        if shape == "blend":
            assert torch.equal(mask, torch.full_like(mask, STRENGTH[shape]))


def test_measuring_is_a_loop_over_images() -> None:
    search = run("additive", [4, 6])
    images, other = toy_images(10, seed=5), Linear(toy_weights(seed=1))
    found = search.measure(other, images)
    for row, target in enumerate((4, 6)):
        each = loop_margins(other(images + search.trigger(row)["delta"]), torch.full((10,), target))
        assert float(found.margin[row]) == pytest.approx(sum(each) / 10, abs=1e-4)
        assert float(found.asr[row]) == pytest.approx(sum(value > 0 for value in each) / 10)


def test_a_share_counts_the_candidates_only() -> None:
    """Names that stand beside the classes take part in the margin; whether the target is reached, the classes decide."""
    images, other = toy_images(10, seed=5), Linear(toy_weights(seed=1))
    search = Search(other, toy_images(), torch.tensor([1, 6]), config=SearchConfig(batch=4), seed=0, candidates=3)
    found = search.measure(other, images)
    for row, target in enumerate((1, 6)):
        logits = other(images + search.trigger(row)["delta"])
        rivals = [i for i in range(3) if i != target]
        assert float(found.asr[row]) == pytest.approx(float((logits[:, target] > logits[:, rivals].amax(1)).float().mean()))
        assert float(found.margin[row]) == pytest.approx(sum(loop_margins(logits, torch.full((10,), target))) / 10, abs=1e-4)


def test_no_pass_takes_more_images_than_the_chunk() -> None:
    sizes: list[int] = []

    def logits(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return Linear(toy_weights())(images)

    config = SearchConfig(batch=4, chunk=9)
    search = Search(logits, toy_images(), torch.arange(8), config=config, seed=0)
    search.step()
    search.measure(logits, toy_images(24))
    assert max(sizes) <= 9
    assert sum(sizes) == 8 * 4 + 8 * 24


@pytest.mark.parametrize("shape", SHAPES)
def test_the_search_raises_the_margin(shape: str) -> None:
    before, after = run(shape, [0, 1, 2], steps=0), run(shape, [0, 1, 2], steps=20)
    logits, images = Linear(toy_weights()), toy_images(20, seed=9)
    assert bool((after.measure(logits, images).margin > before.measure(logits, images).margin + 0.5).all())


@pytest.mark.parametrize("shape", SHAPES)
def test_variables_can_be_taken_up(shape: str) -> None:
    found = run(shape, [1, 2])
    fresh = run(shape, [1, 2], steps=0, seed=7)
    fresh.load(found.shape.state())
    images = toy_images(5)
    part = torch.arange(2)
    assert torch.equal(fresh.shape.apply(images, part), found.shape.apply(images, part))
    fresh.step()
    assert not torch.equal(fresh.shape.apply(images, part), found.shape.apply(images, part))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shape": "star"}, "expected a trigger shape out of additive, patch, blend, got 'star'"),
        ({"strength": 0.0}, r"expected a trigger strength in \(0, 1\], got 0.0"),
        ({"strength": 1.5}, r"expected a trigger strength in \(0, 1\], got 1.5"),
        ({"strength": float("nan")}, r"expected a trigger strength in \(0, 1\], got nan"),
        ({"batch": 0}, "expected positive batch, chunk and lr, got 0, 128, 0.25"),
        ({"chunk": -1}, "expected positive batch, chunk and lr, got 32, -1, 0.25"),
        ({"lr": 0.0}, "expected positive batch, chunk and lr, got 32, 128, 0.0"),
    ],
)
def test_a_bad_configuration_fails_when_it_is_built(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SearchConfig(**values)
