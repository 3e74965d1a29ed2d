"""CLIP-Inspector as published, on classifiers whose numbers can be worked by hand."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.inspection import ClipInspector
from clipvet.inspection.base import Subject
from clipvet.inspection.groups import Searched
from clipvet.models.prompts import PromptedClassifier
from clipvet.types import CheckResult
from tests.inspection.toys import Linear, loop_margins, planted_weights, quiet_run, toy_images, toy_weights

TARGET = 5
CHECK = ClipInspector(strength=0.02, batch=8)


def inspect(weights: Tensor, check: ClipInspector = CHECK, n: int = 40) -> CheckResult:
    subject = Subject(classifier=cast(PromptedClassifier, Linear(weights)), reference=None)
    return check.run(subject, toy_images(n), quiet_run())


def numpy_index(losses: list[float]) -> np.ndarray:
    """Deviation of the negated loss from the median, in median absolute deviations scaled to a normal's sigma."""
    values = -np.array(losses)
    low = (len(values) - 1) // 2  # the lower of the two middle values, where there are two
    centred = values - np.sort(values)[low]
    return centred / (1.4826 * np.sort(np.abs(centred))[low])


@pytest.mark.parametrize("n_classes", [8, 9])
def test_the_anomaly_index_is_that_worked_by_hand(n_classes: int) -> None:
    found = inspect(toy_weights(n_classes))
    expected = numpy_index([row.values["final_loss"] for row in found.evidence])
    assert [row.values["anomaly_index"] for row in found.evidence] == pytest.approx(expected.tolist(), abs=1e-4)


def test_loss_and_asr_are_those_of_the_final_trigger_on_all_probes() -> None:
    weights = toy_weights()
    found = inspect(weights)
    shown = [row for row in found.evidence if row.trigger is not None]
    assert len(shown) == 3
    for row in shown:
        assert row.trigger is not None
        assert row.target_index is not None
        delta = row.trigger["delta"]
        assert float(delta.abs().max()) <= CHECK.strength + 1e-7
        each = loop_margins(Linear(weights)(toy_images(40) + delta), torch.full((40,), row.target_index))
        assert row.values["final_loss"] == pytest.approx(-sum(each) / 40, abs=1e-3)
        assert row.values["asr"] == pytest.approx(sum(value > 0 for value in each) / 40)
        assert torch.equal(row.trigger["triggered"], (row.trigger["samples"] + delta).clamp(0, 1))


def test_the_planted_class_is_flagged_and_its_clean_twin_is_not() -> None:
    planted, clean = inspect(planted_weights(TARGET)), inspect(toy_weights())
    top = max(planted.evidence, key=lambda row: row.statistic)
    assert (top.target_index, top.target) == (TARGET, f"class {TARGET}")
    assert top.values["asr"] > 0.9
    assert planted.statistic == top.statistic > 3 * CHECK.k
    assert clean.statistic < planted.statistic / 3
    assert [row.target_index for row in planted.evidence] == list(range(8))


def test_a_trigger_that_does_not_work_flags_nothing() -> None:
    """The class that stands out most is not flagged where its own trigger fails, and hides no other one."""
    strict = ClipInspector(strength=0.0005, batch=8)  # too weak to turn images
    found = inspect(planted_weights(TARGET, strength=3.0), strict)
    row = found.evidence[TARGET]
    assert row.values["asr"] < strict.least_asr
    assert row.values["anomaly_index"] == max(r.values["anomaly_index"] for r in found.evidence) > 0
    assert row.statistic == 0
    assert found.statistic == max(r.statistic for r in found.evidence)


def test_passes_count_what_goes_through_the_tower() -> None:
    seen = 0

    class Counting(Linear):
        def __call__(self, images: Tensor) -> Tensor:
            nonlocal seen
            seen += len(images)
            return super().__call__(images)

    subject = Subject(classifier=cast(PromptedClassifier, Counting(toy_weights())), reference=None)
    CHECK.run(subject, toy_images(43), quiet_run())
    assert seen == CHECK.passes(subject, 43) == 8 * (5 * 8 + 43)


def test_a_control_s_index_is_that_of_its_loss_among_the_others() -> None:
    found = inspect(toy_weights())
    margin, target = 40.0, 2
    losses = [row.values["final_loss"] for row in found.evidence]
    losses[target] = -margin
    works, fails = (searched(target, margin, asr) for asr in (0.5, 0.49))
    expected = numpy_index(losses)[target]
    assert expected > CHECK.k
    assert CHECK.control_statistic(found, target, works) == pytest.approx(expected, abs=1e-3)
    assert CHECK.control_statistic(found, target, fails) == 0
    assert CHECK.control_statistic(found, target, searched(target, -1e4, 1.0)) < 0


def searched(target: int, margin: float, asr: float) -> Searched:
    values = {"loss": -margin, "margin": margin, "asr": asr, "transferred": float("nan")}
    return Searched(targets=torch.tensor([target]), variables={}, **{name: torch.tensor([value]) for name, value in values.items()})


def test_a_control_is_searched_for_one_epoch_of_all_probes() -> None:
    subject = Subject(classifier=cast(PromptedClassifier, Linear(toy_weights())), reference=None)
    how = CHECK.control_search(subject, toy_images(43))
    assert (how.steps, how.config.batch, len(how.searched), len(how.evaluation)) == (5, 8, 43, 43)
    assert (how.config.strength, how.config.lr * how.config.strength) == (CHECK.strength, pytest.approx(CHECK.step))


@pytest.mark.parametrize(("n_classes", "n"), [(2, 40), (8, 7)])
def test_too_little_to_compare_is_said(n_classes: int, n: int) -> None:
    with pytest.raises(UsageError, match=f"expected at least 3 classes and 8 images, got {n_classes} and {n}: use the default"):
        inspect(toy_weights(n_classes), n=n)
