"""The scan on a terminal: the verdict first, then the groups and the worst pairs, readable at 80 columns without colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from clipvet.reports import scan_view
from clipvet.reports.console import LINE, STYLES, list_item, notes, section
from clipvet.reports.text import duration, number, shorten, visible
from clipvet.types import ScanReport, SuspectGroup

__all__ = ["to_console"]

_TOP = 8  # groups, pairs and files shown: the rest is in the other formats
_KEY, _CAPTION, _PATH = 18, 38, 72  # columns


def to_console(report: ScanReport) -> RenderableType:
    """Return a rich renderable of the report. Captions and keys are shown as text, never as markup."""
    return Group(*_parts(report))


def _parts(report: ScanReport) -> Iterator[RenderableType]:
    yield _verdict(report)
    yield from section("Warnings", [list_item(shorten(warning, LINE), "!") for warning in report.warnings])
    yield from section("What was tried", [list_item(line) for line in [*scan_view.tried(report), scan_view.cutoff(report)]])
    yield from _groups(report)
    yield from _worst(report)
    yield from section(
        "What to do next", [list_item(step, f"{place}.") for place, step in enumerate(scan_view.next_steps(report), 1)]
    )
    yield from section("Not read", [list_item(_unread(*kind)) for kind in scan_view.unread(report)])
    skipped = [f"{shorten(item.what, LINE)}: {shorten(item.why, LINE)}" for item in report.skipped]
    yield from section("Skipped", [list_item(line) for line in skipped])
    yield from section("Errors", [list_item(shorten(error, LINE)) for error in report.errors])
    yield from section("Files written", [*(Text(shorten(path, _PATH)) for path in report.written[:_TOP]), *_more(report.written)])
    yield from section("", [_foot(report)])


def _verdict(report: ScanReport) -> Panel:
    style = STYLES[report.verdict]
    head = Text(f"VERDICT: {report.verdict.value.upper()}", style=f"bold {style}")
    body = Text("\n").join([head, Text(visible(report.summary)), Text(scan_view.MEANING[report.verdict], style="italic")])
    title = Text(f"clipvet scan {shorten(scan_view.source_name(report), 48)}")
    return Panel(body, title=title, border_style=style, padding=(0, 1))


def _groups(report: ScanReport) -> Iterator[RenderableType]:
    yield from section("Suspicious groups", [*(_group(group) for group in report.groups[:_TOP]), *_more(report.groups)])


def _group(group: SuspectGroup) -> RenderableType:
    lines = [shorten(group.caption, _PATH), *(shorten(line, LINE) for line in scan_view.group_lines(group))]
    return list_item("\n".join(lines), f"{group.number}.")


def _worst(report: ScanReport) -> Iterator[RenderableType]:
    pairs = scan_view.worst(report)
    if not pairs:
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("rank", "score", "group"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("key", no_wrap=True, overflow="ellipsis")
    table.add_column("caption", no_wrap=True, overflow="ellipsis")
    for pair in pairs[:_TOP]:
        group = "" if pair.group is None else str(pair.group)
        names = (shorten(pair.key, _KEY), shorten(pair.caption, _CAPTION))
        table.add_row(*map(Text, (f"{pair.rank}", number(pair.score), group, *names)))
    yield from section(f"Worst pairs by {visible(report.scorer)}", [table, *_more(pairs)])


def _more(items: Sequence[object]) -> list[RenderableType]:
    return notes(f"{len(items) - _TOP:,} more in the JSON and HTML reports." if len(items) > _TOP else "")


def _unread(kind: str, count: int, examples: tuple[str, ...]) -> str:
    named = f" ({shorten('; '.join(examples), LINE)})" if examples else ""
    return f"{visible(kind)}: {count:,}{named}"


def _foot(report: ScanReport) -> Text:
    parts = [visible(report.source.kind), f"coverage {report.coverage.done:,} of {report.coverage.asked:,}"]
    if report.counts.not_scored:
        parts.append(f"{report.counts.not_scored:,} read but not scored")
    parts.append(duration(report.seconds))
    if report.exit_code is not None:
        parts.append(f"exit code {report.exit_code}: {scan_view.EXIT_MEANING.get(report.exit_code, 'see the documentation')}")
    return Text("; ".join(parts), style="dim")
