"""From the reports of several inspections to the rows of their summary, and the words that every rendering of it shares."""

from __future__ import annotations

import os.path
from collections import Counter
from pathlib import Path

from clipvet.reports.text import number
from clipvet.types import ManyReport, ManyRow, Report, Verdict

__all__ = ["against", "counts", "headline", "likelihood", "row_of", "shared_folder", "verdict_text"]

_ORDER = (Verdict.BACKDOORED, Verdict.SUSPICIOUS, Verdict.INCONCLUSIVE, Verdict.NO_EVIDENCE)
NOT_INSPECTED = "not inspected"


def row_of(report: Report, *, delivery: str, page: str, seconds: float) -> ManyRow:
    """Return the row of a report.

    Args:
        report: of one delivery.
        delivery: the path as given.
        page: place of the report's HTML page relative to the summary, empty where it was not written.
        seconds: the time that the delivery took.
    """
    check = report.checks[0] if report.checks else None
    return ManyRow(
        delivery=delivery,
        verdict=report.verdict,
        family=report.delivery.family,
        base=report.delivery.base,
        target=report.target,
        check=check.check if check else "",
        statistic=check.statistic if check else None,
        threshold=report.thresholds.get(check.check) if check else None,
        p_value=report.p_value,
        calibrated=report.calibrated,
        coverage=report.coverage,
        seconds=seconds,
        exit_code=report.exit_code,
        error=report.errors[0] if report.errors else "",
        page=page,
    )


def counts(report: ManyReport) -> dict[str, int]:
    """Return how many deliveries came to each verdict, the gravest first, and how many to none; what did not occur is left out."""
    found = Counter(row.verdict for row in report.rows)
    named = {verdict.value: found[verdict] for verdict in _ORDER} | {NOT_INSPECTED: found[None]}
    return {name: count for name, count in named.items() if count}


def headline(report: ManyReport) -> str:
    """Return the counts as a sentence."""
    parts = ", ".join(f"{count} {name}" for name, count in counts(report).items())
    return f"{len(report.rows)} deliver{'y' if len(report.rows) == 1 else 'ies'}: {parts or 'none'}."


def shared_folder(report: ManyReport) -> str:
    """Return the folder that all deliveries lie in, with a slash behind it; empty where there is none, or one delivery only."""
    if len(report.rows) < 2:
        return ""
    try:
        folder = os.path.commonpath([str(Path(row.delivery).parent) for row in report.rows])
    except ValueError:  # absolute paths among relative ones
        return ""
    return f"{folder}/" if folder not in (".", "", "/") else ""


def verdict_text(row: ManyRow) -> str:
    """Return the word of the verdict, or that there is none."""
    return NOT_INSPECTED if row.verdict is None else row.verdict.value


def against(row: ManyRow) -> str:
    """Return the statistic against its threshold: ``3.42 / 1.80``."""
    if row.verdict is None:
        return ""
    return number(row.statistic) if row.threshold is None else f"{number(row.statistic)} / {number(row.threshold)}"


def likelihood(row: ManyRow) -> str:
    """Return the p-value, and that there is no null that fits where there is none."""
    if row.verdict is None:
        return ""
    return number(row.p_value) if row.calibrated and row.p_value is not None else "uncalibrated"
