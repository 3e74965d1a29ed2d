"""Small inspections: a check of a few steps, deliveries of random prompts, and what two reports have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clipvet import api
from clipvet.api import InspectOptions
from clipvet.inspection import MarginResidual
from clipvet.inspection.base import OutOfBudget
from clipvet.models.base import ClipModel
from clipvet.models.families import new_prompt
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.saving import save_delivery
from clipvet.types import Report

NAMES = ("cat", "dog", "owl", "fox", "cow", "pig", "bee", "ant", "hen", "elk")


@dataclass(frozen=True, kw_only=True)
class Quick(MarginResidual):
    """The default check with a few steps."""

    screen_steps: int = 2
    refine_steps: int = 1
    batch: int = 4
    evaluation: int = 8
    least_classes: int = 10


def deliver(path: Path, model: ClipModel, names: tuple[str, ...] = NAMES, family: str = "coop") -> Path:
    classifier = PromptedClassifier(model, new_prompt(family, model, names, seed=2), names).freeze()
    save_delivery(path, classifier)
    return path


def with_(options: InspectOptions, **changed: Any) -> InspectOptions:
    return dataclasses.replace(options, **changed)


def measured(report: Report) -> list[tuple[str, float, Mapping[str, float]]]:
    return [(row.target, row.statistic, row.values) for check in report.checks for row in check.evidence]


def same_numbers(one: Report, other: Report) -> bool:
    """Whether two reports say the same, but for the time."""
    facts = [
        (r.verdict, r.summary, r.p_value, r.coverage, r.thresholds, r.checks[0].statistic, r.checks[0].control)
        for r in (one, other)
    ]
    return facts[0] == facts[1] and measured(one) == measured(other)


def ticking(monkeypatch: pytest.MonkeyPatch, groups: int) -> None:
    """Let time stand still for some class groups, and be over after them."""
    left = iter(range(groups))

    def clock(options: InspectOptions, began: float) -> Callable[[], None]:
        def tick() -> None:
            if next(left, None) is None:
                raise OutOfBudget(f"the budget of {options.budget:.0f} s was used up")

        return tick

    monkeypatch.setattr(api, "_clock", clock)
