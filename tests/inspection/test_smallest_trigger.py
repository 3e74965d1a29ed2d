"""Neural Cleanse and Pixel-Backdoor find the class with the smallest trigger, by the published rule, at the cost they state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.inspection import CHECKS, NeuralCleanse, PixelBackdoor, control
from clipvet.inspection.base import OutOfBudget, Run, Subject
from clipvet.inspection.calibration import FALLBACK
from clipvet.inspection.control import plant_control, run_controls
from clipvet.inspection.groups import Searched
from clipvet.inspection.journal import Journal, MemoryJournal
from clipvet.inspection.smallest_trigger import SmallestTrigger, small_side_index
from clipvet.inspection.subject import TEMPLATES
from clipvet.models.base import ClipModel
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.zeroshot import HandWritten
from clipvet.types import CheckResult
from tests.inspection.toys import Linear, noisy_images, patched_weights, quiet_run, toy_weights

TARGET, CLASSES, N = 5, 10, 40
FOUND = [NeuralCleanse(epochs=40, batch=8, evaluation=16), PixelBackdoor(epochs=60, batch=8, evaluation=16)]
BRIEF = [dataclasses.replace(check, epochs=2.0) for check in FOUND]


def named(check: SmallestTrigger) -> str:
    return check.name


def subject(weights: Tensor, n_candidates: int | None = None) -> Subject:
    return Subject(classifier=cast(PromptedClassifier, Linear(weights)), reference=None, n_candidates=n_candidates)


def inspect(check: SmallestTrigger, weights: Tensor, run: Run | None = None) -> CheckResult:
    return check.run(subject(weights), noisy_images(N), run or quiet_run())


def numbers(result: CheckResult) -> list[tuple[str, float, Mapping[str, float]]]:
    return [(row.target, row.statistic, row.values) for row in result.evidence]


def numpy_index(sizes: list[float]) -> np.ndarray:
    """How far below the median, in 1.4826 times the median absolute deviation, which is at least a pixel."""
    below = np.median(sizes) - np.array(sizes)
    return np.asarray(below / max(1.4826 * np.median(np.abs(below)), 1.0))


@pytest.mark.parametrize("sizes", [[30.0, 41, 38, 44, 9, 39, 47], [30.0, 41, 38, 44, 9, 39, 47, 52], [64.0] * 9 + [60]])
def test_the_index_is_the_median_absolute_deviation_on_the_small_side(sizes: list[float]) -> None:
    found = small_side_index(torch.tensor(sizes))
    assert found.numpy() == pytest.approx(numpy_index(sizes), rel=1e-5)
    assert int(found.argmax()) == int(np.argmin(sizes))


@pytest.mark.parametrize("check", FOUND, ids=named)
def test_the_planted_class_is_flagged_and_its_clean_twin_is_not(check: SmallestTrigger) -> None:
    planted, clean = inspect(check, patched_weights(TARGET, CLASSES)), inspect(check, toy_weights(CLASSES))
    top = max(planted.evidence, key=lambda row: row.statistic)
    assert (top.target_index, top.target, top.trigger_kind) == (TARGET, f"class {TARGET}", check.kind)
    assert top.values[check.measure] == min(row.values[check.measure] for row in planted.evidence)
    assert top.values["asr"] > 0.75
    assert planted.statistic == top.statistic > FALLBACK[check.name] == check.k == 2
    assert clean.statistic < 2
    assert planted.settings == dataclasses.asdict(check)
    assert sum(row.trigger is not None for row in planted.evidence) == 3


@pytest.mark.parametrize("check", BRIEF, ids=named)
def test_size_index_and_asr_are_those_of_the_trigger_that_is_shown(check: SmallestTrigger) -> None:
    weights = toy_weights(CLASSES)
    found = inspect(check, weights)
    expected = numpy_index([row.values[check.measure] for row in found.evidence])
    assert [row.values["anomaly_index"] for row in found.evidence] == pytest.approx(expected.tolist(), abs=1e-4)
    shown = [row for row in found.evidence if row.trigger is not None]
    assert len(shown) == 3
    held = noisy_images(N)[:16]
    for row in shown:
        assert row.trigger is not None
        if isinstance(check, NeuralCleanse):
            mask, pattern = row.trigger["mask"], row.trigger["pattern"]
            size, stamped = float(mask.sum()), held * (1 - mask) + pattern * mask
        else:
            delta = row.trigger["delta"]
            size, stamped = float(np.count_nonzero(delta.abs().sum(0).numpy())), (held + delta).clamp(0, 1)
        assert row.values[check.measure] == pytest.approx(size, abs=1e-3)
        assert torch.allclose(row.trigger["triggered"], stamped[:4], atol=5e-3)  # what is dropped is below a step of a channel
        assert row.target_index is not None
        hits = Linear(weights)(stamped).argmax(1).eq(row.target_index)
        assert row.values["asr"] == pytest.approx(float(hits.float().mean()), abs=0.07)


@pytest.mark.parametrize("check", BRIEF, ids=named)
def test_a_trigger_that_does_not_work_flags_nothing(check: SmallestTrigger) -> None:
    """The statistic is the index where the trigger works, and at most 0 where it does not."""
    strict = dataclasses.replace(check, least_asr=1.01)
    found = inspect(strict, patched_weights(TARGET, CLASSES))
    assert [row.statistic for row in found.evidence] == [min(row.values["anomaly_index"], 0) for row in found.evidence]
    assert found.statistic == max(row.statistic for row in found.evidence)


@pytest.mark.parametrize("check", BRIEF, ids=named)
def test_names_for_comparison_share_in_the_spread_and_carry_no_verdict(check: SmallestTrigger) -> None:
    weights = patched_weights(TARGET, CLASSES)
    few = check.run(subject(weights, 4), noisy_images(N), quiet_run())
    assert [row.target_kind for row in few.evidence] == ["class"] * 4 + ["comparison"] * 6
    assert few.statistic == max(row.statistic for row in few.evidence[:4])
    assert {row.target_index for row in few.evidence if row.trigger} <= set(range(4))


@pytest.mark.parametrize("check", BRIEF, ids=named)
@pytest.mark.parametrize("n", [N, 43, 24])
def test_passes_count_what_goes_through_the_tower(check: SmallestTrigger, n: int) -> None:
    seen = 0

    class Counting(Linear):
        def __call__(self, images: Tensor) -> Tensor:
            nonlocal seen
            seen += len(images)
            return super().__call__(images)

    counted = Subject(classifier=cast(PromptedClassifier, Counting(toy_weights(CLASSES))), reference=None)
    check.run(counted, noisy_images(n), quiet_run())
    held = min(16, n // 2)
    assert seen == check.passes(counted, n) == CLASSES * (round(2 * (n - held) / 8) * 8 + held)


@pytest.mark.parametrize("check", BRIEF, ids=named)
def test_an_equal_budget_takes_as_many_steps_as_fit(check: SmallestTrigger) -> None:
    whom = subject(toy_weights(CLASSES))
    for wanted in range(CLASSES * 24, CLASSES * 160, 37):
        got = check.within(wanted, whom, N)
        assert wanted - CLASSES * check.batch < got.passes(whom, N) <= wanted
        assert dataclasses.replace(got, epochs=check.epochs) == check
    assert check.within(1, whom, N).passes(whom, N) == CLASSES * (check.batch + 16)  # one step at the least


class Killed(Exception):  # noqa: N818  # stands for a kill
    pass


class Mortal(Journal):
    """A journal whose process dies after one group."""

    left = 1

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        if not self.left:
            raise Killed
        self.left -= 1
        super().put(key, tensors)


@pytest.mark.parametrize("check", BRIEF, ids=named)
def test_a_killed_run_resumes_to_the_same_numbers(tmp_path: Path, check: SmallestTrigger) -> None:
    weights = toy_weights(CLASSES)
    whole = inspect(check, weights)
    with pytest.raises(Killed):
        inspect(check, weights, quiet_run(journal=Mortal(tmp_path, identity={}, resume=False)))
    searched = 0

    def clock() -> None:
        nonlocal searched
        searched += 1

    resumed = inspect(check, weights, quiet_run(journal=Journal(tmp_path, identity={}, resume=True), clock=clock))
    assert numbers(resumed) == numbers(whole)
    assert searched == 1  # of two groups


@pytest.mark.parametrize("check", BRIEF, ids=named)
def test_the_clock_ends_it(check: SmallestTrigger) -> None:
    def clock() -> None:
        raise OutOfBudget("enough")

    with pytest.raises(OutOfBudget, match="enough"):
        inspect(check, toy_weights(CLASSES), quiet_run(journal=MemoryJournal(), clock=clock))


def searched(check: SmallestTrigger, target: int, *, pixels: int, asr: float) -> Searched:
    """What a search of one class found: a trigger of a known size."""
    sizes = torch.full((1, 1, 8, 8), -20.0).flatten()
    if isinstance(check, NeuralCleanse):
        sizes[:pixels] = 20.0  # tanh ends at 0 and 1
        variables = {"mask": sizes.view(1, 1, 8, 8), "pattern": torch.zeros(1, 3, 8, 8)}
    else:
        sizes[:pixels] = 0.5
        variables = {"positive": sizes.view(1, 1, 8, 8).expand(1, 3, 8, 8), "negative": torch.zeros(1, 3, 8, 8)}
    values = {name: torch.tensor([float("nan")]) for name in ("loss", "margin", "transferred")}
    return Searched(targets=torch.tensor([target]), variables=variables, asr=torch.tensor([asr]), **values)


@pytest.mark.parametrize("check", BRIEF, ids=named)
def test_a_control_s_index_is_that_of_its_size_among_the_others(check: SmallestTrigger) -> None:
    found, target = inspect(check, toy_weights(CLASSES)), 2
    sizes = [row.values[check.measure] for row in found.evidence]
    sizes[target] = 3
    expected = numpy_index(sizes)[target]
    assert expected > check.k
    works, fails = (searched(check, target, pixels=3, asr=asr) for asr in (0.5, 0.49))
    assert check.control_statistic(found, target, works) == pytest.approx(expected, rel=1e-4)
    assert check.control_statistic(found, target, fails) == 0
    assert check.control_statistic(found, target, searched(check, target, pixels=64, asr=1.0)) <= 0


def test_a_control_is_searched_as_a_class_is(tiny_clip: ClipModel, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[float] = []

    def planting(*args: Any, eps: float, seed: int) -> Tensor | None:
        bounds.append(eps)
        return plant_control(*args, eps=eps, seed=seed)

    monkeypatch.setattr(control, "plant_control", planting)
    names = ("cat", "dog", "owl", "fox")
    untuned = PromptedClassifier(tiny_clip, HandWritten(tiny_clip, names, TEMPLATES), names).freeze()
    both, probes = (
        Subject(classifier=untuned, reference=untuned),
        torch.rand(36, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
    )
    own = dataclasses.replace(BRIEF[0], epochs=0.5, strength=32 / 255)
    run = quiet_run(seed=1)
    result = own.run(both, probes, run)
    done = run_controls(own, both, result, probes, run, flag=own.k)
    assert done["planted"] > 0
    assert bounds == [own.strength] * 2
    how = own.control_search(both, probes)
    assert (how.steps, how.config.batch, how.strength) == (round(0.5 * 20 / 8), 8, 32 / 255)
    assert (len(how.searched), len(how.evaluation), how.mixed_precision) == (20, 16, True)
    found = []
    for number in range(2):
        for target in range(4):
            group = run.journal.get(f"control {number}/{target}")
            if group is not None:
                values = {k: v for k, v in group.items() if not k.startswith("variable.")}
                variables = {k.removeprefix("variable."): v for k, v in group.items() if k.startswith("variable.")}
                found.append(
                    own.control_statistic(result, target, Searched(targets=torch.tensor([target]), variables=variables, **values))
                )
    assert done["statistic"] == pytest.approx(min(found))


@pytest.mark.parametrize("check", BRIEF, ids=named)
@pytest.mark.parametrize(("n_classes", "n"), [(2, 40), (8, 15)])
def test_too_little_to_compare_is_said(check: SmallestTrigger, n_classes: int, n: int) -> None:
    with pytest.raises(UsageError, match=f"expected at least 3 classes and 16 images, got {n_classes} and {n}: use the default"):
        check.run(subject(toy_weights(n_classes)), noisy_images(n), quiet_run())


@pytest.mark.parametrize("cls", [NeuralCleanse, PixelBackdoor])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0}, "expected positive epochs, batch, lr, weight, patience and evaluation, and a multiplier above 1"),
        ({"batch": 0}, "expected positive epochs"),
        ({"multiplier": 1.0}, "a multiplier above 1"),
        ({"reach": 1.5}, r"expected a reach in \(0, 1\] and a start_weight of at least 0, got 1.5"),
        ({"start_weight": -1.0}, "a start_weight of at least 0"),
    ],
)
def test_a_bad_configuration_fails_when_it_is_built(cls: type[SmallestTrigger], changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cls(**changed)


def test_the_published_parameters_are_the_defaults() -> None:
    """Values of the official code of each, as far as it states them; five epochs are CLIP-Inspector's comparison."""
    cleanse, pixel = NeuralCleanse(), PixelBackdoor()
    assert (cleanse.lr, cleanse.batch, cleanse.reach, cleanse.weight, cleanse.start_weight) == (0.1, 32, 0.99, 1e-3, 0)
    assert (cleanse.patience, cleanse.multiplier, cleanse.epochs, cleanse.k) == (5, 1.5, 5, 2)
    assert (pixel.lr, pixel.batch, pixel.reach, pixel.weight, pixel.start_weight) == (0.1, 32, 0.9, 1e-3, 1e-3)
    assert (pixel.patience, pixel.multiplier, pixel.epochs, pixel.k) == (10, 1.5, 5, 2)
    assert {CHECKS["neural-cleanse"], CHECKS["pixel-backdoor"]} == {NeuralCleanse, PixelBackdoor}
