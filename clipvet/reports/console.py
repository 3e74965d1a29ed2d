"""The report on a terminal: the verdict first, readable at 80 columns and without colour."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from clipvet.reports import view
from clipvet.reports.taxonomy import entry
from clipvet.reports.text import bytes_text, duration, label, number, shorten, value_text, visible
from clipvet.types import CheckResult, Finding, Report, Severity, Verdict

__all__ = ["LINE", "STYLES", "list_item", "notes", "section", "to_console"]

STYLES = {
    Verdict.NO_EVIDENCE: "cyan",
    Verdict.INCONCLUSIVE: "magenta",
    Verdict.SUSPICIOUS: "yellow",
    Verdict.BACKDOORED: "red",
}
_SEVERITY_STYLES = {
    Severity.CRITICAL: "bold red",
    Severity.HIGH: "red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.INFO: "dim",
}
_TOP = 8  # targets in a table: the rest is in the other formats
_NUMBERS = ("margin", "baseline_margin", "asr")  # what 80 columns hold beside the statistic
_NAME = 20  # columns of a class name
_PATH = 60  # columns of a file's path
LINE = 300  # columns of a sentence that may quote a delivery


def to_console(report: Report) -> RenderableType:
    """Return a rich renderable of the report. Whatever a delivery controls is shown as text, never as markup."""
    return Group(*_parts(report))


def _parts(report: Report) -> Iterator[RenderableType]:
    yield _verdict(report)
    yield from section("What was tried", [list_item(line) for line in view.tried(report)])
    for check in report.checks:
        yield from _targets(report, check)
    yield from section("Findings", [part for finding in report.findings for part in _finding(finding)])
    yield from section("What to do next", [list_item(step, f"{place}.") for place, step in enumerate(view.next_steps(report), 1)])
    skipped = [f"{shorten(item.what, LINE)}: {shorten(item.why, LINE)}" for item in view.skipped(report)]
    yield from section("Skipped", [list_item(line) for line in skipped])
    yield from section("Errors", [list_item(shorten(error, LINE)) for error in report.errors])
    yield from _files(report)
    yield from section("", [_foot(report)])


def _verdict(report: Report) -> Panel:
    style = STYLES[report.verdict]
    words = Text(f"VERDICT: {report.verdict.value.upper()}", style=f"bold {style}")
    if report.target is not None:
        words.append(f"  target: {shorten(report.target, _NAME * 2)}", style="bold")
    body = Text("\n").join(
        [words, Text(visible(report.summary)), Text(view.MEANING[report.verdict], style="italic"), Text(view.certainty(report))]
    )
    return Panel(body, title=Text(f"clipvet inspect {shorten(report.delivery.path, 48)}"), border_style=style, padding=(0, 1))


def section(title: str, lines: list[RenderableType]) -> Iterator[RenderableType]:
    """Yield a heading and the lines under it, or nothing where there is nothing to say."""
    if lines:
        yield Text(f"\n{title}" if title else "", style="bold")
        yield Padding(Group(*lines), (0, 0, 0, 2))


def list_item(text: str, mark: str = "-") -> Table:
    """Return a list item whose further lines stand under its first."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column()
    grid.add_column(overflow="fold")
    grid.add_row(mark, Text(text))
    return grid


def _targets(report: Report, check: CheckResult) -> Iterator[RenderableType]:
    rows = view.strongest(check.targets)
    if not rows:
        return
    title = f"Targets, most suspicious first ({visible(check.check)})"
    if all(math.isnan(row.statistic) for row in rows):
        yield from section(title, [Text(f"Not measured for any of {len(rows)} targets."), *notes(_control_note(check))])
        return
    null = view.null_values(report, check)
    names = [name for name in _NUMBERS if any(name in row.values for row in rows)]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("target", no_wrap=True, overflow="ellipsis", min_width=_NAME + 2)
    table.add_column("trigger", no_wrap=True, overflow="ellipsis")
    for heading in ("statistic", *(_heading(name) for name in names)):
        table.add_column(heading, justify="right", no_wrap=True)
    if null:
        table.add_column("null", justify="right", no_wrap=True)
    for row in rows[:_TOP]:
        mark = "» " if view.above(report, check, row) else "  "
        cells = [number(row.statistic), *(value_text(name, row.values.get(name)) for name in names)]
        cells += [view.null_position(row.statistic, null)] if null else []
        style = "bold" if mark.strip() else ""
        table.add_row(Text(mark + shorten(row.target, _NAME)), Text(visible(row.trigger_kind)), *map(Text, cells), style=style)
    hidden = len(rows) - _TOP
    more = f"{hidden} more in the JSON and HTML reports." if hidden > 0 else ""
    yield from section(title, [table, *notes(more, _threshold_note(report, check), _control_note(check))])


def notes(*texts: str) -> list[RenderableType]:
    """Return what is said below a table, without the empty ones."""
    return [Text(text, style="dim") for text in texts if text]


def _heading(name: str) -> str:
    return {"baseline_margin": "by hand*", "asr": "ASR"}.get(name, label(name))


def _threshold_note(report: Report, check: CheckResult) -> str:
    parts = []
    if check.check in report.thresholds:
        parts.append(f"» at or above the threshold of {number(report.thresholds[check.check])}")
    if any("baseline_margin" in row.values for row in check.evidence):
        parts.append("* margin of the hand-written prompt under the same trigger")
    if any("asr" in row.values for row in check.evidence):
        parts.append("ASR: that of the reconstructed trigger")
    if report.nulls:
        parts.append("null: reference deliveries whose highest statistic is lower")
    return "; ".join(parts)


def _control_note(check: CheckResult) -> str:
    parts = [f"{label(name)} {value_text(name, value)}" for name, value in check.control.items()]
    return f"Positive control (a backdoor planted here by clipvet): {', '.join(parts)}" if parts else ""


def _finding(finding: Finding) -> list[RenderableType]:
    tag = Text(f"[{view.SEVERITY_NAMES[finding.severity]}] ", style=_SEVERITY_STYLES[finding.severity])
    head = Text.assemble(tag, (visible(finding.title), "bold"), (f" ({visible(finding.check)})", "dim"))
    ids = ", ".join(entry(key).id for key in (*finding.atlas, *finding.owasp))
    step = f"Next: {visible(finding.next_step)}" if finding.next_step else ""
    lines = [(visible(finding.message), ""), (step, ""), (visible(ids), "dim")]
    return [head, *(Padding(Text(text, style=style), (0, 0, 0, 4)) for text, style in lines if text)]


def _files(report: Report) -> Iterator[RenderableType]:
    lines: list[RenderableType] = []
    for file in report.files:
        reader = f", read by {visible(file.reader)}" if file.reader else ""
        lines.append(Text(f"{shorten(file.path, _PATH)} ({bytes_text(file.size)}{reader})", overflow="fold"))
        lines.append(Text(f"  sha256 {visible(file.sha256)}", style="dim", overflow="fold"))
        if file.stubbed_globals:
            lines.append(Text(f"  named but not run: {shorten(', '.join(file.stubbed_globals), LINE)}", style="dim"))
    yield from section("Files", lines)


def _foot(report: Report) -> Text:
    delivery = report.delivery
    parts = [
        f"family {visible(delivery.family)}, base {visible(delivery.base)}, {len(delivery.class_names)} classes",
        f"coverage {report.coverage.done} of {report.coverage.asked}",
        duration(report.seconds),
    ]
    if report.exit_code is not None:
        parts.append(f"exit code {report.exit_code}: {view.EXIT_MEANING.get(report.exit_code, 'see the documentation')}")
    return Text("; ".join(parts), style="dim")
