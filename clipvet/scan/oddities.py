"""What needs no model to be seen: pictures of one colour, and one picture under several captions.

Scores do not look for these: many copies are each other's neighbours, and a white square is no outlier among white backgrounds.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from clipvet.scan.store import Store, read_table, write_whole

__all__ = ["COLUMNS", "NAME", "Oddity", "find_oddities", "look_at", "oddity_warnings", "write_oddities"]

NAME = "oddities.csv"
COLUMNS = ("picture", "blank")  # of the metadata; a source of ready features has none
ONE_COLOUR = 8 / 255  # range of every channel up to which a picture shows nothing; compression leaves a blank one with some
AT_ONCE = 1 << 22  # pictures that are compared with each other in memory


@dataclass(frozen=True, kw_only=True)
class Oddity:
    """A pair that is odd for what its picture is: ``blank``, or a copy of the pictures of ``pairs`` pairs with ``captions``.

    ``picture`` is a number that all copies of one picture share.
    """

    blank: bool
    picture: int
    shard: int
    row: int
    pairs: int = 1
    captions: int = 1


def look_at(image: Tensor) -> tuple[int, bool]:
    """Tell a picture's number, which only the very same pixels share, and whether it is of one colour: ``(3, h, w)`` in [0, 1]."""
    pixels = (image * 255).round().to(torch.uint8).contiguous().numpy()
    digest = hashlib.blake2b(pixels.data, digest_size=8).digest()
    span = image.amax((1, 2)) - image.amin((1, 2))
    return int.from_bytes(digest, "big") >> 1, bool(span.max() <= ONE_COLOUR)


def find_oddities(store: Store, shards: Sequence[int]) -> list[Oddity]:
    """Find the blank pictures, and the pictures that stand by several captions (whatever their case), most captions first.

    Pictures are the same where the model is given the same pixels. No more than some four million are held at once.
    """
    looked = [shard for shard in shards if set(COLUMNS) <= set(pq.read_schema(store.metadata(shard)).names)]
    total = sum(pq.read_metadata(store.metadata(shard)).num_rows for shard in looked)
    found = [
        Oddity(blank=True, picture=int(table["picture"][int(row)].as_py()), shard=shard, row=int(row))
        for shard in looked
        for table in [read_table(store.metadata(shard), list(COLUMNS))]
        for row in np.flatnonzero(table["blank"].to_numpy())
    ]
    parts = 1 + total // AT_ONCE
    copies = [oddity for part in range(parts) for oddity in _copies(store, looked, part, parts)]
    return found + sorted(copies, key=lambda one: (-one.captions, one.picture, one.shard, one.row))


def _copies(store: Store, shards: Sequence[int], part: int, parts: int) -> list[Oddity]:
    """The pairs whose picture stands by several captions, of those pictures whose number has one remainder."""
    seen = [read_table(store.metadata(shard), ["picture"])["picture"].to_numpy() for shard in shards]
    pictures, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *(s[s % parts == part] for s in seen)]), return_counts=True)
    repeated = pictures[counts > 1]
    places: dict[int, list[tuple[int, int, str]]] = {}
    for shard, numbers in zip(shards, seen, strict=True):
        rows = np.flatnonzero(np.isin(numbers, repeated))
        captions = read_table(store.metadata(shard), ["caption"])["caption"].take(rows).to_pylist() if len(rows) else []
        for row, caption in zip(rows.tolist(), captions, strict=True):
            places.setdefault(int(numbers[row]), []).append((shard, row, caption.strip().casefold()))
    out = []
    for picture, held in places.items():
        captions_of = len({caption for _, _, caption in held})
        if captions_of > 1:
            pairs = len(held)
            out += [
                Oddity(blank=False, picture=picture, shard=shard, row=row, pairs=pairs, captions=captions_of)
                for shard, row, _ in held
            ]
    return out


def oddity_warnings(found: Sequence[Oddity]) -> list[str]:
    """Say what was found, one sentence each; nothing where there is nothing."""
    blank, copies = sum(one.blank for one in found), [one for one in found if not one.blank]
    said = []
    if blank:
        are = "picture is" if blank == 1 else "pictures are"
        said.append(f"{blank:,} {are} of one colour, which scores do not look for: {NAME} names them")
    if copies:
        pictures = len({one.picture for one in copies})
        said.append(
            f"{pictures:,} picture{' stands' if pictures == 1 else 's stand'} by several captions, in {len(copies):,} pairs, which "
            f"scores do not look for: {NAME} names them"
        )
    return said


def write_oddities(store: Store, found: Sequence[Oddity]) -> list[str]:
    """Write them as a table, in their order: what is odd, where, and by how many pairs and captions; return its name, if any."""
    if not found:
        (store.folder / NAME).unlink(missing_ok=True)  # of an earlier scan
        return []
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["kind", "picture", "pairs", "captions", "shard", "key", "uid", "caption"])
    tables = {n: read_table(store.metadata(n), ["shard", "key", "uid", "caption"]) for n in {one.shard for one in found}}
    for one in found:
        named = [tables[one.shard][name][one.row].as_py() for name in ("shard", "key", "uid", "caption")]
        kind = "one colour" if one.blank else "several captions"
        rows.writerow([kind, f"{one.picture:016x}", one.pairs, one.captions, *named])
    write_whole(store.folder / NAME, lambda file: file.write(text.getvalue().encode("utf-8", "replace")))
    return [NAME]
