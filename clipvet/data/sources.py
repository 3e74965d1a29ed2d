"""The one door to pairs: what a user names, whatever its format.

Formats: webdataset and img2dataset (tar, files, parquet), parquet with images or paths, csv and tsv, folders with captions or
classes, Hugging Face's image folders, captions in JSON, and features that were computed before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from clipvet.data._listing import listing
from clipvet.data.coco import open_captions
from clipvet.data.columns import Wanted, listed
from clipvet.data.delimited import open_lists
from clipvet.data.embeddings import open_clip_retrieval, open_datacomp
from clipvet.data.folder import extension, has_captions, open_folders
from clipvet.data.pairs import PairSource
from clipvet.data.patterns import expand
from clipvet.data.samples import IMAGES
from clipvet.data.tables import open_tables
from clipvet.data.webdataset import open_tars
from clipvet.errors import ClipvetError, UnreadableError, UsageError

__all__ = ["open_pairs"]

TAR, TABLE, LIST, CAPTIONS, FOLDER = "tar files", "parquet files", "csv, tsv or jsonl lists", "JSON captions", "image folders"
CLIP_RETRIEVAL, DATACOMP = "clip-retrieval features", "DataComp features"
_OPENERS: dict[str, Callable[[Sequence[Path], Wanted], PairSource]] = {
    TAR: open_tars,
    TABLE: open_tables,
    LIST: open_lists,
    CAPTIONS: open_captions,
    FOLDER: open_folders,
    CLIP_RETRIEVAL: open_clip_retrieval,
    DATACOMP: open_datacomp,
}
_FILES = {"tar": TAR, "parquet": TABLE, "csv": LIST, "tsv": LIST, "jsonl": LIST, "json": CAPTIONS}
_METADATA = frozenset(["metadata.csv", "metadata.jsonl", "metadata.parquet"])
_UNDERSTOOD = ", ".join(_OPENERS)


def open_pairs(
    sources: Sequence[str | Path],
    *,
    image_col: str | None = None,
    caption_col: str | None = None,
    id_col: str | None = None,
    rows: int = 10_000,
) -> PairSource:
    """Open image-text pairs as they lie on disk; nothing is decoded, extracted or fetched.

    Args:
        sources: files, folders and patterns of one format; ``{00000..00099}.tar``, ``{a,b}``, ``*`` and ``::`` are understood.
        image_col: column, member or array of the images, where it has no usual name.
        caption_col: likewise of the captions.
        id_col: likewise of the keys; in a tar file the field of ``json`` with a wider identifier.
        rows: of a shard, where a list or a folder is cut into several.

    Raises:
        UsageError: a column or source is not what is understood, or the sources are of several formats.
        UnreadableError: there is nothing, or it cannot be read.
    """
    if isinstance(sources, str | Path):
        sources = [sources]
    if not sources:
        raise UsageError(f"expected files or folders with pairs, got none: name {_UNDERSTOOD}")
    wanted = Wanted(image=image_col, caption=caption_col, id=id_col, rows=rows)
    paths, notes = expand(sources)
    found: dict[str, list[Path]] = {}
    for path in paths:
        kind, files = _folder(path) if path.is_dir() else _file(path)
        found.setdefault(kind, []).extend(files)
    if len(found) > 1:
        counts = ", ".join(f"{kind} ({len(files)})" for kind, files in found.items())
        raise UsageError(f"expected sources of one format, found {counts}: scan them one after the other")
    ((kind, files),) = found.items()
    odd = [path for path in files if not (path.is_file() or path.is_dir())]
    if odd:
        raise UnreadableError(f"expected files, found a pipe, a device or a dead link at {odd[0]}; remove it")
    source = _OPENERS[kind](files, wanted)
    if not source.shards:
        raise UnreadableError(f"expected pairs in {listed(map(str, paths), 3)}, found none; check the path")
    return replace(source, notes=(*notes, *source.notes))


def _file(path: Path) -> tuple[str, list[Path]]:
    """Tell a file's format by its name."""
    kind = _FILES.get(extension(path.name), "")
    if kind == TABLE and path.with_suffix(".npz").is_file():
        kind = DATACOMP
    if not kind:
        raise UsageError(f"expected {_UNDERSTOOD}, got the file {path}: name one of these, or the folder above")
    return kind, [path]


def _folder(root: Path) -> tuple[str, list[Path]]:
    """Tell a folder's format by what lies below it."""
    if any((root / name).is_dir() for name in ("img_emb", "text_emb")):
        return CLIP_RETRIEVAL, [root]
    names = listing(root)
    files: dict[str, list[str]] = {}
    for name in names:
        files.setdefault(_FILES.get(extension(name), ""), []).append(name)
    if TAR in files:
        return TAR, [root / name for name in files[TAR]]
    if any(extension(name) in IMAGES for name in names):
        return _images(root, names)
    tables = {kind: files[kind] for kind in (TABLE, LIST) if kind in files}
    if len(tables) != 1:
        raise _unclear(root, names)
    ((kind, inside),) = tables.items()
    packed = [name for name in inside if (root / name).with_suffix(".npz").is_file()]
    if packed and len(packed) < len(inside):
        raise _unclear(root, names)
    return DATACOMP if packed else kind, [root / name for name in inside]


def _images(root: Path, names: Sequence[str]) -> tuple[str, list[Path]]:
    """Tell by what images have beside them: a table of Hugging Face's, captions of their own, or nothing."""
    metadata = [PurePosixPath(name) for name in names if PurePosixPath(name).name in _METADATA]
    kinds = {_FILES[extension(path.name)] for path in metadata}
    if len(kinds) > 1 or len({path.parent for path in metadata}) < len(metadata):
        raise _unclear(root, names)
    if metadata:
        return kinds.pop(), [root / path for path in metadata]
    # a table that is no caption of one image may hold the captions of all
    if not has_captions(names) and any(extension(name) in _FILES for name in names):
        raise _unclear(root, names)
    return FOLDER, [root]


def _unclear(root: Path, names: Sequence[str]) -> ClipvetError:
    counts = Counter(extension(name) or "without an extension" for name in names)
    found = listed([f"{count} {kind}" for kind, count in counts.most_common()], 8)
    if not names:
        return UnreadableError(f"expected pairs in {root}, found an empty folder; check the path")
    return UsageError(f"expected {_UNDERSTOOD} in {root}, found {found}: name the files that hold the pairs")
