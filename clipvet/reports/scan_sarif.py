"""The scan as SARIF 2.1.0: one result for the whole, one for each suspicious group, and none for a single pair.

Code scanning shows a few thousand results at most, and a person reads a handful: which pairs to look at is the gallery's matter.
"""

from __future__ import annotations

from clipvet.reports import scan_view
from clipvet.reports.sarif import invocation, log_of, run_of, verdict_finding
from clipvet.reports.text import shorten, visible
from clipvet.types import Finding, ScanReport, Severity, SuspectGroup

__all__ = ["to_sarif"]

_CAPTION = 120  # columns


def to_sarif(report: ScanReport) -> str:
    """Return a SARIF 2.1.0 log with one run; what ``executionSuccessful`` says is that of an inspection's log."""
    groups = [_finding(group) for group in report.groups]
    lines = [report.summary, scan_view.MEANING[report.verdict], *scan_view.tried(report), scan_view.cutoff(report)]
    verdict = verdict_finding(report.verdict, " ".join(lines), scan_view.next_steps(report), groups)
    counts = report.counts
    run = {
        **run_of("scan", (report.source.paths or (".",))[0], [verdict, *groups]),
        "invocations": [invocation(report, report.skipped, [*report.warnings, *_unread(report)], scan_view.EXIT_MEANING)],
        "properties": {
            "verdict": report.verdict.value,
            "scorer": visible(report.scorer),
            "pairs": counts.pairs,
            "scored": counts.scored,
            "flagged": counts.flagged,
        },
    }
    return log_of(run)


def _finding(group: SuspectGroup) -> Finding:
    """Return a group as a finding. Its number stays out of the title, which tells the same group in the next scan."""
    return Finding(
        check="suspicious-group",
        severity=Severity.MEDIUM,
        title=f"Suspicious group: {shorten(group.caption, _CAPTION)}",
        message=" ".join(scan_view.group_lines(group)),
        next_step=f"Look at group {group.number} in the gallery (gallery.html) before its pairs are dropped.",
        atlas=scan_view.ATLAS,
        owasp=scan_view.OWASP,
    )


def _unread(report: ScanReport) -> list[str]:
    return [f"Not read: {kind}: {count:,}" for kind, count, _ in scan_view.unread(report)]
