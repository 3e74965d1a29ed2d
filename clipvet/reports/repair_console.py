"""A repair on a terminal: the outcome first, then what it cost, readable at 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from clipvet.reports import repair_view
from clipvet.reports.console import LINE, list_item, section
from clipvet.reports.text import bytes_text, duration, shorten, visible
from clipvet.types import RepairReport

__all__ = ["to_console"]

_PATH = 60  # columns of a file's path


def to_console(report: RepairReport) -> RenderableType:
    """Return a rich renderable of the report. Whatever a delivery controls is shown as text, never as markup."""
    return Group(*_parts(report))


def _parts(report: RepairReport) -> Iterator[RenderableType]:
    yield _outcome(report)
    yield from section("Before and after", [_table(report), Text(f"Measured on {visible(report.measured_on)}.", style="dim")])
    notes = [f"Tuned on {report.tuned_on}.", *report.notes, *(f"{item.what}: {item.why}" for item in report.skipped)]
    yield from section("How", [list_item(shorten(line, LINE)) for line in notes])
    yield from section("What to do next", [list_item(visible(step), f"{n}.") for n, step in enumerate(report.next_steps, 1)])
    written = [list_item(f"{shorten(f.path, _PATH)} ({bytes_text(f.size)})\nsha256 {f.sha256}") for f in report.written]
    yield from section("Files written", list(written))
    yield from section("", [_foot(report)])


def _outcome(report: RepairReport) -> Panel:
    style = "cyan" if report.succeeded else "red"
    head = Text(repair_view.headline(report).upper(), style=f"bold {style}")
    body = Text("\n").join([head, Text(visible(report.summary)), Text(repair_view.CAUTION, style="italic")])
    return Panel(body, title=Text(f"clipvet repair {shorten(report.delivery.path, 48)}"), border_style=style, padding=(0, 1))


def _table(report: RepairReport) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    what, *numbers = repair_view.HEADINGS
    table.add_column(what, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in repair_view.rows(report):
        table.add_row(*map(Text, row))
    return table


def _foot(report: RepairReport) -> Text:
    parts = [visible(report.method), duration(report.seconds)]
    if report.exit_code is not None:
        parts.append(f"exit code {report.exit_code}: {repair_view.EXIT_MEANING.get(report.exit_code, 'see the documentation')}")
    return Text("; ".join(parts), style="dim")
