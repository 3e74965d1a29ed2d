"""A comparison on a terminal: what the two are, then what changed, readable at 80 columns without colour."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clipvet.reports.console import LINE, list_item, section
from clipvet.reports.text import bytes_text, named, number, shorten, visible
from clipvet.types import Difference, DiffReport, DiffSide, TensorChange

__all__ = ["to_console"]

_TOP = 12  # rows of a table: the rest is in the JSON
_NAME, _TENSOR, _VALUE, _PATH = 30, 44, 70, 60  # columns


def to_console(report: DiffReport) -> RenderableType:
    """Return a rich renderable of the comparison. Names and values are shown as text, never as markup."""
    return Group(*_parts(report))


def _parts(report: DiffReport) -> Iterator[RenderableType]:
    yield from section("Old", _side(report.old))
    yield from section("New", _side(report.new))
    if not report.changed:
        yield from section("Nothing differs", [Text("Same bytes, same names, same texts beside them.")])
        return
    yield from section("Same bytes", [list_item(f"{shorten(a, LINE)} = {shorten(b, LINE)}") for a, b in report.identical])
    yield from section("Class names", [list_item(line) for line in _names(report)])
    yield from section("Parts", [_part_table(report)] if report.parts else [])
    yield from section("Tensors that differ", _cut([_tensor_table(report.tensors[:_TOP])], len(report.tensors)))
    yield from section("Text features, those that moved most first", _cut(_texts(report), len(report.texts)))
    yield from section("Beside the tensors", [list_item(_difference(item)) for item in report.metadata])
    yield from section("Not compared", [list_item(shorten(note, LINE)) for note in report.notes])


def _side(side: DiffSide) -> list[RenderableType]:
    facts = [f"family {visible(side.family) or 'unknown'}"]
    facts += [f"base {visible(side.base)}"] if side.base else []
    facts += [f"{len(side.class_names)} classes"] if side.class_names else ["class names unknown"]
    facts += [f"context length {side.context_length}"] if side.context_length is not None else []
    lines: list[RenderableType] = [Text(shorten(side.path, _PATH)), Text("; ".join(facts))]
    for file in side.files:
        lines.append(Text(f"{bytes_text(file.size)}, read by {visible(file.reader)}, sha256 {visible(file.sha256)}", style="dim"))
    return [*lines, *(list_item(shorten(note, LINE), "!") for note in side.notes)]


def _names(report: DiffReport) -> Iterator[str]:
    names = report.names
    for word, some in (("added", names.added), ("removed", names.removed)):
        if some:
            yield f"{word}: {_listed([named(name) for name in some])}"
    if names.renamed:
        yield f"renamed: {_listed([f'{named(old)} → {named(new)}' for old, new in names.renamed])}"
    if names.moved:
        yield f"reordered: {_listed([f'{named(name)} ({old} → {new})' for name, old, new in names.moved])}"


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _TOP} more" if len(items) > _TOP else ""
    return shorten(", ".join(items[:_TOP]), LINE) + more


def _cut(lines: list[RenderableType], total: int) -> list[RenderableType]:
    """Say how many rows a table leaves out; no rows, no table."""
    if not total:
        return []
    return [*lines, Text(f"{total - _TOP} more in the JSON report.", style="dim")] if total > _TOP else lines


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", overflow="fold")
    return table


def _part_table(report: DiffReport) -> Table:
    table = _table("part", "tensors", "differ", "relative L2", "largest")
    for part in report.parts:
        table.add_row(part.part, str(part.tensors), str(part.changed), _number(part.relative_l2), _number(part.largest))
    return table


def _number(value: float) -> str:
    return "–" if math.isnan(value) else number(value)


def _tensor_table(changes: Sequence[TensorChange]) -> Table:
    table = _table("tensor", "what", "relative L2", "largest")
    for change in changes:
        table.add_row(Text(shorten(change.name, _TENSOR)), _what(change), _number(change.relative_l2), _number(change.largest))
    return table


def _what(change: TensorChange) -> str:
    old, new = (f"{dtype} {shape}" for dtype, shape in _types(change))
    if change.change in ("added", "removed"):
        return f"{change.change}, {new if change.change == 'added' else old}"
    return change.change if change.change == "values" else f"{old} → {new}"


def _types(change: TensorChange) -> tuple[tuple[str, str], tuple[str, str]]:
    shapes = ("×".join(map(str, shape)) if shape else "scalar" for shape in (change.old_shape, change.new_shape))
    old, new = shapes
    return (change.old_dtype, old), (change.new_dtype, new)


def _texts(report: DiffReport) -> list[RenderableType]:
    table = _table("class", "cosine", "median")
    for move in report.texts[:_TOP]:
        name = f"{shorten(move.name, _NAME)} (was {shorten(move.was, _NAME)})" if move.was else shorten(move.name, _NAME)
        table.add_row(Text(name), f"{move.cosine:.4f}", f"{report.median:.4f}" if report.median is not None else "")
    return [table]


def _difference(item: Difference) -> str:
    old, new = ("nothing" if value is None else shorten(value, _VALUE) for value in (item.old, item.new))
    return f"{shorten(item.what, _NAME)}: {old} → {new}"
