"""Features that somebody computed before: clip-retrieval's folders, and DataComp's npz files beside their metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clipvet.data._arrays import Array, array_names, write_array, write_arrays
from clipvet.data._names import shard_names
from clipvet.data._parquet import BYTES, NUMBER, TEXT, check, open_parquet, read_columns, row_keys, values, write_rows
from clipvet.data._reading import clean, identity, row_key
from clipvet.data._writing import output
from clipvet.data.columns import CAPTION, IDENTIFIER, Wanted, find, listed
from clipvet.data.pairs import Embeddings, Kept, Pair, PairSource, Unread
from clipvet.errors import UnreadableError, UsageError

__all__ = ["EmbeddingShard", "open_clip_retrieval", "open_datacomp"]

_ROWS = 10_000
_UNKNOWN = "The features come from a model that is not named here; they tell about the model in question only where it made them."


@dataclass(frozen=True, kw_only=True)
class Table:
    """Metadata of the rows: the columns are None where there are none."""

    path: Path
    id: str | None
    caption: str | None
    uid: str | None

    def column(self, name: str | None) -> tuple[str, ...] | None:
        """Return a column as text; a null as an empty one."""
        if name is None:
            return None
        found: list[str] = []
        for batch in read_columns(self.path, [name], _ROWS):
            check(batch.schema, self.path, name, (TEXT, BYTES, NUMBER))
            found += ("" if value is None else clean(value) for value in values(batch.column(name)))
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class EmbeddingShard:
    """Matrices of features and the table of their rows.

    Attributes:
        name: of the shard.
        folder: that is read from.
        image: features of the images; None where there are none.
        text: likewise of the captions.
        table: None where rows are numbered.
    """

    name: str
    folder: Path
    image: Array | None
    text: Array | None
    table: Table | None

    @property
    def identity(self) -> str:
        """Names, sizes and times of change, and which array of a file is taken."""
        members = [array.member for array in (self.image, self.text) if array is not None and array.member]
        return "; ".join([identity(*self._files()), *members])

    def pairs(self) -> Iterator[Pair | Unread]:
        """Yield nothing: there are no images."""
        return iter(())

    def embeddings(self) -> Embeddings:
        """Return the features.

        Raises:
            UnreadableError: a file cannot be read, their rows differ in number, or a key occurs twice.
        """
        keys, image, text = self._rows()
        captions, uids = (self.table.column(self.table.caption), self.table.column(self.table.uid)) if self.table else (None, None)
        return Embeddings(keys=keys, image=image, text=text, captions=captions, uids=uids)

    def write_kept(self, keep: Container[str], folder: Path) -> Kept:
        """Write matrices and table with the kept rows, in the same layout."""
        keys, image, text = self._rows()
        kept = [key in keep for key in keys]
        rows = np.flatnonzero(kept)
        with output(folder, self.folder, *self._files()) as files:
            if self.packed is not None:
                write_arrays(self.packed, files.part(f"{self.name}.npz"), rows, len(keys))
            for part, matrix in () if self.packed else (("img_emb", image), ("text_emb", text)):
                if matrix is not None:
                    with files.part(f"{part}/{part}_{self.name}.npy").open("wb") as file:
                        write_array(matrix, rows, file)
            if self.table is not None:
                name = f"{self.name}.parquet" if self.packed else f"metadata/metadata_{self.name}.parquet"
                write_rows(self.table.path, files.part(name), kept)
        return Kept(files=files.files, kept=len(rows), dropped=len(keys) - len(rows))

    @property
    def packed(self) -> Path | None:
        """The npz file that holds the features; None where they are files of their own."""
        return self.image.path if self.image is not None and self.image.member else None

    def _files(self) -> list[Path]:
        parts = (self.image, self.text, self.table)
        return list(dict.fromkeys(part.path for part in parts if part is not None))

    def _rows(self) -> tuple[tuple[str, ...], np.ndarray | None, np.ndarray | None]:
        keys = tuple(row_keys(self.table.path, self.table.id)) if self.table else None
        rows = None if keys is None else len(keys)
        image = self.image.open(rows) if self.image else None
        text = self.text.open(rows if image is None else len(image)) if self.text else None
        if keys is None:
            given = image if image is not None else text
            keys = tuple(row_key(row, None) for row in range(0 if given is None else len(given)))
        key, count = max(Counter(keys).items(), key=lambda one: one[1], default=("", 1))
        if self.table and count > 1:
            column = self.table.id
            raise UnreadableError(
                f"{self.table.path}: expected unique keys in {column}, found {key} {count} times; name another column"
            )
        return keys, image, text


def open_clip_retrieval(roots: Sequence[Path], wanted: Wanted) -> PairSource:
    """Open folders that clip-retrieval wrote: ``img_emb``, ``text_emb`` and ``metadata``, whose parts have a number.

    Raises:
        UsageError: a column was asked for that is not there.
        UnreadableError: a part is missing beside others, or the first table cannot be read.
    """
    if wanted.image is not None:
        raise UsageError("expected no column of images for clip-retrieval's features, which lie in img_emb: leave it out")
    found = [(root, number, parts) for root in roots for number, parts in _parts(root)]
    names = shard_names([(number, root.name) for root, number, _ in found])
    first = next((parts["metadata"] for _, _, parts in found if "metadata" in parts), None)
    table = None if first is None else _table(first, wanted)
    shards = [
        EmbeddingShard(
            name=name,
            folder=root,
            image=Array(path=parts["img_emb"]) if "img_emb" in parts else None,
            text=Array(path=parts["text_emb"]) if "text_emb" in parts else None,
            table=replace(table, path=parts["metadata"]) if table and "metadata" in parts else None,
        )
        for name, (root, _, parts) in zip(names, found, strict=True)
    ]
    kinds = {kind for _, _, parts in found for kind in parts}
    features = {role: kind for role, kind in (("image features", "img_emb"), ("text features", "text_emb")) if kind in kinds}
    return PairSource(kind="features (clip-retrieval)", shards=tuple(shards), mapping=features | _mapping(table), notes=(_UNKNOWN,))


def _parts(root: Path) -> list[tuple[str, dict[str, Path]]]:
    """Return number -> kind -> file, every number with the same kinds."""
    found: dict[str, dict[str, Path]] = {}
    for kind, suffix in (("img_emb", ".npy"), ("text_emb", ".npy"), ("metadata", ".parquet")):
        for path in (root / kind).glob(f"{kind}_*{suffix}"):
            found.setdefault(path.stem.removeprefix(f"{kind}_"), {})[kind] = path
    kinds = {kind for parts in found.values() for kind in parts}
    for number, parts in found.items():
        missing = sorted(kinds - parts.keys())
        if missing:
            raise UnreadableError(
                f"{root}: expected {missing[0]}_{number} beside {listed(sorted(parts))}, found none; fetch it again"
            )
    return sorted(found.items(), key=lambda one: (len(one[0]), one[0]))


def open_datacomp(paths: Sequence[Path], wanted: Wanted) -> PairSource:
    """Open DataComp's metadata: tables beside npz files of the same name, row by row.

    Raises:
        UsageError: a column or array was asked for that is not there.
        UnreadableError: the first table or npz file cannot be read.
    """
    table = _table(paths[0], wanted)
    packed = paths[0].with_suffix(".npz")
    arrays = array_names(packed)
    image = find(arrays, wanted.image, ("l14_img", "b32_img"), str(packed))
    if image is None:
        raise UsageError(f"expected features of images in {packed}, found {listed(arrays)}: name them with --image-col")
    text = next((name for name in arrays if image.endswith("_img") and name == image.removesuffix("_img") + "_txt"), None)
    names = shard_names([(path.stem, path.parent.name) for path in paths])
    shards = [
        EmbeddingShard(
            name=name,
            folder=path.parent,
            image=Array(path=path.with_suffix(".npz"), member=image),
            text=Array(path=path.with_suffix(".npz"), member=text) if text else None,
            table=replace(table, path=path),
        )
        for name, path in zip(names, paths, strict=True)
    ]
    features = {"image features": image} | ({"text features": text} if text else {})
    return PairSource(kind="features (DataComp)", shards=tuple(shards), mapping=features | _mapping(table), notes=(_UNKNOWN,))


def _table(path: Path, wanted: Wanted) -> Table:
    with open_parquet(path) as file:
        names = file.schema_arrow.names
    caption = find(names, wanted.caption, CAPTION, str(path))
    id_ = find(names, wanted.id, IDENTIFIER, str(path))
    return Table(path=path, id=id_, caption=caption, uid="uid" if "uid" in names else None)


def _mapping(table: Table | None) -> dict[str, str]:
    caption = {"caption": table.caption} if table and table.caption else {}
    return caption | {"id": (table.id if table else None) or "(number of the row)"}
