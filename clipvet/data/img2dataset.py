"""What img2dataset writes beside its shards: a table of all downloads, and a file of statistics when a shard is done."""

from __future__ import annotations

import shutil
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

from clipvet.data._parquet import open_parquet, read_columns, row_keys, values, write_rows
from clipvet.data._reading import clean
from clipvet.data._writing import Output
from clipvet.data.columns import listed
from clipvet.data.pairs import Pair, Unread
from clipvet.errors import UnreadableError

__all__ = ["join", "lost_notes", "progress_notes", "records_beside", "write_record"]

_ROWS = 10_000


def records_beside(paths: Sequence[Path]) -> list[Path | None]:
    """Return for each shard the table of downloads beside it; the first one found shows whether they are such tables."""
    beside = [path.with_suffix(".parquet") for path in paths]
    found: list[Path | None] = [table if table.is_file() else None for table in beside]
    first = next((table for table in found if table is not None), None)
    return found if first is not None and _is_record(first) else [None] * len(paths)


def _is_record(path: Path) -> bool:
    try:
        with open_parquet(path) as file:
            return {"key", "status"} <= set(file.schema_arrow.names)
    except UnreadableError:  # beside a tar file it can be little else; what it lacks is told when the shard's turn comes
        return True


def progress_notes(paths: Sequence[Path], *, recorded: bool) -> Iterator[str]:
    """Note the shards whose download was not finished; ``recorded`` where tables show that img2dataset wrote them."""
    done = [_stats(path).is_file() for path in paths]
    open_ = [path.name for path, is_done in zip(paths, done, strict=True) if not is_done]
    if open_ and (recorded or any(done)):
        yield f"{len(open_)} of {len(paths)} shards have no _stats.json, so their download is unfinished: {listed(open_, 5)}."


def lost_notes(paths: Sequence[Path]) -> Iterator[str]:
    """Note the tables of downloads whose tar file is not there, as after a download that was broken off."""
    tables = sorted(table for folder in dict.fromkeys(path.parent for path in paths) for table in folder.glob("*.parquet"))
    lost = [table.name for table in tables if not table.with_suffix(".tar").is_file()]
    if lost:
        yield f"{len(lost)} tables of downloads have no tar file beside them: {listed(lost, 5)}."


def _stats(path: Path) -> Path:
    return path.with_name(f"{path.stem}_stats.json")


def join(items: Iterable[Pair | Unread], record: Path) -> Iterator[Pair | Unread]:
    """Pass a shard's items on, then tell what the table of downloads has and the shard has not, and the other way round.

    Args:
        items: of the shard.
        record: the table; its rows are told by their key, never by their place.
    """
    try:
        rows = _downloads(record)
    except UnreadableError as error:
        yield from items
        yield Unread(key=clean(record.name), kind="table of downloads cannot be read", why=str(error))
        return
    left = dict(rows)
    extra: list[str] = []
    for item in items:
        left.pop(item.key, None)
        if isinstance(item, Pair) and item.key not in rows:
            extra.append(item.key)
        yield item
    for key, status in left.items():
        if status == "success":
            yield Unread(key=key, kind="not in the shard", why=f"{clean(record.name)} says that it was downloaded")
        else:
            yield Unread(key=key, kind="download failed", why=status[:200])
    if extra:  # they are pairs all the same; one line says that somebody added them
        why = f"{len(extra)} pairs of the shard have no row in it: {listed(extra, 3)}"
        yield Unread(key=clean(record.name), kind="not in the table of downloads", why=why)


def _downloads(record: Path) -> dict[str, str]:
    """Return key -> status."""
    found: dict[str, str] = {}
    for batch in read_columns(record, ["key", "status"], _ROWS):
        keys, status = values(batch.column("key")), values(batch.column("status"))
        found.update((clean(key), clean(state)) for key, state in zip(keys, status, strict=True))
    return found


def write_record(record: Path, name: str, kept: Container[str], files: Output) -> None:
    """Write the table's rows of the kept pairs beside their shard, and the statistics as they are: they tell of the download.

    Raises:
        UnreadableError: the table is damaged.
    """
    write_rows(record, files.part(f"{name}.parquet"), (key in kept for key in row_keys(record, "key")))
    if _stats(record).is_file():
        shutil.copyfile(_stats(record), files.part(f"{name}_stats.json"))
