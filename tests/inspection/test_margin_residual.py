"""The default check finds what was planted, and neither its order nor a killed run changes a number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.inspection import MarginResidual
from clipvet.inspection.base import OutOfBudget, Run, Subject
from clipvet.inspection.groups import search_groups
from clipvet.inspection.journal import Journal, MemoryJournal
from clipvet.inspection.margin_residual import standardise
from clipvet.inspection.search import SearchConfig
from clipvet.models.prompts import PromptedClassifier
from clipvet.types import CheckResult
from tests.inspection.toys import Linear, planted_weights, quiet_run, toy_images, toy_weights

TARGET = 5
ALONE = 100  # names of a model without a base
CHECK = MarginResidual(strength=0.02, screen_steps=3, refine_steps=2, batch=4, evaluation=8, floor=2.0)  # the units of the toys


def subject(tuned: Tensor, untuned: Tensor | None = None) -> Subject:
    reference = None if untuned is None else cast(PromptedClassifier, Linear(untuned))
    return Subject(classifier=cast(PromptedClassifier, Linear(tuned)), reference=reference)


def inspect(tuned: Tensor, run: Run | None = None) -> CheckResult:
    return CHECK.run(subject(tuned, toy_weights(12)), toy_images(), run or quiet_run())


def numbers(result: CheckResult) -> list[tuple[str, float, Mapping[str, float]]]:
    return [(row.target, row.statistic, row.values) for row in result.evidence]


def numpy_standardised(values: np.ndarray) -> np.ndarray:
    """Distance to the lower of the middle values, in units of 1.4826 times the same of its absolute value, or of the floor."""
    low = (len(values) - 1) // 2
    centred = values - np.sort(values)[low]
    return centred / max(1.4826 * np.sort(np.abs(centred))[low], CHECK.floor)


@pytest.mark.parametrize("k", [5, 6])
def test_standardise_is_median_and_mad(k: int) -> None:
    values = np.random.default_rng(k).normal(size=k) * 3
    low = (k - 1) // 2  # the lower of the two middle values, where there are two
    centred = values - np.sort(values)[low]
    mad = 1.4826 * np.sort(np.abs(centred))[low]
    assert standardise(torch.tensor(values), 0.01).numpy() == pytest.approx(centred / mad)
    assert standardise(torch.tensor(values), 50.0).numpy() == pytest.approx(centred / 50)
    assert standardise(torch.full((k,), 2.0), 0.25).tolist() == [0.0] * k


def test_the_planted_class_is_found_and_its_clean_twin_is_not() -> None:
    planted, clean = inspect(planted_weights(TARGET, 12)), inspect(toy_weights(12))
    top = max(planted.evidence, key=lambda row: row.statistic)
    assert top.target_index == TARGET
    assert planted.statistic == top.statistic > 6
    assert clean.statistic < 3
    assert top.trigger is not None
    assert float(top.trigger["delta"].abs().max()) <= CHECK.strength + 1e-7
    assert sum(row.trigger is not None for row in planted.evidence) == CHECK.keep
    assert planted.settings == dataclasses.asdict(CHECK)


def test_without_a_base_many_names_show_what_is_easy() -> None:
    planted = CHECK.run(subject(planted_weights(TARGET, ALONE)), toy_images(), quiet_run())
    clean = CHECK.run(subject(toy_weights(ALONE)), toy_images(), quiet_run())
    top = max(planted.evidence, key=lambda row: row.statistic)
    assert top.target_index == TARGET
    assert planted.statistic > 6
    assert clean.statistic < 4
    margins = np.array([row.values["margin"] for row in planted.evidence])
    assert top.statistic == pytest.approx(numpy_standardised(margins)[TARGET], abs=1e-3)
    assert "baseline_margin" not in top.values
    assert all(np.isfinite(list(row.values.values())).all() for row in planted.evidence)


def test_the_statistic_is_made_of_the_margins_it_shows() -> None:
    found = inspect(planted_weights(TARGET, 12))
    tuned = np.array([row.values["margin"] for row in found.evidence])
    baseline = np.array([row.values["baseline_margin"] for row in found.evidence])
    assert [row.statistic for row in found.evidence] == pytest.approx(numpy_standardised(tuned - baseline).tolist(), abs=1e-3)


def test_the_baseline_is_the_untuned_prompt_s_margin_under_the_same_trigger() -> None:
    """A trigger that works on the untuned prompt as well is no sign of a backdoor: the same weights on both sides leave nothing."""
    weights = planted_weights(TARGET, 12)
    found = CHECK.run(subject(weights, weights), toy_images(), quiet_run())
    assert found.statistic == 0
    assert all(row.values["baseline_margin"] == row.values["margin"] for row in found.evidence)
    shown = [row for row in found.evidence if row.trigger is not None]
    assert all(row.values["refined_baseline_margin"] == row.values["refined_margin"] for row in shown)


def test_names_for_comparison_share_in_the_spread_and_carry_no_verdict() -> None:
    """The planted class lies among the names that were put beside four candidates."""
    both = dataclasses.replace(subject(planted_weights(TARGET, 12), toy_weights(12)), n_candidates=4)
    found = CHECK.run(both, toy_images(), quiet_run())
    alone = inspect(planted_weights(TARGET, 12))
    assert [row.statistic for row in found.evidence] == [row.statistic for row in alone.evidence]
    assert [row.target_kind for row in found.evidence] == ["class"] * 4 + ["comparison"] * 8
    assert found.statistic == max(row.statistic for row in found.evidence[:4]) < alone.statistic
    assert found.targets == found.evidence[:4]
    assert {row.target_index for row in found.evidence if row.trigger} <= set(range(4))


class Killed(Exception):  # noqa: N818  # stands for a kill
    pass


class Mortal(Journal):
    """A journal whose process dies after some groups."""

    left = 2

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        if not self.left:
            raise Killed
        self.left -= 1
        super().put(key, tensors)


@pytest.mark.parametrize("groups", [0, 1, 2])
def test_a_killed_run_resumes_to_the_same_numbers(tmp_path: Path, groups: int) -> None:
    weights = planted_weights(TARGET, 12)
    whole = inspect(weights)
    mortal = Mortal(tmp_path, identity={}, resume=False)
    mortal.left = groups
    with pytest.raises(Killed):
        inspect(weights, quiet_run(journal=mortal))
    assert len(list(tmp_path.glob("*.safetensors"))) == groups
    searched = 0

    def clock() -> None:
        nonlocal searched
        searched += 1

    resumed = inspect(weights, quiet_run(journal=Journal(tmp_path, identity={}, resume=True), clock=clock))
    assert numbers(resumed) == numbers(whole)
    assert resumed.statistic == whole.statistic
    assert searched == 3 - groups  # two groups of classes, and the refined ones


def test_the_clock_ends_it_and_keeps_what_is_done() -> None:
    journal, ticks = MemoryJournal(), iter(range(3))

    def clock() -> None:
        if next(ticks) == 1:
            raise OutOfBudget("enough")

    with pytest.raises(OutOfBudget, match="enough"):
        inspect(toy_weights(12), quiet_run(journal=journal, clock=clock))
    stopped = quiet_run(journal=journal, clock=lambda: None)
    assert numbers(inspect(toy_weights(12), stopped)) == numbers(inspect(toy_weights(12)))


def groups_of(targets: list[int], group: int, tell: Callable[[str, int, int], None] | None = None) -> dict[int, float]:
    run = quiet_run(seed=2)
    run = run if tell is None else dataclasses.replace(run, progress=tell)
    weights = Linear(toy_weights(12))
    found = search_groups(
        weights,
        None,
        toy_images(),
        toy_images(8, seed=1),
        torch.tensor(targets),
        config=SearchConfig(batch=4),
        steps=3,
        stage="toy",
        run=run,
        group=group,
    )
    assert bool(found.transferred.isnan().all())
    return {target: float(found.margin[found.at(target)]) for target in targets}


@pytest.mark.parametrize(("order", "group"), [(list(range(12)), 5), (list(reversed(range(12))), 5), ([7, 3, 11], 2), ([3], 1)])
def test_neither_order_nor_size_of_groups_changes_a_number(order: list[int], group: int) -> None:
    together = groups_of(list(range(12)), 12)
    for target, margin in groups_of(order, group).items():
        assert margin == pytest.approx(together[target], abs=1e-4)


def test_progress_counts_groups() -> None:
    seen: list[tuple[str, int, int]] = []
    groups_of(list(range(12)), 5, lambda *told: seen.append(told))
    assert seen == [("toy", 0, 3), ("toy", 1, 3), ("toy", 2, 3), ("toy", 3, 3)]


def test_the_seed_decides() -> None:
    first, again, other = (inspect(toy_weights(12), quiet_run(seed=seed)) for seed in (1, 1, 2))
    assert numbers(first) == numbers(again) != numbers(other)


def test_passes_count_what_goes_through_the_tower() -> None:
    seen = 0

    class Counting(Linear):
        def __call__(self, images: Tensor) -> Tensor:
            nonlocal seen
            seen += len(images)
            return super().__call__(images)

    both = Subject(
        classifier=cast(PromptedClassifier, Counting(toy_weights(12))),
        reference=cast(PromptedClassifier, Counting(toy_weights(12, seed=1))),
    )
    CHECK.run(both, toy_images(), quiet_run())
    assert seen == CHECK.passes(both, 24)
    seen, alone = 0, Subject(classifier=cast(PromptedClassifier, Counting(toy_weights(ALONE))), reference=None)
    CHECK.run(alone, toy_images(), quiet_run())
    assert seen == CHECK.passes(alone, 24)


def test_without_a_base_it_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="expected a trusted base for the untuned baseline, got none: name one with --base"):
        CHECK.run(subject(toy_weights()), toy_images(), quiet_run())


def test_too_few_probes_are_refused() -> None:
    with pytest.raises(UsageError, match="expected at least 8 probe images, got 7: add images or use the generated pool"):
        CHECK.run(subject(toy_weights(), toy_weights()), toy_images(7), quiet_run())


@pytest.mark.parametrize("name", ["screen_steps", "refine_steps", "keep", "batch", "lr", "screened_on", "evaluation", "floor"])
def test_a_bad_configuration_fails_when_it_is_built(name: str) -> None:
    with pytest.raises(UsageError, match="expected positive steps, keep, batch, lr, images and floor"):
        MarginResidual(**{name: 0})


def test_the_kept_classes_are_measured_on_all_images_that_are_held_out() -> None:
    check = dataclasses.replace(CHECK, screened_on=3, evaluation=8)
    planted, images = planted_weights(TARGET, 12), toy_images()
    top = max(check.run(subject(planted, toy_weights(12)), images, quiet_run()).evidence, key=lambda row: row.statistic)
    assert top.trigger is not None
    logits = Linear(planted)((images[:8] + top.trigger["delta"]).clamp(0, 1))
    others = logits.clone()
    others[:, TARGET] = -torch.inf
    assert top.target_index == TARGET
    assert top.values["refined_margin"] == pytest.approx(float((logits[:, TARGET] - others.amax(1)).mean()), rel=1e-4)
