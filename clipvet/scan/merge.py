"""From scores per shard to one threshold, a list of suspects and the tables that are handed over; no more than a shard is held."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipvet.data.pairs import PairSource
from clipvet.metrics import share_threshold
from clipvet.scan.base import PairFeatures
from clipvet.scan.groups import find_groups
from clipvet.scan.reference import gather
from clipvet.scan.store import Store, read_table, write_whole

__all__ = [
    "MOST",
    "Suspects",
    "above",
    "find_suspects",
    "group_suspects",
    "histogram",
    "scores_of",
    "suspect_features",
    "threshold_of",
    "write_manifest",
    "write_results",
]

_UID = re.compile(r"[0-9a-f]{32}")
BINS = 80
MOST = 5_000  # suspects, the worst ones, that are compared with each other for groups


@dataclass(frozen=True, kw_only=True, eq=False)
class Suspects:
    """Pairs at or above the threshold, worst first.

    Attributes:
        shards: ``(n,)``, number of each pair's shard.
        rows: ``(n,)``, row in that shard.
        ids: ``(n,)``, the pairs' numbers.
        scores: ``(n,)``, of the scorer that ranks.
        all_scores: name -> ``(n,)``, of every scorer.
        table: shard, key, uid and caption of each.
    """

    shards: np.ndarray
    rows: np.ndarray
    ids: np.ndarray
    scores: np.ndarray
    all_scores: dict[str, np.ndarray]
    table: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.scores)

    def first(self, count: int) -> Suspects:
        """The worst ones."""
        return self.at(range(min(count, len(self))))

    def at(self, places: Sequence[int]) -> Suspects:
        """Those at some positions, in that order."""
        rows = np.asarray(places, np.int64)
        return Suspects(
            shards=self.shards[rows],
            rows=self.rows[rows],
            ids=self.ids[rows],
            scores=self.scores[rows],
            all_scores={name: values[rows] for name, values in self.all_scores.items()},
            table={name: [values[row] for row in rows] for name, values in self.table.items()},
        )


def scores_of(store: Store, shards: Sequence[int], name: str) -> Iterator[np.ndarray]:
    """Read one scorer's scores, shard by shard."""
    for shard in shards:
        yield read_table(store.scores(shard), [name])[name].to_numpy()


def threshold_of(store: Store, shards: Sequence[int], name: str, rate: float) -> float:
    """Return the score at or above which at most ``rate`` of all scored pairs lie."""
    return above(share_threshold(lambda: scores_of(store, shards, name), rate))


def above(score: float) -> float:
    """The next larger score: what lies at or above it exceeds ``score``."""
    return float(np.nextafter(np.float32(score), np.float32(np.inf)))


def histogram(store: Store, shards: Sequence[int], name: str) -> tuple[list[float], list[int]]:
    """Count finite scores in bins of equal width over their range: edges, one more than counts."""
    low, high = np.inf, -np.inf
    for part in scores_of(store, shards, name):
        finite = part[np.isfinite(part)]
        if len(finite):
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        return [], []
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    counts = np.zeros(BINS, np.int64)
    for part in scores_of(store, shards, name):
        counts += np.histogram(part[np.isfinite(part)].astype(np.float64).clip(edges[0], edges[-1]), edges)[0]
    return edges.tolist(), counts.tolist()


def find_suspects(store: Store, shards: Sequence[int], names: Sequence[str], threshold: float) -> Suspects:
    """Gather the pairs whose first score reaches the threshold, worst first; ties stand in the order of their ids."""
    found: list[pa.Table] = []
    for shard in shards:
        scores = read_table(store.scores(shard), ["id", *names])
        first = scores[names[0]].to_numpy()
        rows = np.flatnonzero(np.isfinite(first) & (first >= threshold))
        if len(rows):
            meta = read_table(store.metadata(shard), ["shard", "key", "uid", "caption"]).take(rows)
            place = {"_shard": np.full(len(rows), shard), "_row": rows}
            columns = {name: scores[name].take(rows) for name in ("id", *names)}
            found.append(pa.table({**place, **columns, **{n: meta[n] for n in meta.column_names}}))
    if not found:
        return _no_suspects(names)
    table = pa.concat_tables(found)
    table = table.take(np.lexsort((table["id"].to_numpy(), -table[names[0]].to_numpy())))
    return Suspects(
        shards=table["_shard"].to_numpy(),
        rows=table["_row"].to_numpy(),
        ids=table["id"].to_numpy(),
        scores=table[names[0]].to_numpy(),
        all_scores={name: table[name].to_numpy() for name in names},
        table={name: table[name].to_pylist() for name in ("shard", "key", "uid", "caption")},
    )


