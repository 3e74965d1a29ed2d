"""``clipvet bench``: what was measured, beside what was reported."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

import clipvet
from clipvet.errors import UnreadableError, UsageError

__all__ = ["EPILOG", "Row", "Table", "bench", "cell", "read_tables"]

EPILOG = """Example:

clipvet bench inspect"""

RESULTS = Path(clipvet.__file__).parents[1] / "benchmarks" / "results"


class Topic(enum.StrEnum):
    """The question whose tables are shown; a results file belongs to the one that it names."""

    INSPECT = "inspect"
    SCAN = "scan"
    REPAIR = "repair"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number: what was measured, its interval, and what the source reported, where there is one."""

    what: str
    measured: float | str | None
    interval: tuple[float, float] | None
    reported: float | str | None
    unit: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """One results file."""

    name: str
    topic: str
    title: str
    command: str
    machine: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def read_tables(folder: Path, topic: str | None = None) -> list[Table]:
    """Read the results of a folder, by file name; none where the folder is missing or empty.

    A file that holds no ``rows`` is raw data beside a table and is passed over.

    Raises:
        UnreadableError: a file is not JSON, or a row is not as :class:`Row` has it.
    """
    tables = []
    for path in sorted(folder.glob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(document, dict) and "rows" in document:
                tables.append(_table(path.stem, document))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UnreadableError(f"{path}: expected a results file with rows of 'what' and 'measured', got {error!r}") from error
    return [table for table in tables if topic is None or table.topic == topic]


def _table(name: str, document: dict[str, Any]) -> Table:
    if isinstance(document.get("notes", []), str):
        raise TypeError("notes is one text: expected a list")
    return Table(
        name=name,
        topic=str(document.get("topic", "inspect")),
        title=str(document.get("title", name)),
        command=str(document.get("command", "")),
        machine=str(document.get("machine", "")),
        rows=tuple(_row(row) for row in document["rows"]),
        notes=tuple(map(str, document.get("notes", ()))),
    )


def _row(row: dict[str, Any]) -> Row:
    interval = row.get("interval")
    return Row(
        what=str(row["what"]),
        measured=row["measured"],
        interval=None if interval is None else (float(interval[0]), float(interval[1])),
        reported=row.get("reported"),
        unit=str(row.get("unit", "")),
        source=str(row.get("source", "")),
    )


def cell(value: float | str | None, unit: str, interval: tuple[float, float] | None = None) -> str:
    """Write a number with its interval and unit; a dash where there is none."""
    if value is None:
        return "–"
    parts = [_number(value)]
    if interval is not None:
        parts.append(f"[{_number(interval[0])}, {_number(interval[1])}]")
    return " ".join([*parts, unit]).strip()


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}" if isinstance(value, float) else str(value)


def bench(topic: Annotated[Topic, typer.Argument(help="The question whose tables are shown.", show_default=False)]) -> int:
    """Show the published tables beside what was measured here; reads benchmarks/results of a checkout."""
    from rich.console import Console
    from rich.table import Table as Grid

    tables = read_tables(RESULTS, topic.value)
    if not tables:
        raise UsageError(
            f"expected results in {RESULTS}, found none: run the scripts in benchmarks/ of a checkout of clipvet first"
        )
    console = Console(highlight=False)
    for table in tables:
        grid = Grid(title=f"{table.title} ({table.name}.json)", title_justify="left", caption=table.command, caption_justify="left")
        for heading in ("", "measured", "reported", "source"):
            grid.add_column(heading, overflow="fold")
        for line in _cells(table):
            grid.add_row(*line)
        console.print(grid)
        for note in table.notes:
            console.print(note, markup=False)
    return 0


def _cells(table: Table) -> Iterator[tuple[str, str, str, str]]:
    for row in table.rows:
        yield row.what, cell(row.measured, row.unit, row.interval), cell(row.reported, row.unit), row.source
