"""Images as files: with captions beside them, as img2dataset's ``files`` layout has them, or in one folder per class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from clipvet.data._listing import listing
from clipvet.data._names import shard_names
from clipvet.data._reading import UnfitError, attempt, chosen, clean, identity, json_object, read_file, unique
from clipvet.data._writing import output
from clipvet.data.columns import Wanted, listed
from clipvet.data.img2dataset import join, progress_notes, records_beside
from clipvet.data.pairs import Embeddings, Kept, Pair, PairSource, Unread
from clipvet.data.samples import CAPTIONS, IMAGES, Roles, choose_roles, to_pair

__all__ = ["FolderShard", "Sample", "has_captions", "open_folders"]

_LOOK = 10  # samples whose json is looked at for its fields


class Sample(NamedTuple):
    """Files of one key, as paths from the shard's folder; ``caption`` is None where a file holds it."""

    key: str
    files: tuple[str, ...]
    caption: str | None = None


@dataclass(frozen=True, kw_only=True)
class FolderShard:
    """A stretch of the images below a folder.

    Attributes:
        name: of the shard.
        root: the folder.
        samples: in the order of their keys.
        roles: which file of a sample is what.
        record: img2dataset's table of all downloads, beside the folder; None where there is none.
    """

    name: str
    root: Path
    samples: tuple[Sample, ...]
    roles: Roles
    record: Path | None = None

    @property
    def identity(self) -> str:
        """A digest of the names, sizes and times of change of all files."""
        states = (f"{clean(name)}:{identity(self.root / name)}\n" for sample in self.samples for name in sample.files)
        digest = hashlib.sha256()
        for state in states:
            digest.update(state.encode())
        return "; ".join(filter(None, [f"{len(self.samples)} samples {digest.hexdigest()}", identity(self.record)]))

    def pairs(self) -> Iterator[Pair | Unread]:
        """Yield a pair per image, and what is none."""
        items = unique(attempt(sample.key, self._pair, sample) for sample in self.samples)
        return items if self.record is None else join(items, self.record)

    def embeddings(self) -> Embeddings | None:
        """Return None: it holds images."""
        return None

    def write_kept(self, keep: Container[str], folder: Path) -> Kept:
        """Write the paths of the kept images, one on each line of a text file: images are not copied."""
        rows = list(chosen((sample.key for sample in self.samples), keep))
        with output(folder, self.root) as files, files.part(f"{self.name}.kept.txt").open("wb") as target:
            for sample, is_kept in zip(self.samples, rows, strict=True):
                if is_kept:
                    target.write(os.fsencode(self.root / self._image(sample)) + b"\n")
        return Kept(files=files.files, kept=sum(rows), dropped=len(rows) - sum(rows))

    def _image(self, sample: Sample) -> str:
        return next((name for name in sample.files if extension(name) in self.roles.images), sample.files[0])

    def _pair(self, sample: Sample) -> Pair:
        if set(sample.key) & set("\r\n"):
            raise UnfitError("line break in the name", "a list of kept files has one name on each line")
        if PurePosixPath(sample.key).name.startswith("._"):
            raise UnfitError("macOS metadata", "it holds a file's attributes, not the file")
        image = self.root / self._image(sample)
        if sample.caption is not None:
            return Pair(key=sample.key, image=read_file(image), caption=sample.caption, path=image)
        members = [(extension(name), read_file(self.root / name)) for name in sample.files]
        return to_pair(sample.key, members, self.roles, image)


def extension(name: str) -> str:
    """Return what follows the last dot, in lower case."""
    return PurePosixPath(name).suffix[1:].lower()


