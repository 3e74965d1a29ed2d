"""Read and write parquet row by row, whatever a stranger's file holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clipvet.data._reading import row_key
from clipvet.errors import UnreadableError

__all__ = [
    "BYTES",
    "IMAGE",
    "NOTHING",
    "NUMBER",
    "TEXT",
    "check",
    "form",
    "open_parquet",
    "read_columns",
    "row_keys",
    "values",
    "write_rows",
]

_DAMAGED = (pa.ArrowException, OSError, ValueError, OverflowError)  # what pyarrow raises for a file that is not as it says
TEXT, BYTES, IMAGE, NUMBER, NOTHING = "text", "bytes", "images", "numbers", "null"  # what a column may hold
_ROWS = 1000  # per row group that is written, and per piece that is held while copying
_CODECS = {"UNCOMPRESSED": "none", "GZIP": "gzip", "BROTLI": "brotli", "ZSTD": "zstd", "LZ4": "lz4"}


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a table; pages are read as they are needed.

    Raises:
        UnreadableError: it is not there, or no parquet file.
    """
    try:
        file = pq.ParquetFile(path, buffer_size=1 << 20)
        _ = file.schema_arrow  # a file may also lie about its types
    except _DAMAGED as error:
        raise UnreadableError(f"{path}: expected a parquet file, could not open it ({_short(error)}); fetch it again") from error
    return file


def read_columns(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield pieces of at most ``rows`` rows with some columns.

    Raises:
        UnreadableError: a column is missing, or the file is no parquet file, or it is damaged further on.
    """
    with open_parquet(path) as file:
        have = file.schema_arrow.names
        missing = [name for name in columns if have.count(name) != 1]
        if missing:
            raise UnreadableError(f"{path}: expected one column {missing[0]}, found {', '.join(have[:20])}; scan it on its own")
        yield from _pieces(file, path, rows, list(columns))


def _pieces(file: pq.ParquetFile, path: Path, rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    done = 0
    try:
        for batch in file.iter_batches(batch_size=rows, columns=columns):
            done += len(batch)
            yield batch
    except _DAMAGED as error:
        total = file.metadata.num_rows
        raise UnreadableError(
            f"{path}: expected {total:,} rows, {total - done:,} of them cannot be read ({_short(error)}); fetch it again"
        ) from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def form(kind: pa.DataType) -> str:
    """Return what a column holds: one of the words above, or the type's own name."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if any(is_text(kind) for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        return TEXT
    if any(holds(kind) for holds in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)):
        return BYTES
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return NUMBER
    parts = {field.name: form(field.type) for field in kind} if pa.types.is_struct(kind) else {}
    found = {(name, parts[name]) for name in ("bytes", "path") if name in parts}
    if found and found <= {("bytes", BYTES), ("bytes", NOTHING), ("path", TEXT), ("path", NOTHING)}:  # Hugging Face's
        return IMAGE
    return str(kind)


def check(schema: pa.Schema, path: Path, column: str | None, forms: Sequence[str]) -> str:
    """Return what a column holds; for no column, nothing.

    Raises:
        UnreadableError: that is none of ``forms``.
    """
    found = NOTHING if column is None else form(schema.field(column).type)
    if found not in (*forms, NOTHING):
        raise UnreadableError(
            f"{path}: expected {' or '.join(forms)} in the column {column}, found {found[:100]}; name another column"
        )
    return found


def values(column: pa.Array) -> list[Any]:
    """Return a column's values; text as bytes, since it is not always the UTF-8 that it should be."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if form(column.type) == TEXT:
        column = column.cast(pa.large_binary())
    found: list[Any] = column.to_pylist()
    return found


def row_keys(path: Path, column: str | None) -> Iterator[str]:
    """Yield the key of every row: a column's value, or the number of the row.

    Raises:
        UnreadableError: there is no such column, or the file cannot be read.
    """
    rows = count()
    for batch in read_columns(path, [column or _light_column(path)], _ROWS):
        check(batch.schema, path, column, (TEXT, BYTES, NUMBER))
        for value in values(batch.column(0)) if column else [None] * len(batch):
            yield row_key(next(rows), value)


def _light_column(path: Path) -> str:
    """Return a column to count rows by: the number in the footer may be anything."""
    with open_parquet(path) as file:
        schema = file.schema_arrow
    if not schema.names:
        raise UnreadableError(f"{path}: expected columns, found none; fetch it again")
    light = [field.name for field in schema if form(field.type) in (TEXT, NUMBER)]
    return str([*light, *schema.names][0])


def write_rows(source: Path, target: Path, keep: Iterable[bool]) -> None:
    """Write the rows for which ``keep`` says so, with the same schema and compression.

    Raises:
        UnreadableError: the source is damaged.
    """
    keep = iter(keep)
    with open_parquet(source) as file:
        known = file.metadata.num_row_groups and file.metadata.num_columns
        codec = file.metadata.row_group(0).column(0).compression if known else ""
        with pq.ParquetWriter(target, file.schema_arrow, compression=_CODECS.get(codec, "snappy")) as writer:
            for batch in _pieces(file, source, _ROWS):
                chosen = batch.filter(pa.array(islice(keep, len(batch)), type=pa.bool_(), size=len(batch)))
                if len(chosen):
                    writer.write_batch(chosen)
