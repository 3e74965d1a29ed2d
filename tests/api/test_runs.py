"""Seeds, budgets, and resumed runs: what was done is the same however it was done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from clipvet import api
from clipvet.api import InspectOptions, inspect_model
from clipvet.errors import UsageError
from clipvet.inspection import calibration
from clipvet.inspection.journal import Journal
from clipvet.types import Coverage, Verdict
from tests.api.inspections import measured, same_numbers, ticking, with_


def test_the_seed_decides(delivery: Path, options: InspectOptions) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (inspect_model(delivery, with_(options, seed=seed)) for seed in (1, 1, 2))
    assert same_numbers(first, again)
    assert measured(first) != measured(other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("groups", "done"), [(0, 0), (2, 0), (3, 1), (6, 1), (7, 2)])
def test_a_budget_leaves_an_open_outcome_and_what_is_done(
    delivery: Path, options: InspectOptions, monkeypatch: pytest.MonkeyPatch, groups: int, done: int
) -> None:
    """Two groups of classes and the refined ones make the check; two controls follow, each planted and then searched."""
    ticking(monkeypatch, groups)
    monkeypatch.setattr(api, "flag_of", lambda check, null: -1e9)  # every control counts as found
    monkeypatch.setitem(calibration.FALLBACK, "margin-residual", 1e9)  # and nothing in the delivery is suspicious
    report = inspect_model(delivery, with_(options, budget=60.0))
    assert report.coverage == Coverage(done=done, asked=2)
    assert np.isnan(report.checks[0].statistic) == (done == 0)
    if done < 2:
        assert report.verdict is Verdict.INCONCLUSIVE
        assert report.summary.startswith("The budget of 60 s was used up.")
        assert "the budget of 60 s was used up" in {row.why for row in report.skipped}
    if done == 2:
        assert report.checks[0].control["recovered"] == 1.0


def test_a_real_budget_ends_a_run(delivery: Path, options: InspectOptions) -> None:
    report = inspect_model(delivery, with_(options, budget=1e-6))
    assert (report.verdict, report.coverage.share) == (Verdict.INCONCLUSIVE, 0.0)
    assert "without a --budget" in report.next_steps[0]


@pytest.mark.parametrize("groups", [0, 2, 4])
def test_a_killed_run_resumes_to_the_same_report(
    delivery: Path, options: InspectOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: int
) -> None:
    whole = inspect_model(delivery, options)
    work = tmp_path / "state"
    put = Journal.put
    left = iter(range(groups))

    def mortal(self: Journal, key: str, tensors: Mapping[str, Tensor]) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        put(self, key, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "put", mortal)
        with pytest.raises(KeyboardInterrupt):
            inspect_model(delivery, with_(options, work=work))
    assert len(list(work.glob("*.safetensors"))) == groups
    seen: list[str] = []
    resumed = inspect_model(
        delivery, with_(options, work=work, resume=True), progress=lambda stage, done, total: seen.append(stage) if done else None
    )
    assert same_numbers(resumed, whole)
    assert len(list(work.glob("*.safetensors"))) == 5
    assert len(seen) == 5


@pytest.mark.parametrize("changed", [{"seed": 2}, {"probe_count": 25}, {"position": "front"}, {"preset": "paper"}])
def test_the_state_of_another_run_is_refused(
    delivery: Path, options: InspectOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    ticking(monkeypatch, 0)
    inspect_model(delivery, with_(options, work=tmp_path / "state", budget=1.0))
    with pytest.raises(UsageError, match="found that of another delivery or other settings"):
        inspect_model(delivery, with_(options, work=tmp_path / "state", budget=1.0, resume=True, **changed))


def test_other_pictures_or_another_seed_are_another_run(
    delivery: Path, options: InspectOptions, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticking(monkeypatch, 0)
    asked = with_(options, probes=pictures, work=tmp_path / "state", budget=1.0)
    inspect_model(delivery, asked)
    inspect_model(delivery, with_(asked, resume=True))
    with pytest.raises(UsageError, match="found that of another delivery or other settings"):
        inspect_model(delivery, with_(asked, resume=True, seed=2))
    Image.new("RGB", (40, 40), "red").save(pictures / "00.png")
    with pytest.raises(UsageError, match="found that of another delivery or other settings"):
        inspect_model(delivery, with_(asked, resume=True))
