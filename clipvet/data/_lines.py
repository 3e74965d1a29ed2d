"""Rows of csv, tsv and JSON-lines files with the bytes that they take up."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from clipvet.data._reading import UnfitError, json_object
from clipvet.errors import UnreadableError

__all__ = ["Layout", "Record", "cut", "header", "read_layout", "records"]

_SEPARATORS = "\t,;|"
_LINE = 1 << 20  # bytes; a longer one belongs to no list of images
_LOOK = 20  # JSON lines whose fields are gathered
_BOM = b"\xef\xbb\xbf"

Record = tuple[bytes, Mapping[str, object] | None]
"""A row as it stands, and its fields; None where it has too few, too many, or cannot be parsed."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a file's rows are parsed: ``separator`` empty for JSON lines, ``start`` of the first row in bytes."""

    separator: str
    names: tuple[str, ...]
    start: int


class _Lines(Iterator[str]):
    """Lines of a stretch of a file; what is not UTF-8 is marked by surrogates, so that it costs its row and not the file."""

    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        file.seek(start)
        self._file, self._left, self._raw = file, stop - start, b""

    def __next__(self) -> str:
        line = self._file.readline(min(self._left, _LINE + 1))
        if not line:
            raise StopIteration
        if len(line) > _LINE:
            raise UnreadableError(
                f"{self._file.name}: expected lines of at most {_LINE:,} bytes, found a longer one; name a text file"
            )
        self._left -= len(line)
        self._raw += line
        return line.decode("utf-8", "surrogateescape")

    def take(self) -> bytes:
        """Return the bytes of the lines since the last call."""
        raw, self._raw = self._raw, b""
        return raw


def read_layout(path: Path) -> Layout:
    """Look at the beginning of a file: the header line, or the fields of the first JSON lines.

    Raises:
        UnreadableError: it cannot be opened, or does not begin as such a file.
    """
    size = _size(path)
    with _open(path) as file:
        start = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
        lines = _Lines(file, start, size)
        if path.suffix.lower() == ".jsonl":
            fields = [set(_object(line) or ()) for line in islice(lines, _LOOK)]
            return Layout(separator="", names=tuple(sorted(set().union(*fields))), start=start)
        first = next(lines, "")
        separator = max(_SEPARATORS, key=lambda one: len(_split(path, [first], one)))
        names = tuple(name.strip() for name in _split(path, [first], separator))
        return Layout(separator=separator, names=names, start=start + len(lines.take()))


def _split(path: Path, lines: list[str], separator: str) -> list[str]:
    try:
        return next(csv.reader(lines, delimiter=separator), [])
    except csv.Error as error:
        raise UnreadableError(f"{path}: expected a header line with the columns' names, it is no csv ({error}); mend it") from error


def header(path: Path, layout: Layout) -> bytes:
    """Return the bytes before the first row."""
    with _open(path) as file:
        return file.read(layout.start)


def cut(path: Path, layout: Layout, rows: int) -> list[tuple[int, int, int]]:
    """Cut a file into stretches of ``rows`` rows: first byte, the byte behind, and the number of the first row.

    Raises:
        UnreadableError: the file cannot be parsed to its end.
    """
    firsts = []
    stop = _size(path)
    place = layout.start
    for row, (raw, _) in enumerate(records(path, layout, layout.start, stop)):
        if row % rows == 0:
            firsts.append((place, row))
        place += len(raw)
    stops = [start for start, _ in firsts[1:]] + [stop]
    return [
        (start, end, row) for (start, row), end in zip(firsts, stops, strict=False)
    ]  # one stop too many where there are no rows


def records(path: Path, layout: Layout, start: int, stop: int) -> Iterator[Record]:
    """Yield the rows of a stretch; an empty line belongs to the row behind it.

    Raises:
        UnreadableError: the file is not there, or cannot be parsed.
    """
    with _open(path) as file:
        lines = _Lines(file, start, stop)
        try:
            yield from _csv(lines, layout) if layout.separator else _json(lines)
        except csv.Error as error:
            raise UnreadableError(
                f"{path}: expected rows of csv before byte {file.tell():,}, found none ({error}); mend it"
            ) from error


def _csv(lines: _Lines, layout: Layout) -> Iterator[Record]:
    for fields in csv.reader(lines, delimiter=layout.separator):
        if fields:
            yield lines.take(), dict(zip(layout.names, fields, strict=True)) if len(fields) == len(layout.names) else None


def _json(lines: _Lines) -> Iterator[Record]:
    for line in lines:
        if line.strip():
            yield lines.take(), _object(line)


def _object(line: str) -> Mapping[str, object] | None:
    try:
        return json_object(line)
    except UnfitError:
        return None


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UnreadableError(f"{path}: expected a list of images, could not open it ({error.strerror}); check the path") from error


def _size(path: Path) -> int:
    with _open(path) as file:
        return file.seek(0, 2)
