"""Scores of one shard against a reference."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from clipvet.scan.base import PairFeatures, PairScorer
from clipvet.scan.options import BATCH
from clipvet.scan.reference import Reference, load_features
from clipvet.scan.store import Store, read_table, write_table

__all__ = ["score_features", "score_shard"]


def score_features(queries: PairFeatures, reference: PairFeatures, scorers: Mapping[str, PairScorer]) -> dict[str, np.ndarray]:
    """Score pairs with several scorers that share what was looked up: name to ``float32 (n,)``; NaN is not scored."""
    # The scorer that looks furthest goes first: the others use the nearest of what it found.
    order = sorted(scorers, key=lambda name: -getattr(scorers[name], "k", 0))
    found = {name: scorers[name].score(queries, reference).float().cpu().numpy() for name in order}
    return {name: found[name] for name in scorers}


def score_shard(
    store: Store,
    shard: int,
    reference: Reference,
    scorers: Mapping[str, PairScorer],
    *,
    columns: Sequence[str] = (),
    batches: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Write the scores of one shard, in the order of its metadata.

    Args:
        store: with the shard's features.
        shard: its number.
        reference: what pairs are compared with.
        scorers: by the name of their column.
        columns: scores that stand in the metadata already.
        batches: compare each batch of 2,048 with as many pairs drawn from the reference for it alone, as published, instead of
            with the whole reference.
        seed: of that drawing.
        device: torch device.

    Returns:
        Facts for the marker: how many pairs each scorer scored.
    """
    ready = read_table(store.metadata(shard), ["id", *columns])
    ids = ready["id"].to_numpy()
    parts: list[dict[str, np.ndarray]] = []
    for number, start in enumerate(range(0, len(ready), BATCH)):
        queries = load_features(store, shard, ids[start : start + BATCH], start, device)
        among = reference.batch(BATCH, _seed(seed, shard, number)) if batches else reference.features
        with torch.inference_mode():
            parts.append(score_features(queries, among, scorers))
    found = {name: np.concatenate([part[name] for part in parts] or [np.zeros(0, np.float32)]) for name in scorers}
    found |= {name: ready[name].to_numpy().astype(np.float32) for name in columns}
    write_table(store.scores(shard), {"id": ready["id"], **found})
    return {"pairs": len(ready), "scored": {name: int(np.isfinite(values).sum()) for name, values in found.items()}}


def _seed(*numbers: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=6).digest(), "big")