def _no_suspects(names: Sequence[str]) -> Suspects:
    none = np.zeros(0, np.int64)
    scores = {name: np.zeros(0) for name in names}
    table: dict[str, list[str]] = {name: [] for name in ("shard", "key", "uid", "caption")}
    return Suspects(shards=none, rows=none, ids=none, scores=np.zeros(0), all_scores=scores, table=table)


def suspect_features(store: Store, suspects: Suspects, device: str = "cpu") -> PairFeatures:
    """Load the features of the suspects, in their order."""
    return gather(store, suspects.shards, suspects.rows, suspects.ids, device)


def group_suspects(store: Store, suspects: Suspects, reference: PairFeatures, usual_captions: Sequence[str]) -> np.ndarray:
    """Number the groups among the worst 5,000 suspects; see :func:`clipvet.scan.groups.find_groups`."""
    if not len(suspects):
        return np.zeros(0, int)
    worst = suspects.first(MOST)
    features = suspect_features(store, worst, str(reference.ids.device))
    groups = np.zeros(len(suspects), int)
    groups[: len(worst)] = find_groups(features, reference, worst.table["caption"], usual_captions)
    return groups


def write_results(store: Store, shards: Sequence[int], names: Sequence[str], suspects: Suspects, groups: np.ndarray) -> list[str]:
    """Write scores.parquet and suspects.csv, and kept.npy where every uid has 128 bits; return their names.

    ``scores.parquet`` has a row group per shard: shard, key, uid, a column per scorer, ``scored``, ``suspect``, and for suspects
    ``rank`` (1 is worst) and ``group`` (null where a suspect belongs to none). ``kept.npy`` is DataComp's format: sorted pairs of
    unsigned 64-bit numbers; pairs without a score are left out.
    """
    write_whole(store.folder / "scores.parquet", lambda file: _write_scores(file, store, shards, names, suspects, groups))
    write_whole(store.folder / "suspects.csv", lambda file: file.write(_suspects_csv(suspects, groups)))
    uids = _kept_uids(store, shards, names[0], suspects)
    if uids is None:
        (store.folder / "kept.npy").unlink(missing_ok=True)  # of an earlier scan
        return ["scores.parquet", "suspects.csv"]
    write_whole(store.folder / "kept.npy", lambda file: np.save(file, uids))
    return ["scores.parquet", "suspects.csv", "kept.npy"]


def write_manifest(store: Store, source: PairSource) -> None:
    """Note which shards the results are about, so that nothing else is filtered by them."""
    text = json.dumps({"shards": [{"name": shard.name, "files": shard.identity} for shard in source.shards]}, indent=1)
    write_whole(store.folder / "shards.json", lambda file: file.write(text.encode()))


def _write_scores(
    file: Any, store: Store, shards: Sequence[int], names: Sequence[str], suspects: Suspects, groups: np.ndarray
) -> None:
    writer = None
    for shard in shards:
        meta = read_table(store.metadata(shard), ["shard", "key", "uid"])
        scores = read_table(store.scores(shard), list(names))
        rank, group = np.zeros(len(meta), np.int64), np.zeros(len(meta), np.int64)
        at = np.flatnonzero(suspects.shards == shard)
        rank[suspects.rows[at]], group[suspects.rows[at]] = at + 1, groups[at]
        columns = {name: meta[name] for name in meta.column_names} | {name: scores[name] for name in names}
        columns |= {
            "scored": np.isfinite(scores[names[0]].to_numpy()),
            "suspect": rank > 0,
            "rank": pa.array(rank, mask=rank == 0),
            "group": pa.array(group, mask=group == 0),
        }
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _suspects_csv(suspects: Suspects, groups: np.ndarray) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["rank", "shard", "key", "uid", "score", "group", "caption"])
    for at in range(len(suspects)):
        group = int(groups[at]) or ""
        held = {name: suspects.table[name][at] for name in suspects.table}
        rows.writerow([at + 1, held["shard"], held["key"], held["uid"], f"{suspects.scores[at]:.6g}", group, held["caption"]])
    return text.getvalue().encode("utf-8", "replace")


def _kept_uids(store: Store, shards: Sequence[int], name: str, suspects: Suspects) -> np.ndarray | None:
    """Return the sorted uids of all scored pairs but the suspects, or None where not every pair has one of 128 bits."""
    parts: list[np.ndarray] = []
    for shard in shards:
        uids = read_table(store.metadata(shard), ["uid"])["uid"].to_pylist()
        if not uids or not all(_UID.fullmatch(uid) for uid in uids):
            return None
        kept = np.isfinite(read_table(store.scores(shard), [name])[name].to_numpy())
        kept[suspects.rows[suspects.shards == shard]] = False
        halves = [(int(uid[:16], 16), int(uid[16:], 16)) for uid, keep in zip(uids, kept.tolist(), strict=True) if keep]
        parts.append(np.array(halves, dtype=np.dtype("u8,u8")))
    return np.sort(np.concatenate(parts)) if parts else None
