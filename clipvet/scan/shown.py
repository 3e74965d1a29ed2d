"""The pairs that a person is shown: the worst ones and the members of the groups, with pictures and nearest neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clipvet.scan.merge import suspect_features
from clipvet.scan.neighbours import nearest
from clipvet.scan.pictures import thumbnails
from clipvet.scan.store import read_table
from clipvet.types import Neighbour, SuspectPair

if TYPE_CHECKING:
    from clipvet.scan.report import Scanned

__all__ = ["GROUPS", "shown_pairs"]

GROUPS = 50  # shown; the tables hold all
MEMBERS = 12  # of each group that are shown, however good their rank: a verdict rests on them
NEIGHBOURS = 3  # shown beside a suspect


def shown_pairs(s: Scanned) -> tuple[SuspectPair, ...]:
    """Return the worst pairs, as many as were asked for, and the worst of every group, by rank; their pictures are read again."""
    shown = _places(s)
    if not shown:
        return ()
    near = _neighbours(s, shown)
    wanted = {(int(s.suspects.shards[at]), s.suspects.table["key"][at]) for at in shown}
    beside = set() if s.trusted else {(shard, key) for row in near for shard, key, _, _ in row}
    pictures = thumbnails(s.source, wanted | beside)
    nearby = {pair: pictures.get(pair) for pair in beside}
    return tuple(
        SuspectPair(
            key=s.suspects.table["key"][at],
            shard=s.suspects.table["shard"][at],
            uid=s.suspects.table["uid"][at],
            caption=s.suspects.table["caption"][at],
            score=float(s.suspects.scores[at]),
            rank=at + 1,
            scores={name: float(values[at]) for name, values in s.suspects.all_scores.items()},
            group=int(s.groups[at]) or None,
            thumbnail=pictures.get((int(s.suspects.shards[at]), s.suspects.table["key"][at])),
            neighbours=tuple(
                Neighbour(key=key, caption=caption, similarity=similarity, thumbnail=nearby.get((shard, key)))
                for shard, key, caption, similarity in beside_it
            ),
        )
        for at, beside_it in zip(shown, near, strict=True)
    )


def _places(s: Scanned) -> list[int]:
    """Positions among the suspects, worst first; none where the gallery was switched off."""
    if not s.options.gallery:
        return []
    worst = range(min(s.options.gallery, len(s.suspects)))
    members = [at for number in range(1, GROUPS + 1) for at in np.flatnonzero(s.groups == number)[:MEMBERS].tolist()]
    return sorted({*worst, *members})


def _neighbours(s: Scanned, shown: list[int]) -> list[list[tuple[int, str, str, float]]]:
    """Shard, key, caption and cosine similarity of the nearest reference pairs of some suspects."""
    kind = "text" if s.reference.features.image is None else "image"
    worst = suspect_features(s.store, s.suspects.at(shown), s.options.device)
    k = min(NEIGHBOURS, len(s.reference.features) - 1)
    if k < 1:
        return [[] for _ in shown]
    found = nearest(worst, s.reference.features, k, kind)  # type: ignore[arg-type]  # one of the two literals
    tables: dict[int, Any] = {}
    out = []
    for index, distances in zip(found.index.cpu().numpy(), found.distances.cpu().numpy(), strict=True):
        row = []
        for at, distance in zip(index, distances, strict=True):
            shard, place = int(s.reference.shards[at]), int(s.reference.rows[at])
            if shard not in tables:
                tables[shard] = read_table(s.drawn_from.metadata(shard), ["key", "caption"])
            key, caption = (tables[shard][name][place].as_py() for name in ("key", "caption"))
            row.append((shard, key, caption, 1 - float(distance) ** 2 / 2))
        out.append(row)
    return out
