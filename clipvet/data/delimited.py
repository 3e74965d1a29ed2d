"""Lists that name image files: csv and tsv with a header line (open_clip, CleanCLIP), and JSON lines (Hugging Face).

A file is read once when it is opened, to be cut at the bytes where rows begin; a shard then reads its own stretch. Rows are copied
as they stand.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from clipvet.data._lines import Layout, cut, header, read_layout, records
from clipvet.data._names import shard_names
from clipvet.data._places import image_path, image_root
from clipvet.data._reading import UnfitError, attempt, chosen, clean, identity, read_file, row_key, text, unique
from clipvet.data._writing import output
from clipvet.data.columns import Columns, Wanted, choose_columns
from clipvet.data.pairs import Embeddings, Kept, Pair, PairSource, Unread
from clipvet.errors import UsageError

__all__ = ["ListShard", "open_lists"]

_LOOK = 20  # rows whose paths are tried


@dataclass(frozen=True, kw_only=True)
class ListShard:
    """A stretch of the rows of one file.

    Attributes:
        name: of the shard.
        path: of the file.
        layout: how rows are parsed.
        columns: which column is what.
        start: first byte of the stretch.
        stop: the byte behind it.
        row: number of its first row.
        root: the folder that relative image paths start from.
        confined: whether paths may not lead out of it.
    """

    name: str
    path: Path
    layout: Layout
    columns: Columns
    start: int
    stop: int
    row: int
    root: Path
    confined: bool = False

    @property
    def identity(self) -> str:
        """Name, size and time of change of the list, and the stretch; the images are not looked at."""
        return f"{identity(self.path)}; bytes {self.start} to {self.stop}"

    def pairs(self) -> Iterator[Pair | Unread]:
        """Yield a pair per row, or what kept the row from being one.

        Raises:
            UnreadableError: the file is not there any more, or has changed.
        """
        return unique(attempt(key, self._pair, key, row) for key, _, row in self._rows())

    def embeddings(self) -> Embeddings | None:
        """Return None: it holds images."""
        return None

    def write_kept(self, keep: Container[str], folder: Path) -> Kept:
        """Write the header and the kept rows as they stand."""
        kept = dropped = 0
        with output(folder, self.path) as files, files.part(f"{self.name}{self.path.suffix}").open("wb") as target:
            target.write(header(self.path, self.layout))
            rows = list(self._rows())
            for (_, raw, _), is_kept in zip(rows, chosen((key for key, _, _ in rows), keep), strict=True):
                kept += is_kept
                dropped += not is_kept
                target.write(raw if is_kept else b"")
        return Kept(files=files.files, kept=kept, dropped=dropped)

    def _rows(self) -> Iterator[tuple[str, bytes, Mapping[str, object] | None]]:
        id_ = self.columns.id
        for row, (raw, fields) in enumerate(records(self.path, self.layout, self.start, self.stop), self.row):
            yield row_key(row, fields.get(id_) if fields and id_ else None), raw, fields

    def _pair(self, key: str, fields: Mapping[str, object] | None) -> Pair:
        if fields is None:
            raise UnfitError("row cannot be read", "it has another number of fields than the header, or is no JSON object")
        caption = text(fields.get(self.columns.caption))
        place = image_path(self.root, fields.get(self.columns.image), confined=self.confined)
        uid = fields.get(self.columns.uid) if self.columns.uid else None
        return Pair(key=key, image=read_file(place), caption=caption, uid="" if uid is None else clean(uid), path=place)


def open_lists(paths: Sequence[Path], wanted: Wanted) -> PairSource:
    """Open lists of images and cut them into shards.

    Raises:
        UsageError: there is no column for a role, or the files have different ones.
        UnreadableError: a file cannot be opened, or is no such list.
    """
    shards: list[ListShard] = []
    notes: list[str] = []
    for path in paths:
        found, said = _open(path, wanted)
        shards += found
        notes += said
    columns = {shard.columns: shard.path for shard in shards}
    if len(columns) > 1:
        found_in = "; ".join(f"{one.image} and {one.caption} in {path}" for one, path in islice(columns.items(), 2))
        raise UsageError(f"expected the same columns in all lists, found {found_in}: scan them one by one")
    names = shard_names([(shard.name, shard.path.parent.name) for shard in shards])
    return PairSource(
        kind="folder with a list of images" if all(shard.confined for shard in shards) else "list of images",
        shards=tuple(replace(shard, name=name) for shard, name in zip(shards, names, strict=True)),
        mapping=shards[0].columns.mapping() if shards else {},
        notes=tuple(notes),
    )


def _open(path: Path, wanted: Wanted) -> tuple[list[ListShard], list[str]]:
    layout = read_layout(path)
    columns, notes = choose_columns(layout.names, wanted, str(path))
    stretches = cut(path, layout, wanted.rows)
    root, note = image_root(path, _first_paths(path, layout, stretches, columns.image))
    shards = [
        ListShard(
            name=path.stem if len(stretches) == 1 else f"{path.stem}-{number:05d}",
            path=path,
            layout=layout,
            columns=columns,
            start=start,
            stop=stop,
            row=row,
            root=root,
            confined=path.stem == "metadata",  # the layout of Hugging Face, which keeps images beside their table
        )
        for number, (start, stop, row) in enumerate(stretches)
    ]
    return shards, [*notes, note] if note else notes


def _first_paths(path: Path, layout: Layout, stretches: Sequence[tuple[int, int, int]], column: str) -> list[str]:
    if not stretches:
        return []
    start, stop, _ = stretches[0]
    rows = islice(records(path, layout, start, stop), _LOOK)
    return [str(fields[column]) for _, fields in rows if fields and fields.get(column)]
