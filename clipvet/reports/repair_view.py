"""What every rendering of a repair's report says in the same words."""

from __future__ import annotations

import math

from clipvet.reports.text import number, visible
from clipvet.types import BeforeAfter, RepairReport

__all__ = ["CAUTION", "EXIT_MEANING", "HEADINGS", "headline", "rows", "share"]

CAUTION = (
    "Nobody but the attacker knows the planted trigger: ASR and TA are those of the reconstructed triggers, found by an inspection "
    "before the repair. A planted trigger that differs from them may still work."
)
EXIT_MEANING = {
    0: "repaired and measured",
    1: "the reconstructed trigger still works",
    2: "usage error, or something could not be read or written, or there was nothing to repair",
    130: "interrupted",
}
HEADINGS = ("what", "before", "after", "images")


def headline(report: RepairReport) -> str:
    """Return the outcome in two or three words."""
    return "Repaired" if report.succeeded else "Not repaired"


def share(value: float, interval: tuple[float, float]) -> str:
    """Return a share in per cent with its 95 % interval."""
    if math.isnan(value):
        return "not measured"
    return f"{value:.1%} [{interval[0]:.1%}, {interval[1]:.1%}]"


def rows(report: RepairReport) -> list[tuple[str, str, str, str]]:
    """Return the table under :data:`HEADINGS`: CA, then ASR and TA of each trigger."""
    found = [_row("CA (accuracy)", report.ca)]
    for trigger in report.triggers:
        statistic = f", statistic {number(trigger.statistic)}" if math.isfinite(trigger.statistic) else ""
        name = f"{visible(trigger.kind)} trigger to '{visible(trigger.target)}'"
        found += [_row(f"ASR, {name}{statistic}", trigger.asr), _row("TA with it", trigger.ta)]
    return found


def _row(what: str, measured: BeforeAfter) -> tuple[str, str, str, str]:
    before = share(measured.before, measured.before_interval)
    return what, before, share(measured.after, measured.after_interval), f"{measured.images:,}"
