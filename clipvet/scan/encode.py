"""Features of one shard: decode, preprocess, encode, write."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipvet.data.images import decode_image
from clipvet.data.pairs import CUT_OFF, Embeddings, Pair, Shard, Unread
from clipvet.errors import ImageError, UnreadableError, UsageError
from clipvet.models.base import ClipModel
from clipvet.scan.base import PixelScorer
from clipvet.scan.oddities import COLUMNS, look_at
from clipvet.scan.store import Store, write_array, write_table

__all__ = ["encode_shard", "pair_id"]

BLOCK = 65_536  # ready features that are brought to unit length at a time
AHEAD = 3  # batches that are decoded while one is encoded
Decoded = tuple[Pair, Tensor, tuple[int, bool]] | Unread


def pair_id(shard: str, key: str) -> int:
    """A number for a pair that is the same in every run: 63 bits of a hash of its shard's name and its key."""
    digest = hashlib.blake2b(f"{shard}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass
class _Rows:
    """What has been gathered of a shard."""

    pairs: list[tuple[str, str, str]] = field(default_factory=list)  # key, uid, caption
    looks: list[tuple[int, bool]] = field(default_factory=list)  # as look_at tells; empty for ready features
    unread: list[Unread] = field(default_factory=list)
    image: list[np.ndarray] = field(default_factory=list)
    text: list[np.ndarray] = field(default_factory=list)
    pixel_scores: dict[str, list[np.ndarray]] = field(default_factory=dict)


def encode_shard(
    shard: Shard,
    number: int,
    store: Store,
    model: ClipModel | None,
    *,
    pixel_scorers: tuple[PixelScorer, ...] = (),
    batch: int = 64,
    threads: int = 2,
    seed: int = 0,
    progress: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Write features, metadata and what could not be read of one shard.

    Args:
        shard: where the pairs come from.
        number: of the shard in its source; names the files.
        store: where they are written.
        model: the encoder; None where the shard holds ready features.
        pixel_scorers: scorers that need pixels; their scores stand in the metadata.
        batch: images per pass.
        threads: that decode.
        seed: of the pixel scorers.
        progress: called after every batch.

    Returns:
        Facts for the marker: pairs, what was not read, counted by kind, and why the shard as a whole could not be read to its
        end, empty where it could: the scan goes on with the other shards.

    Raises:
        UsageError: the shard holds images and there is no model.
        UnwritableError: the disk is full.
    """
    rows = _Rows(pixel_scores={scorer.name: [] for scorer in pixel_scorers})
    try:
        ready = shard.embeddings()
    except UnreadableError as fault:
        return {**_write(shard, number, store, rows), "error": str(fault)}
    if ready is not None:
        return {**_write(shard, number, store, _ready(ready)), "error": "", "ready": True}
    if model is None:
        raise UsageError(f"expected --model for {shard.name}, which holds images: name the CLIP that encodes them")
    faults: list[str] = []
    for part in _batches(_until_fault(shard, faults), model.image_size, batch, threads):
        good = [item for item in part if not isinstance(item, Unread)]
        rows.unread += [item for item in part if isinstance(item, Unread)]
        if good:
            _encode(rows, model, good, pixel_scorers, seed)
        if progress:
            progress()
    faults += [f"{shard.name}: {item.why}" for item in rows.unread if item.kind in CUT_OFF]
    return {**_write(shard, number, store, rows), "error": " ".join(faults)}


def _until_fault(shard: Shard, faults: list[str]) -> Iterator[Pair | Unread]:
    """Yield what can be read; where that ends early, the reason is appended to ``faults``."""
    try:
        yield from shard.pairs()
    except UnreadableError as fault:
        faults.append(str(fault))


def _batches(pairs: Iterator[Pair | Unread], size: int, batch: int, threads: int) -> Iterator[list[Decoded]]:
    """Decode some batches ahead of the one that is encoded, in the order of the shard."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[Decoded]] = []
        for pair in pairs:
            waiting.append(pool.submit(_decode, pair, size))
            if len(waiting) >= AHEAD * batch:
                yield [future.result() for future in waiting[:batch]]
                del waiting[:batch]
        for start in range(0, len(waiting), batch):
            yield [future.result() for future in waiting[start : start + batch]]


def _decode(pair: Pair | Unread, size: int) -> Decoded:
    if isinstance(pair, Unread):
        return pair
    try:
        image = decode_image(pair.image, pair.key, size)
        return pair, image, look_at(image)
    except ImageError as error:
        return Unread(key=pair.key, kind=error.kind, why=str(error))


@torch.no_grad()
def _encode(
    rows: _Rows,
    model: ClipModel,
    good: list[tuple[Pair, Tensor, tuple[int, bool]]],
    pixel_scorers: tuple[PixelScorer, ...],
    seed: int,
) -> None:
    images = torch.stack([image for _, image, _ in good]).to(model.device)
    texts = [pair.caption for pair, _, _ in good]
    rows.pairs += [(pair.key, pair.uid, pair.caption) for pair, _, _ in good]
    rows.looks += [look for _, _, look in good]
    rows.image.append(model.encode_image(images).half().cpu().numpy())
    rows.text.append(model.encode_text(texts).half().cpu().numpy())
    for scorer in pixel_scorers:
        with torch.enable_grad():
            rows.pixel_scores[scorer.name].append(scorer.score_pixels(model, images, texts, seed=seed).float().cpu().numpy())


def _ready(found: Embeddings) -> _Rows:
    n = len(found.keys)
    rows = _Rows(pairs=list(zip(found.keys, found.uids or [""] * n, found.captions or [""] * n, strict=True)))
    rows.image = [] if found.image is None else [_unit(part) for part in np.array_split(found.image, n // BLOCK + 1)]
    rows.text = [] if found.text is None else [_unit(part) for part in np.array_split(found.text, n // BLOCK + 1)]
    return rows


def _unit(rows: np.ndarray) -> np.ndarray:
    """Bring rows to unit length in half precision; what is zero or not finite stays without a direction."""
    wide = np.asarray(rows, np.float32)
    with np.errstate(all="ignore"):
        scaled = wide / np.abs(wide).max(axis=1, keepdims=True, initial=0)
        unit: np.ndarray = (scaled / np.linalg.norm(scaled, axis=1, keepdims=True)).astype(np.float16)
    return unit


def _write(shard: Shard, number: int, store: Store, rows: _Rows) -> dict[str, Any]:
    keys, uids, captions = zip(*rows.pairs, strict=True) if rows.pairs else ((), (), ())
    for parts, path in ((rows.image, store.image_features(number)), (rows.text, store.text_features(number))):
        if parts and keys:
            write_array(path, np.concatenate(parts))
        else:
            path.unlink(missing_ok=True)  # of an earlier scan
    ids = np.array([pair_id(store.salt + shard.name, key) for key in keys], dtype=np.int64)
    columns = {"id": ids, "shard": [shard.name] * len(keys), "key": [*keys], "uid": [*uids], "caption": [*captions]}
    scores = {name: np.concatenate(parts) for name, parts in rows.pixel_scores.items() if parts}
    looks = dict(zip(COLUMNS, map(list, zip(*rows.looks, strict=True)), strict=True)) if rows.looks else {}
    if keys:
        write_table(store.metadata(number), {**columns, **looks, **scores})
    else:
        store.metadata(number).unlink(missing_ok=True)
    write_table(store.unread(number), {name: [getattr(item, name) for item in rows.unread] for name in ("key", "kind", "why")})
    return {"pairs": len(keys), "unread": dict(Counter(item.kind for item in rows.unread))}
