"""The search for a smallest trigger is the plain loop over steps that the papers describe, class by class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.inspection.dynamic_weight import DynamicWeight
from clipvet.inspection.groups import search_groups
from clipvet.inspection.neural_cleanse import MaskShape
from clipvet.inspection.pixel_backdoor import PixelShape
from clipvet.inspection.search import Search
from clipvet.inspection.sparse_search import SparseConfig, SparseSearch, SparseShape
from tests.inspection.toys import SIZE, Linear, noisy_images, quiet_run, toy_images, toy_weights

N = 12
SHAPES: list[type[SparseShape]] = [MaskShape, PixelShape]


def config(shape: type[SparseShape], **changed: float) -> SparseConfig:
    plain = SparseConfig(
        shape=shape, batch=N, lr=0.1, reach=0.75, start_weight=0.02, weight=0.02, patience=3, multiplier=1.5, chunk=128
    )
    return replace(plain, **changed)


def run(shape: type[SparseShape], targets: list[int], *, steps: int = 12, seed: int = 0, chunk: int = 128) -> Search:
    how = config(shape, chunk=chunk, batch=6)
    search = how.begin(Linear(toy_weights()), noisy_images(), torch.tensor(targets), seed=seed)
    search.run(steps)
    return search


def loop_weights(reached: np.ndarray, *, start: float, first: float, patience: float, multiplier: float) -> list[float]:
    """One class's weight after each look, with two counters as in the official code."""
    weight, ups, downs, found = start, 0, 0, []
    for look in reached:
        ups, downs = (ups + 1, 0) if look else (0, downs + 1)
        if ups >= patience:
            weight, ups = (first if weight == 0 else weight * multiplier), 0
        elif downs >= patience:
            weight, downs = weight / multiplier**1.5, 0
        found.append(weight)
    return found


@pytest.mark.parametrize(("start", "patience", "multiplier"), [(0.0, 5, 1.5), (1e-3, 10, 1.5), (0.5, 1, 2.0), (0.0, 2, 3.0)])
def test_the_weight_follows_the_rule_look_by_look(start: float, patience: int, multiplier: float) -> None:
    share = np.array([0.0, 0.5, 0.9, 0.97, 1.0])  # how often each of five classes is reached
    reached = np.random.default_rng(1).random((80, 5)) < share
    weight = DynamicWeight(5, start=start, first=1e-3, patience=patience, multiplier=multiplier)
    found = []
    for look in reached:
        weight.look(torch.tensor(look))
        found.append(weight.value.tolist())
    expected = [loop_weights(row, start=start, first=1e-3, patience=patience, multiplier=multiplier) for row in reached.T]
    assert np.array(found) == pytest.approx(np.array(expected).T, rel=1e-5)
    assert weight.value[4] > max(start, 1e-3)
    assert weight.value[0] < start or start == 0


def mask_trigger(variables: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor, float]:
    """Stamped images, the size in the loss, and the size that is compared."""
    mask, pattern = (torch.tanh(variables[name]) / 2 + 0.5 for name in ("mask", "pattern"))
    return images * (1 - mask) + pattern * mask, mask.sum(), float(mask.detach().sum())


def pixel_trigger(variables: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor, float]:
    up, down = variables["positive"], variables["negative"]
    stamped = (images + up.clamp(0, 1) - down.clamp(0, 1)).clamp(0, 1)
    cost = sum((torch.tanh(v / 10) / 2 + 0.5).max(dim=0).values.sum() for v in (up, down))
    count = 0
    for row in range(SIZE):
        for column in range(SIZE):
            changes = [[float(v.detach()[c, row, column]) for v in (up, down)] for c in range(3)]
            kept = [[min(value, 1.0) if value >= 1 / 255 else 0.0 for value in pair] for pair in changes]
            count += any(brighter - darker != 0 for brighter, darker in kept)
    assert isinstance(cost, Tensor)
    return stamped, cost, float(count)


def prune(variables: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.where(value >= 1 / 255, value.clamp(max=1), torch.zeros(())) for name, value in variables.items()}


