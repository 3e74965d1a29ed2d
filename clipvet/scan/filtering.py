"""Which pairs are kept after a scan, and the shards written again without the others."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clipvet.data.sources import open_pairs
from clipvet.errors import UnreadableError, UsageError

__all__ = ["Decisions", "Filtered", "filter_pairs", "read_decisions"]

Decisions = dict[tuple[str, str], bool]  # shard, key -> whether the pair is kept


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """What was written: files, and counts of pairs; ``unscored`` pairs have no score and were dropped."""

    files: tuple[Path, ...]
    kept: int
    dropped: int
    unscored: int


@dataclass(frozen=True, kw_only=True)
class _Keep:
    """The pairs of one shard that are kept; a container of keys."""

    kept: frozenset[str]

    def __contains__(self, key: object) -> bool:
        return key in self.kept


def read_decisions(path: Path) -> Decisions:
    """Read the table that the gallery hands over: key, shard, uid, decision (keep or drop).

    Raises:
        UnreadableError: it is no such table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {(row["shard"], row["key"]): {"keep": True, "drop": False}[row["decision"]] for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError) as error:
        raise UnreadableError(
            f"expected a table with key, shard and decision (keep or drop) in {path}, could not read it ({error}): download it "
            "from the gallery again"
        ) from error


def filter_pairs(
    sources: Sequence[str],
    scan: Path,
    out: Path,
    *,
    decisions: Decisions | None = None,
    columns: tuple[str | None, str | None, str | None] = (None, None, None),
    progress: Callable[[str, int, int], None] | None = None,
) -> Filtered:
    """Write the shards of a source again, each in its own format, without what a scan flagged.

    Args:
        sources: as they were scanned.
        scan: folder of the scan.
        out: folder for the kept pairs; never that of the data.
        decisions: what a person decided; they win over the scan.
        columns: image, caption and key, where they were named for the scan.
        progress: called with (stage, done, total).

    Raises:
        UsageError: the scan is of other data, or ``out`` is where the data lie.
        UnreadableError: the scan's table is missing or damaged.
    """
    table = _scores(scan)
    source = open_pairs(list(sources), image_col=columns[0], caption_col=columns[1], id_col=columns[2])
    known = {name: _kept(table, name, decisions or {}) for name in set(table["shard"].unique().to_pylist())}
    strange = [shard.name for shard in source.shards if shard.name not in known]
    if len(strange) == len(source.shards):
        raise UsageError(f"expected the data that were scanned in {scan}, found other shards ({strange[0]}): name the same sources")
    files: list[Path] = []
    kept = dropped = 0
    for number, shard in enumerate(source.shards):
        written = shard.write_kept(known.get(shard.name, _Keep(kept=frozenset())), out)
        files += written.files
        kept, dropped = kept + written.kept, dropped + written.dropped
        if progress:
            progress("filter", number + 1, len(source.shards))
    flagged = sum(not keep for keep in _final(table, decisions or {}))
    return Filtered(files=tuple(files), kept=kept, dropped=dropped, unscored=max(0, dropped - flagged))


def _scores(scan: Path) -> pa.Table:
    path = scan / "scores.parquet"
    try:
        return pq.read_table(path, columns=["shard", "key", "suspect"])
    except (OSError, pa.ArrowException) as error:
        raise UnreadableError(f"expected the scores of a finished scan in {path}, could not read them: scan first") from error


def _kept(table: pa.Table, shard: str, decisions: Decisions) -> _Keep:
    part = table.filter(pa.compute.equal(table["shard"], shard))
    keys, final = part["key"].to_pylist(), _final(part, decisions)
    return _Keep(kept=frozenset(key for key, keep in zip(keys, final, strict=True) if keep))


def _final(table: pa.Table, decisions: Decisions) -> list[bool]:
    rows = zip(table["shard"].to_pylist(), table["key"].to_pylist(), table["suspect"].to_pylist(), strict=True)
    return [decisions.get((shard, key), not suspect) for shard, key, suspect in rows]
