"""Parquet with the images' bytes or their paths: img2dataset's output, Hugging Face's, and one's own."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from clipvet.data._names import shard_names
from clipvet.data._parquet import BYTES, IMAGE, NUMBER, TEXT, check, form, open_parquet, read_columns, row_keys, values, write_rows
from clipvet.data._places import image_path, image_root
from clipvet.data._reading import UnfitError, attempt, chosen, clean, identity, read_file, row_key, text, unique
from clipvet.data._writing import output
from clipvet.data.columns import Columns, Wanted, choose_columns
from clipvet.data.img2dataset import progress_notes
from clipvet.data.pairs import TABLE_CUT, Embeddings, Kept, Pair, PairSource, Unread
from clipvet.errors import UnreadableError

__all__ = ["TableShard", "open_tables"]

_ROWS = 64  # that are held at once: images are large
_LOOK = 20  # rows whose paths are tried


class _Row(NamedTuple):
    key: str
    image: bytes | None
    path: bytes | None
    caption: bytes | None
    uid: object
    status: bytes | None


@dataclass(frozen=True, kw_only=True)
class TableShard:
    """One parquet file.

    Attributes:
        name: of the shard.
        path: of the file.
        columns: which column is what.
        root: the folder that relative image paths start from.
        confined: whether paths may not lead out of it.
    """

    name: str
    path: Path
    columns: Columns
    root: Path
    confined: bool = False

    @property
    def identity(self) -> str:
        """Name, size and time of change of the table; images that it names by path are not looked at."""
        return identity(self.path)

    def pairs(self) -> Iterator[Pair | Unread]:
        """Yield a pair per row, or what the row lacks.

        Raises:
            UnreadableError: no row can be read: the file is not there, no parquet file, or lacks a column.
        """
        return unique(self._items())

    def embeddings(self) -> Embeddings | None:
        """Return None: it holds images."""
        return None

    def write_kept(self, keep: Container[str], folder: Path) -> Kept:
        """Write the table with the kept rows and the same schema; rows are told by their key."""
        rows = list(chosen(row_keys(self.path, self.columns.id), keep))
        with output(folder, self.path) as files:
            write_rows(self.path, files.part(f"{self.name}.parquet"), rows)
        return Kept(files=files.files, kept=sum(rows), dropped=len(rows) - sum(rows))

    def _items(self) -> Iterator[Pair | Unread]:
        read = 0
        try:
            for row in self._rows():
                yield attempt(row.key, self._pair, row)
                read += 1
        except UnreadableError as error:
            if not read:
                raise
            yield Unread(key=clean(self.path.name), kind=TABLE_CUT, why=str(error))

    def _rows(self) -> Iterator[_Row]:
        names = self.columns
        wanted = [names.image, names.caption, names.id, names.uid, names.status]
        row = 0
        for batch in read_columns(self.path, list(dict.fromkeys(filter(None, wanted))), _ROWS):
            _check(batch.schema, self.path, names)
            id_, uid, status = (_optional(batch, name) for name in (names.id, names.uid, names.status))
            images = _images(batch.column(names.image))
            captions = values(batch.column(names.caption))
            for (image, path), caption, key, wide, state in zip(images, captions, id_, uid, status, strict=True):
                yield _Row(row_key(row, key), image, path, caption, wide, state)
                row += 1

    def _pair(self, row: _Row) -> Pair:
        if self.columns.status is not None and row.status != b"success":
            raise UnfitError("download failed", clean(row.status))
        place = None
        image = row.image
        if image is None:
            place = image_path(self.root, row.path, confined=self.confined)
            image = read_file(place)
        uid = "" if row.uid is None else clean(row.uid)
        return Pair(key=row.key, image=image, caption=text(row.caption), uid=uid, path=place)


def _check(schema: pa.Schema, path: Path, columns: Columns) -> str:
    """Return what the column of the images holds."""
    check(schema, path, columns.caption, (TEXT, BYTES))
    for name in (columns.id, columns.uid):
        check(schema, path, name, (TEXT, BYTES, NUMBER))
    check(schema, path, columns.status, (TEXT, BYTES))
    return check(schema, path, columns.image, (BYTES, TEXT, IMAGE))


def _images(column: pa.Array) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Yield bytes and path of every image; Hugging Face's struct has both."""
    nothing = [None] * len(column)
    if pa.types.is_struct(column.type):
        parts = dict(zip((field.name for field in column.type), column.flatten(), strict=True))
        contents, paths = (values(parts[name]) if name in parts else nothing for name in ("bytes", "path"))
    else:
        is_path = form(column.type) == TEXT
        contents, paths = (nothing, values(column)) if is_path else (values(column), nothing)
    return zip(contents, paths, strict=True)


def _optional(batch: pa.RecordBatch, name: str | None) -> list[Any]:
    return [None] * len(batch) if name is None else values(batch.column(name))


def open_tables(paths: Sequence[Path], wanted: Wanted) -> PairSource:
    """Open parquet files; the first one's columns hold for all.

    Raises:
        UsageError: there is no column for a role.
        UnreadableError: the first file is none, or a column holds what cannot be used.
    """
    with open_parquet(paths[0]) as file:
        columns, notes = choose_columns(file.schema_arrow.names, wanted, str(paths[0]))
        holds = _check(file.schema_arrow, paths[0], columns)
    names = shard_names([(path.stem, path.parent.name) for path in paths])
    shards = []
    for name, path in zip(names, paths, strict=True):
        root, note = _root(path, columns.image) if holds == TEXT else (path.parent, "")
        notes += [note] if note else []
        confined = holds == IMAGE or path.stem == "metadata"  # the layouts of Hugging Face keep images beside their table
        shards.append(TableShard(name=name, path=path, columns=columns, root=root, confined=confined))
    kind = "img2dataset (parquet)" if columns.status else "parquet"
    return PairSource(
        kind=kind,
        shards=tuple(shards),
        mapping=columns.mapping(),
        notes=(*notes, *progress_notes(paths, recorded=columns.status is not None)),
    )


def _root(path: Path, column: str) -> tuple[Path, str]:
    try:
        first = next(read_columns(path, [column], _LOOK), None)
    except UnreadableError:  # told when the shard's turn comes
        return path.parent, ""
    return image_root(path, [clean(value) for value in values(first.column(column)) if value] if first is not None else [])