def plain_loop(
    trigger: Callable[[dict[str, Tensor], Tensor], tuple[Tensor, Tensor, float]],
    start: dict[str, Tensor],
    target: int,
    steps: int,
    how: SparseConfig,
) -> tuple[dict[str, Tensor], list[bool]]:
    """One class alone, all images in every step; Adam as in algorithm 1 of Kingma and Ba."""
    logits, images = Linear(toy_weights()), noisy_images(N)
    variables = {name: value.clone() for name, value in start.items()}
    first, second = ({name: torch.zeros_like(value) for name, value in start.items()} for _ in range(2))
    best, least, hits = None, float("inf"), []
    weight = how.start_weight
    for t in range(1, steps + 1):
        leaves = {name: value.clone().requires_grad_(True) for name, value in variables.items()}
        stamped, cost, size = trigger(leaves, images)
        found = logits(stamped)
        loss = F.cross_entropy(found, torch.full((N,), target)) + weight * cost
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        measured = variables
        variables = {}
        for (name, value), gradient in zip(measured.items(), gradients, strict=True):
            first[name] = 0.5 * first[name] + 0.5 * gradient
            second[name] = 0.9 * second[name] + 0.1 * gradient**2
            variables[name] = value - how.lr * (first[name] / (1 - 0.5**t)) / ((second[name] / (1 - 0.9**t)).sqrt() + 1e-8)
        hits.append(bool((found.argmax(1) == target).float().mean() >= how.reach))
        if hits[-1] and size < least:
            least, best = size, measured
            if trigger is pixel_trigger:
                best = variables = prune(measured)
        rule = {"start": how.start_weight, "first": how.weight, "patience": how.patience, "multiplier": how.multiplier}
        weight = loop_weights(np.array(hits), **rule)[-1]
    return (best or variables), hits


@pytest.mark.parametrize("start_weight", [0.0, 0.05])
@pytest.mark.parametrize(("shape", "trigger"), [(MaskShape, mask_trigger), (PixelShape, pixel_trigger)])
def test_the_search_is_a_plain_loop(
    shape: type[SparseShape], trigger: Callable[[dict[str, Tensor], Tensor], tuple[Tensor, Tensor, float]], start_weight: float
) -> None:
    how = config(shape, start_weight=start_weight)
    search = how.begin(Linear(toy_weights()), noisy_images(N), torch.tensor([5, 2]), seed=1)
    start = search.shape.state()
    search.run(25)
    found = search.shape.state()
    for row, target in enumerate((5, 2)):
        expected, hits = plain_loop(trigger, {name: value[row] for name, value in start.items()}, target, 25, how)
        assert sum(hits) > 5
        for name, value in expected.items():
            assert torch.allclose(found[name][row], value, atol=2e-4), name
        size = trigger(expected, noisy_images(N))[2]
        assert float(search.shape.size(found)[row]) == pytest.approx(size, abs=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_last_trigger_is_given_where_none_worked(shape: type[SparseShape]) -> None:
    """A classifier that never says 3: what is left is the last step's trigger, not the first one's."""
    weights = torch.zeros(4, 3 * SIZE * SIZE)

    def logits(images: Tensor) -> Tensor:
        return Linear(weights)(images) + torch.tensor([9.0, 0.0, 0.0, 0.0])

    search = SparseSearch(logits, toy_images(N), torch.tensor([3]), config=config(shape), seed=0)
    start = search.shape.state()
    for _ in range(6):
        search.step()
    last = search.shape.state()
    search.run(0)
    found = search.shape.state()
    assert all(torch.equal(found[name], last[name]) for name in found)
    assert any(not torch.equal(found[name], start[name]) for name in found)
    assert search.weight.value.tolist() == pytest.approx([0.02 / 1.5**3], rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("targets", "chunk"), [([3], 128), ([6, 3, 0], 13), ([0, 1, 3], 1)])
def test_a_class_does_not_see_the_others_or_the_chunk(shape: type[SparseShape], targets: list[int], chunk: int) -> None:
    together, some = run(shape, list(range(8))), run(shape, targets, chunk=chunk)
    at = targets.index(3)
    for name, value in some.shape.state().items():
        assert torch.allclose(value[at], together.shape.state()[name][3], atol=1e-4)
    assert float(some.last_loss[at]) == pytest.approx(float(together.last_loss[3]), abs=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("group", [1, 3, 8])
def test_groups_change_no_number(shape: type[SparseShape], group: int) -> None:
    found, whole = (
        search_groups(
            Linear(toy_weights()),
            None,
            noisy_images(),
            noisy_images(8, seed=1),
            torch.arange(8),
            config=config(shape, batch=6),
            steps=12,
            stage="toy",
            run=quiet_run(seed=2),
            group=size,
        )
        for size in (group, 8)
    )
    for name, value in found.variables.items():
        assert torch.allclose(value, whole.variables[name], atol=1e-4)
    assert torch.allclose(found.margin, whole.margin, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_seed_decides_and_the_global_one_is_left_alone(shape: type[SparseShape]) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (run(shape, [1, 2], seed=seed).shape.state() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_whether_a_batch_is_turned_the_candidates_decide() -> None:
    """A name that stands beside the classes wins every image, and the target beats all candidates."""
    weights = torch.zeros(4, 3 * SIZE * SIZE)

    def logits(images: Tensor) -> Tensor:
        return Linear(weights)(images) + torch.tensor([0.0, 1.0, 0.0, 9.0])

    for candidates, value in ((3, 0.02 * 1.5), (None, 0.02 / 1.5**1.5)):
        how = config(MaskShape)
        search = SparseSearch(logits, toy_images(N), torch.tensor([1]), config=how, seed=0, candidates=candidates)
        for _ in range(3):
            search.step()
        assert search.weight.value.tolist() == pytest.approx([value], rel=1e-5)
