"""Which pairs are kept after a scan, and the shards written again without the others."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clipvet.data.pairs import PairSource
from clipvet.data.sources import open_pairs
from clipvet.errors import UnreadableError, UsageError

__all__ = ["Decisions", "Filtered", "filter_pairs", "read_decisions"]

Decisions = dict[tuple[str, str], bool]  # shard, key -> whether the pair is kept


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """What was written: files, counts of pairs, and one sentence per shard that could not be read."""

    files: tuple[Path, ...]
    kept: int
    dropped: int
    errors: tuple[str, ...]


def read_decisions(path: Path) -> Decisions:
    """Read the table that the gallery hands over: key, shard, uid, decision (keep or drop).

    Raises:
        UnreadableError: it is no such table, holds none, or decides one pair in two ways.
    """
    advice = "download it from the gallery again"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        found = [((row["shard"], row["key"]), {"keep": True, "drop": False}[row["decision"]]) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError) as error:
        raise UnreadableError(
            f"expected a table with key, shard and decision (keep or drop) in {path}, could not read it ({error}): {advice}"
        ) from error
    decisions = dict(found)
    twice = [pair for pair, keep in found if decisions[pair] is not keep]
    if twice or not found:
        what = f"two of {twice[0][1]!r}" if twice else "none"
        raise UnreadableError(f"expected one decision a pair in {path}, found {what}: {advice}")
    return decisions


def filter_pairs(
    sources: Sequence[str],
    scan: Path,
    out: Path,
    *,
    decisions: Decisions | None = None,
    columns: tuple[str | None, str | None, str | None] = (None, None, None),
    progress: Callable[[str, int, int], None] | None = None,
) -> Filtered:
    """Write the shards of a source again, each in its own format, without what a scan flagged or could not score.

    Args:
        sources: as they were scanned.
        scan: folder of the scan.
        out: folder for the kept pairs; never that of the data.
        decisions: what a person decided; they win over the scan.
        columns: image, caption and key, where they were named for the scan.
        progress: called with (stage, done, total).

    Raises:
        UsageError: the data are not those that were scanned, or a decision is about a pair that was not.
        UnreadableError: the scan's tables are missing or damaged.
    """
    source = open_pairs(list(sources), image_col=columns[0], caption_col=columns[1], id_col=columns[2])
    _same_data(source, scan)
    left = dict(decisions or {})
    files: list[Path] = []
    errors: list[str] = []
    kept = dropped = 0
    keep_of = {shard.name: _kept(scan, shard.name, left) for shard in source.shards} if left else {}
    if left:
        raise UsageError(
            f"expected decisions about pairs of {scan}, found one about {next(iter(left))}: take the gallery of this scan"
        )
    for number, shard in enumerate(source.shards):
        try:
            written = shard.write_kept(keep_of.get(shard.name) or _kept(scan, shard.name, {}), out)
        except UnreadableError as error:
            errors.append(str(error))
            continue
        files += written.files
        kept, dropped = kept + written.kept, dropped + written.dropped
        if progress:
            progress("filter", number + 1, len(source.shards))
    return Filtered(files=tuple(files), kept=kept, dropped=dropped, errors=tuple(errors))


def _same_data(source: PairSource, scan: Path) -> None:
    path = scan / "shards.json"
    try:
        scanned = [(row["name"], row["files"]) for row in json.loads(path.read_text(encoding="utf-8"))["shards"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableError(f"expected a finished scan in {scan}, could not read {path.name} ({error}): scan first") from error
    found = [(shard.name, shard.identity) for shard in source.shards]
    if found != scanned:
        odd = next((name for (name, files), old in zip(found, scanned, strict=False) if (name, files) != old), "their number")
        raise UsageError(
            f"expected the data that were scanned in {scan}, found a difference ({odd}): name the same sources in the same order, "
            "or scan what has changed again"
        )


def _kept(scan: Path, shard: str, left: Decisions) -> frozenset[str]:
    """Keys of one shard that are kept; decisions that were used are taken out of ``left``."""
    path = scan / "scores.parquet"
    try:
        table = pq.read_table(path, columns=["key", "scored", "suspect"], filters=[("shard", "=", shard)])
    except (OSError, pa.ArrowException) as error:
        raise UnreadableError(f"expected the scores of a finished scan in {path}, could not read them: scan first") from error
    rows = zip(table["key"].to_pylist(), table["scored"].to_pylist(), table["suspect"].to_pylist(), strict=True)
    return frozenset(key for key, scored, suspect in rows if left.pop((shard, key), scored and not suspect))