def open_folders(roots: Sequence[Path], wanted: Wanted) -> PairSource:
    """Open folders of images and cut them into shards; what img2dataset wrote keeps its own.

    Raises:
        UsageError: a file or field that was asked for is not there.
        UnreadableError: a folder cannot be looked into.
    """
    units = [unit for root in roots for unit in _units(root)]
    records = records_beside(units)
    files = [listing(unit) for unit in units]
    by_class = not any(has_captions(names) for names in files)
    grouped = [_by_class(names) if by_class else _by_stem(names) for names in files]
    roles = _roles(units[0], grouped[0], wanted)
    shards: list[FolderShard] = []
    for unit, samples, record in zip(units, grouped, records, strict=True):
        shards += _cut(FolderShard(name=unit.name, root=unit, samples=samples, roles=roles, record=record), wanted.rows)
    names = shard_names([(shard.name, shard.root.parent.name) for shard in shards])
    mapping = roles.mapping(extension(name) for sample in grouped[0][:_LOOK] for name in sample.files)
    return PairSource(
        kind="class folders" if by_class else f"{'img2dataset' if any(records) else 'images with captions'} (files)",
        shards=tuple(replace(shard, name=name) for shard, name in zip(shards, names, strict=True)),
        mapping=mapping | {"id": "(path)"} | ({"caption": "(name of the folder)"} if by_class else {}),
        notes=(*_notes(files, grouped, by_class), *progress_notes(units, recorded=any(records))),
    )


def has_captions(files: Sequence[str]) -> bool:
    """Tell whether an image has a text or record of the same stem beside it."""
    images = {_stem(name) for name in files if extension(name) in IMAGES}
    return any(_stem(name) in images for name in files if extension(name) in CAPTIONS | {"json"})


def _units(root: Path) -> list[Path]:
    """Return the folders in it where a table or statistics are named after one, as img2dataset does; else the folder itself."""
    inside = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    below = [path for path in inside if path.is_dir()]
    written = any(path.with_name(path.name + end).is_file() for path in below for end in (".parquet", "_stats.json"))
    loose = any(extension(path.name) in IMAGES for path in inside)
    return below if written and not loose else [root]


def _by_class(files: Sequence[str]) -> tuple[Sample, ...]:
    images = [name for name in files if extension(name) in IMAGES]
    return tuple(Sample(clean(name), (name,), clean(PurePosixPath(name).parent.name) or None) for name in images)


def _by_stem(files: Sequence[str]) -> tuple[Sample, ...]:
    groups: dict[str, list[str]] = {}
    for name in files:
        if extension(name) in IMAGES | CAPTIONS | {"json"}:
            groups.setdefault(_stem(name), []).append(name)
    # a record alone describes the folder, not an image
    samples = {stem: names for stem, names in groups.items() if {extension(name) for name in names} != {"json"}}
    return tuple(Sample(clean(stem), tuple(names)) for stem, names in sorted(samples.items()))


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _cut(shard: FolderShard, rows: int) -> list[FolderShard]:
    """Cut into stretches; a table of downloads is joined to its folder as a whole."""
    size = len(shard.samples)
    if size <= rows or shard.record is not None:
        return [shard] if size or shard.record is not None else []
    starts = enumerate(range(0, size, rows))
    return [replace(shard, name=f"{shard.name}-{i:05d}", samples=shard.samples[start : start + rows]) for i, start in starts]


def _roles(unit: Path, samples: Sequence[Sample], wanted: Wanted) -> Roles:
    first = [name for sample in samples[:_LOOK] for name in sample.files]
    fields: dict[str, None] = {}
    for name in first:
        if extension(name) == "json":
            with suppress(UnfitError):  # told when the sample's turn comes
                fields.update(dict.fromkeys(json_object(read_file(unit / name))))
    return choose_roles(wanted, map(extension, first), fields, str(unit))


def _notes(files: Sequence[Sequence[str]], grouped: Sequence[Sequence[Sample]], by_class: bool) -> Iterator[str]:
    if by_class:
        yield "No image has a caption of its own, so the name of its folder is taken for one."
    others = []
    for names, samples in zip(files, grouped, strict=True):
        used = {name for sample in samples for name in sample.files}
        others += [name for name in names if name not in used]
    if others:
        yield f"{len(others)} other files are no images and no captions: {listed(map(clean, others), 5)}."
