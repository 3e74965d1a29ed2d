"""The reference that pairs are scored against: an explicit random sample of the data, or a trusted clean set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from clipvet.scan.base import PairFeatures
from clipvet.scan.store import Store, read_array, read_table, write_whole

__all__ = ["Reference", "draw_reference", "gather", "load_features", "load_reference", "priority", "save_reference"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """A sample of pairs with where they come from.

    Attributes:
        features: the sample's, in the order of its draw.
        shards: ``(m,)``, number of the shard of each pair.
        rows: ``(m,)``, row of each pair in that shard's features.
    """

    features: PairFeatures
    shards: np.ndarray
    rows: np.ndarray

    def batch(self, size: int, seed: int) -> PairFeatures:
        """Draw ``size`` of the pairs again, as the published method compares every batch with itself alone."""
        generator = torch.Generator().manual_seed(seed)
        pick = torch.randperm(len(self.features), generator=generator)[:size]
        return self.features.at(pick.to(self.features.ids.device))

    def captions(self, store: Store) -> list[str]:
        """Read the captions of the sample from the store that it was drawn from, in its order."""
        tables = {shard: read_table(store.metadata(shard), ["caption"])["caption"] for shard in np.unique(self.shards).tolist()}
        return [tables[shard][row].as_py() for shard, row in zip(self.shards.tolist(), self.rows.tolist(), strict=True)]


def priority(ids: np.ndarray, seed: int) -> np.ndarray:
    """A random number per pair that depends on its id and the seed alone: ``uint64 (n,)`` (the SplitMix64 mixer)."""
    with np.errstate(over="ignore"):
        x = ids.astype(np.uint64) + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw_reference(store: Store, shards: Sequence[int], size: int, seed: int, device: str = "cpu") -> Reference:
    """Draw a uniform sample of the pairs of some shards: those with the smallest random numbers.

    Which pairs are drawn depends on their ids and the seed, and not on the order or number of the shards. Pairs without a
    direction in feature space (zero or not finite), of either model, are left out.

    Raises:
        UnreadableError: features are missing or damaged.
    """
    held = np.zeros((0, 4), dtype=np.uint64)  # priority, id, shard, row
    for shard in shards:
        ids = read_table(store.metadata(shard), ["id"])["id"].to_numpy()
        place = np.full(len(ids), shard, np.uint64), np.arange(len(ids), dtype=np.uint64)
        rows = np.stack([priority(ids, seed), ids.astype(np.uint64), *place], axis=1)
        held = np.concatenate([held, _first_usable(store, shard, rows[np.argsort(rows[:, 0], kind="stable")], size)])
        held = held[np.lexsort((held[:, 1], held[:, 0]))][:size]
    numbers, rows_of = held[:, 2].astype(np.int64), held[:, 3].astype(np.int64)
    features = gather(store, numbers, rows_of, held[:, 1].astype(np.int64), device)
    return Reference(features=features, shards=numbers, rows=rows_of)


def save_reference(store: Store, reference: Reference) -> str:
    """Keep a reference for the workers and return its digest."""
    f = reference.features
    tensors = {"ids": f.ids, "shards": torch.from_numpy(reference.shards), "rows": torch.from_numpy(reference.rows)}
    named = [("image", f.image), ("text", f.text)]
    named += [] if f.trusted is None else [("trusted image", f.trusted.image), ("trusted text", f.trusted.text)]
    tensors |= {name: part.half() for name, part in named if part is not None}
    data = save({name: part.cpu().contiguous() for name, part in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    write_whole(store.reference(digest), lambda file: file.write(data))
    return digest


def load_reference(store: Store, digest: str, device: str = "cpu") -> Reference:
    """Read what :func:`save_reference` kept under this digest."""
    held = load_file(store.reference(digest), device=device)
    trusted = None
    if "trusted image" in held:
        trusted = PairFeatures(ids=held["ids"], image=held["trusted image"], text=held["trusted text"])
    features = PairFeatures(ids=held["ids"], image=held.get("image"), text=held.get("text"), trusted=trusted)
    return Reference(features=features, shards=held["shards"].cpu().numpy(), rows=held["rows"].cpu().numpy())


def _first_usable(store: Store, shard: int, rows: np.ndarray, size: int) -> np.ndarray:
    """Those of the first rows that have a direction in feature space, up to ``size`` of them."""
    kept = rows[:0]
    for start in range(0, len(rows), max(1, size)):
        if len(kept) >= size:
            break
        part = rows[start : start + size]
        kept = np.concatenate([kept, part[_usable(store, shard, part[:, 3].astype(np.int64))]])
    return kept[:size]


def load_features(store: Store, shard: int, ids: np.ndarray, start: int = 0, device: str = "cpu") -> PairFeatures:
    """Load the features of a stretch of one shard: as many rows from ``start`` on as there are ids."""
    rows = slice(start, start + len(ids))
    image, text = (_read_rows(path(shard), rows, device) for path in (store.image_features, store.text_features))
    trusted = None if store.by_trusted is None else load_features(store.by_trusted, shard, ids, start, device)
    return PairFeatures(ids=torch.from_numpy(ids.copy()).to(device), image=image, text=text, trusted=trusted)


def _read_rows(path: Path, rows: slice | np.ndarray, device: str) -> Tensor | None:
    """Read some rows of an array of features; None where there is no such file."""
    if not path.exists():
        return None
    return torch.from_numpy(np.array(read_array(path)[rows])).to(device)


def _usable(store: Store, shard: int, rows: np.ndarray) -> np.ndarray:
    """Whether each row has a direction in every kind of features that there is, by both models where there are two."""
    good = np.ones(len(rows), bool)
    for path in (store.image_features(shard), store.text_features(shard)):
        part = _read_rows(path, rows, "cpu")
        if part is not None:
            size = part.float().norm(dim=1)
            good &= (torch.isfinite(size) & (size > 0)).numpy()
    return good if store.by_trusted is None else good & _usable(store.by_trusted, shard, rows)


def gather(store: Store, shards: np.ndarray, rows: np.ndarray, ids: np.ndarray, device: str) -> PairFeatures:
    """Load the features of any pairs, in the order given: number of the shard, row in it and id of each."""
    image: list[Tensor] = []
    text: list[Tensor] = []
    order = np.lexsort((rows, shards))
    for shard in np.unique(shards):
        at = rows[order][shards[order] == shard]
        for parts, path in ((image, store.image_features(int(shard))), (text, store.text_features(int(shard)))):
            part = _read_rows(path, at, device)
            parts += [] if part is None else [part]
    back = torch.from_numpy(np.argsort(order)).to(device)
    joined = [torch.cat(parts)[back] if parts else None for parts in (image, text)]
    trusted = None if store.by_trusted is None else gather(store.by_trusted, shards, rows, ids, device)
    return PairFeatures(ids=torch.from_numpy(ids.copy()).to(device), image=joined[0], text=joined[1], trusted=trusted)
