"""Captions in one JSON file: COCO's and Flickr's annotations, and Karpathy's ``dataset_*.json``; several captions per image."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clipvet.data._captions import Document, Entry, read_document
from clipvet.data._names import shard_names
from clipvet.data._places import is_file
from clipvet.data._reading import UnfitError, attempt, chosen, identity, inside, read_file, text, unique
from clipvet.data._writing import output
from clipvet.data.columns import Wanted, listed
from clipvet.data.pairs import Embeddings, Kept, Pair, PairSource, Unread
from clipvet.errors import UsageError

__all__ = ["CaptionShard", "open_captions"]

_SUBFOLDERS = ("", "images", "train2014", "val2014", "train2017", "val2017", "flickr30k-images", "Flicker8k_Dataset")


@dataclass(frozen=True, kw_only=True)
class CaptionShard:
    """A stretch of the captions of one file; all captions of an image lie in one shard.

    Attributes:
        name: of the shard.
        path: of the file.
        entries: in the order of the images.
        roots: folders that are tried for an image, in this order.
    """

    name: str
    path: Path
    entries: tuple[Entry, ...]
    roots: tuple[Path, ...]

    @property
    def identity(self) -> str:
        """Name, size and time of change of the file, and the stretch; the images are not looked at."""
        return f"{identity(self.path)}; {self.entries[0].key} to {self.entries[-1].key}"

    def pairs(self) -> Iterator[Pair | Unread]:
        """Yield a pair per caption, and an Unread for an image without one, or a caption without an image."""
        return unique(attempt(entry.key, self._pair, entry) for entry in self.entries)

    def embeddings(self) -> Embeddings | None:
        """Return None: it holds images."""
        return None

    def write_kept(self, keep: Container[str], folder: Path) -> Kept:
        """Write the JSON with the images and captions that are kept; everything else in it stays.

        Raises:
            UnreadableError: the file is not what it was when it was opened.
        """
        is_kept = list(chosen((entry.key for entry in self.entries), keep))
        places = {entry.place for entry, yes in zip(self.entries, is_kept, strict=True) if yes and entry.place[1] >= 0}
        document = read_document(self.path)
        with output(folder, self.path) as files:
            files.part(f"{self.name}.json").write_text(json.dumps(document.reduce(places)), encoding="utf-8")
        return Kept(files=files.files, kept=len(places), dropped=len(is_kept) - len(places))

    def _pair(self, entry: Entry) -> Pair:
        if not isinstance(entry.file, str) or not entry.file:
            raise UnfitError("no image", "the caption's image has no file name")
        caption = text(entry.caption)
        places = [inside(root, entry.file) for root in self.roots]
        place = next((place for place in places if is_file(place)), places[0])
        return Pair(key=entry.key, image=read_file(place), caption=caption, path=place)


def open_captions(paths: Sequence[Path], wanted: Wanted) -> PairSource:
    """Open files of captions and cut them into shards.

    Raises:
        UsageError: a column was asked for; these files have fixed ones.
        UnreadableError: a file cannot be read, or has another layout.
    """
    if (wanted.image, wanted.caption, wanted.id) != (None, None, None):
        raise UsageError("expected no names of columns for captions in JSON, whose fields are fixed: leave them out")
    documents = [read_document(path) for path in paths]
    shards = [shard for path, document in zip(paths, documents, strict=True) for shard in _shards(path, document, wanted.rows)]
    names = shard_names([(shard.name, shard.path.parent.name) for shard in shards])
    roots = dict.fromkeys(str(root) for shard in shards for root in shard.roots)
    return PairSource(
        kind=" and ".join(dict.fromkeys(document.kind for document in documents)),
        shards=tuple(replace(shard, name=name) for shard, name in zip(shards, names, strict=True)),
        mapping=documents[0].mapping,
        notes=(f"Images are looked for in {listed(roots)}.",),
    )


def _shards(path: Path, document: Document, rows: int) -> list[CaptionShard]:
    parts = list(_cut(document.entries(), rows))
    names = [path.stem] if len(parts) == 1 else [f"{path.stem}-{i:05d}" for i in range(len(parts))]
    roots = tuple(_roots(path))
    return [CaptionShard(name=name, path=path, entries=part, roots=roots) for name, part in zip(names, parts, strict=True)]


def _cut(entries: Sequence[Entry], rows: int) -> Iterator[tuple[Entry, ...]]:
    """Cut where an image begins, at ``rows`` captions or soon after."""
    start = 0
    for i in range(1, len(entries)):
        if i - start >= rows and entries[i].place[0] != entries[i - 1].place[0]:
            yield tuple(entries[start:i])
            start = i
    if entries:
        yield tuple(entries[start:])


def _roots(path: Path) -> Iterator[Path]:
    here = path.parent
    for folder in (here, here.parent) if here.name == "annotations" else (here,):
        yield from (folder / name for name in _SUBFOLDERS if (folder / name).is_dir())
