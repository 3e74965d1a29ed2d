"""The summary of several inspections on a terminal: a row each, readable at 80 columns without colour."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clipvet.reports import many_view, view
from clipvet.reports.console import LINE, STYLES, list_item, section
from clipvet.reports.text import duration, shorten, visible
from clipvet.types import ManyReport, ManyRow

__all__ = ["to_console"]

_PATH, _TARGET = 26, 14  # columns
_PASSED = 8  # entries that are named: the rest is in the other formats


def to_console(report: ManyReport) -> RenderableType:
    """Return a rich renderable of the summary. Names are shown as text, never as markup."""
    return Group(*_parts(report))


def _parts(report: ManyReport) -> Iterator[RenderableType]:
    yield from section("Summary", [Text(many_view.headline(report)), Text(), _table(report)])
    errors = [f"{shorten(row.delivery, LINE)}: {_error(row)}" for row in report.rows if row.error]
    yield from section("Errors", [list_item(line) for line in errors])
    passed = [f"{shorten(item.what, LINE)}: {shorten(item.why, LINE)}" for item in report.passed_over]
    more = [f"{len(passed) - _PASSED} more in the JSON and HTML summaries"] if len(passed) > _PASSED else []
    yield from section("Passed over", [list_item(line) for line in [*passed[:_PASSED], *more]])
    yield from section("", [Text(_foot(report), style="dim")])


def _error(row: ManyRow) -> str:
    """The sentence, without the path that it may begin with."""
    return shorten(row.error.removeprefix(f"{row.delivery}: "), LINE)


def _table(report: ManyReport) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("delivery", overflow="fold", max_width=_PATH)
    for heading in ("verdict", "target"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for heading in ("statistic", "p", "time"):
        table.add_column(heading, justify="right")
    shared = many_view.shared_folder(report)
    for row in report.rows:
        style = STYLES[row.verdict] if row.verdict is not None else "red"
        name = shorten(row.delivery.removeprefix(shared), 2 * _PATH)
        what = Text.assemble(name, (f"\n{visible(row.family)} on {visible(row.base or 'no base')}", "dim"))
        table.add_row(
            what if row.verdict is not None else Text(name),
            Text(many_view.verdict_text(row), style=style),
            Text(shorten(row.target, _TARGET) if row.target is not None else ""),
            Text(many_view.against(row)),
            Text(many_view.likelihood(row)),
            Text(duration(row.seconds)),
        )
    return table


def _foot(report: ManyReport) -> str:
    shared = many_view.shared_folder(report)
    parts = [f"all in {shorten(shared, LINE)}"] if shared else []
    parts += ["statistic / threshold", f"{report.coverage.done} of {report.coverage.asked} inspected", duration(report.seconds)]
    if report.exit_code is not None:
        parts.append(f"exit code {report.exit_code}: {view.EXIT_MEANING.get(report.exit_code, 'see the documentation')}")
    return "; ".join(parts)
