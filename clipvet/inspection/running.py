"""Run a check and its controls, as far as a budget allows, and estimate how long that takes."""

from __future__ import annotations

import dataclasses
import time

from torch import Tensor

from clipvet.inspection.base import ModelCheck, OutOfBudget, Run, Subject
from clipvet.inspection.control import run_controls
from clipvet.inspection.summary import Opened, Outcome
from clipvet.types import CheckResult, Coverage

__all__ = ["search_and_control", "seconds_per_pass"]


def search_and_control(check: ModelCheck, opened: Opened, probes: Tensor, run: Run, *, flag: float) -> Outcome:
    """Run the check and its controls, or as much of them as the budget allows; ``flag`` is the statistic that counts as found."""
    empty = CheckResult(check=check.name, statistic=float("nan"), settings=dataclasses.asdict(check))
    try:
        result = check.run(opened.subject, probes, run)
    except OutOfBudget as error:
        return Outcome(result=empty, controls=None, unfinished=str(error), coverage=Coverage(done=0, asked=2))
    try:
        control = run_controls(check, opened.subject, result, probes, run, flag=flag)
    except OutOfBudget as error:
        return Outcome(result=result, controls=None, unfinished=str(error), coverage=Coverage(done=1, asked=2))
    result = dataclasses.replace(result, control=control)
    return Outcome(result=result, controls=control["recovered"], unfinished="", coverage=Coverage(done=2, asked=2))


def seconds_per_pass(check: ModelCheck, subject: Subject, probes: Tensor) -> float:
    """Time one forward and backward pass of a few images, after a first one that is not counted."""
    images = probes[: min(16, len(probes))]
    wanted = check.control_search(subject, probes).mixed_precision
    for _ in range(2):
        began = time.monotonic()
        pixels = images.clone().requires_grad_(True)
        with subject.mixed_precision(wanted=wanted):
            subject.classifier(pixels).sum().backward()
    return (time.monotonic() - began) / len(images)
