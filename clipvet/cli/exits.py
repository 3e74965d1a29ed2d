"""The exit code: the same rule for every output format."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from clipvet.types import Report, ScanReport, Verdict

__all__ = ["FailOn", "exit_code", "reaches", "scan_exit_code"]

CLEAR, FOUND, UNREAD, UNSURE = 0, 1, 2, 3


class FailOn(enum.StrEnum):
    """The lowest verdict that ends in exit code 1."""

    SUSPICIOUS = "suspicious"
    BACKDOORED = "backdoored"


_LEVELS: dict[Verdict, frozenset[FailOn]] = {
    Verdict.NO_EVIDENCE: frozenset(),
    Verdict.INCONCLUSIVE: frozenset(),
    Verdict.SUSPICIOUS: frozenset({FailOn.SUSPICIOUS}),
    Verdict.BACKDOORED: frozenset(FailOn),
}


def reaches(verdict: Verdict, fail_on: FailOn) -> bool:
    """Return whether a verdict is at or above the level."""
    return fail_on in _LEVELS[verdict]


def exit_code(reports: Sequence[Report], *, failures: int, fail_on: FailOn, min_coverage: float) -> int:
    """Weigh all reports of one run; a finding is never hidden by an error elsewhere.

    Args:
        reports: those that could be made.
        failures: number of deliveries without a report.
        fail_on: the lowest verdict that counts as found.
        min_coverage: share of what was asked that must have been done, in [0, 1].
    """
    if any(reaches(report.verdict, fail_on) for report in reports):
        return FOUND
    if failures or any(report.errors for report in reports):
        return UNREAD
    if any(report.verdict is Verdict.INCONCLUSIVE or report.coverage.share < min_coverage for report in reports):
        return UNSURE
    return CLEAR


def scan_exit_code(report: ScanReport, *, min_coverage: float) -> int:
    """Weigh a scan: what it found comes before what it could not read.

    Args:
        report: of the scan.
        min_coverage: share of the pairs that must have been scored, in [0, 1].
    """
    if reaches(report.verdict, FailOn.SUSPICIOUS):
        return FOUND
    if report.errors:
        return UNREAD
    return UNSURE if report.verdict is Verdict.INCONCLUSIVE or report.coverage.share < min_coverage else CLEAR
