"""Image-text pairs as they lie on disk: the nouns that every reader, scorer and attack shares."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

__all__ = ["ARCHIVE_CUT", "CUT_OFF", "TABLE_CUT", "Embeddings", "Kept", "Pair", "PairSource", "Shard", "Unread"]

ARCHIVE_CUT, TABLE_CUT = "archive cut off", "table cut off"
CUT_OFF = frozenset({ARCHIVE_CUT, TABLE_CUT})  # kinds of :class:`Unread` that stand for the whole rest of a shard


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image with its caption, the image still encoded.

    Attributes:
        key: what the source calls it; unique within its shard, and the only thing that results are joined by.
        image: the file's bytes; not decoded, and not known to be an image.
        caption: the text, as it stands.
        uid: a wider identifier where the source has one (DataComp's 128-bit hexadecimal uid); else empty.
        path: where the image lies as a file of its own; None inside an archive or a table.
    """

    key: str
    image: bytes
    caption: str
    uid: str = ""
    path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Unread:
    """A pair that could not be read or used: counted and named, never dropped in silence.

    Attributes:
        key: of the pair, or of the member or row where no key could be told.
        kind: a few fixed words that reasons are counted by, such as ``no caption`` or ``image cannot be decoded``.
        why: one clause with what was found.
    """

    key: str
    kind: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Features of one shard that somebody computed before.

    Attributes:
        keys: n keys, unique within the shard.
        image: ``(n, d)``, any float type, not normalised; None where there are none. May be a memory map.
        text: likewise.
        captions: n captions; None where the source has none.
        uids: n identifiers; None where the source has none.
    """

    keys: tuple[str, ...]
    image: np.ndarray | None
    text: np.ndarray | None
    captions: tuple[str, ...] | None = None
    uids: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What :meth:`Shard.write_kept` did: the files written, and counts of pairs."""

    files: tuple[Path, ...]
    kept: int
    dropped: int


class Shard(Protocol):
    """One unit of work: a tar file, a table, or a fixed stretch of a longer list.

    ``name`` is unique in its source, usable as a file name and the same in every run; ``identity`` tells the files' names, sizes
    and times of change, so that a run that goes on later sees whether they are the same.
    """

    @property
    def name(self) -> str: ...  # noqa: D102  # said above
    @property
    def identity(self) -> str: ...  # noqa: D102
    def pairs(self) -> Iterator[Pair | Unread]:
        """Yield every pair and everything that is none, in the order of the file; keys are unique."""
        ...

    def embeddings(self) -> Embeddings | None:
        """Return ready features, or None where the shard holds images."""
        ...

    def write_kept(self, keep: Container[str], folder: Path) -> Kept:
        """Write the shard again, in its own format, with the pairs whose key is in ``keep`` alone; whole or not at all."""
        ...


@dataclass(frozen=True, kw_only=True)
class PairSource:
    """Where pairs come from.

    Attributes:
        kind: the format, in words.
        shards: in a fixed order.
        mapping: role (image, caption, id) -> the column or member that plays it, to be echoed.
        notes: what the user should know, one sentence each.
    """

    kind: str
    shards: tuple[Shard, ...]
    mapping: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
