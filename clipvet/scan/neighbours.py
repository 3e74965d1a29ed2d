"""Exact nearest neighbours of pairs in a reference, in chunks of queries that bound memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.scan.base import Modality, Neighbours, PairFeatures

__all__ = ["FLOOR", "NeighbourScorer", "nearest", "neighbour_dimension", "own_dimension", "own_radius"]

CHUNK = 1 << 24  # similarities held at a time: 64 MiB in float32
FLOOR = 5e-4  # distances below are rounding: features are kept in half precision
CLOSE = 0.01  # squared distances below are computed again from differences; 2 - 2 cos would round them away


@dataclass(frozen=True, kw_only=True)
class NeighbourScorer:
    """What scorers of neighbourhoods share: the check of their configuration."""

    k: int
    modality: Modality

    def __post_init__(self) -> None:
        if self.k < 2 or self.modality not in get_args(Modality):
            modalities = ", ".join(get_args(Modality))
            raise UsageError(f"expected k of at least 2 and features out of {modalities}, got {self.k} and {self.modality!r}")


def nearest(queries: PairFeatures, reference: PairFeatures, k: int, modality: Modality = "image") -> Neighbours:
    """Find the ``k`` nearest reference pairs of each query, the query itself left out.

    Args:
        queries: what is looked up; what was found is kept with ``reference``, so that scorers share it.
        reference: what is searched.
        k: how many neighbours.
        modality: features that are compared; ``both`` looks a query's image up among images and texts of the reference.

    Raises:
        UsageError: the reference holds too few pairs, or there are no such features.
    """
    known = reference.near.setdefault(queries, {})
    found = known.get(modality)
    if found is None or found.index.shape[1] < k:
        found = known[modality] = _search(queries, reference, k, modality)
    return Neighbours(found.distances[:, :k], found.index[:, :k])


def _search(queries: PairFeatures, reference: PairFeatures, k: int, modality: Modality) -> Neighbours:
    rows, ids = _rows(reference, modality)
    asked = queries.of("image" if modality == "both" else modality)
    if len(rows) <= k:
        raise UsageError(f"expected a reference of more than k = {k} pairs, got {len(rows)}: give more pairs or a smaller k")
    if not torch.isfinite(rows).all():
        raise UsageError("expected finite reference features, found NaN or infinity: leave those pairs out")
    order = ids.argsort(stable=True)
    parts = [
        _search_chunk(part, own, rows, ids[order], order, k)
        for part, own in zip(*(x.split(max(1, CHUNK // len(rows))) for x in (asked, queries.ids)), strict=True)
    ]
    return Neighbours(torch.cat([p.distances for p in parts]), torch.cat([p.index for p in parts]))


def _rows(reference: PairFeatures, modality: Modality) -> tuple[Tensor, Tensor]:
    if modality != "both":
        return reference.of(modality), reference.ids
    return torch.cat([reference.of("image"), reference.of("text")]), reference.ids.repeat(2)


def _search_chunk(asked: Tensor, own: Tensor, rows: Tensor, sorted_ids: Tensor, order: Tensor, k: int) -> Neighbours:
    similarity = asked @ rows.T  # (chunk, m)
    first, last = torch.searchsorted(sorted_ids, own), torch.searchsorted(sorted_ids, own, right=True)
    for offset in range(int((last - first).max())):  # one place, or two where images and texts are searched
        at = (first + offset < last).nonzero()[:, 0]
        similarity[at, order[first[at] + offset]] = -torch.inf
    best, index = similarity.topk(k)
    squared = (2 - 2 * best).clamp_min(0)
    close = (squared < CLOSE).nonzero(as_tuple=True)
    squared[close] = (asked[close[0]] - rows[index[close]]).square().sum(1)
    distances, place = squared.sqrt().clamp_min(FLOOR).sort(dim=1)
    lost = asked.norm(dim=1) < 0.5  # a zero row, or one that is not finite, has no direction
    distances[lost | ~torch.isfinite(distances).all(1)] = torch.nan
    return Neighbours(distances, index.gather(1, place))


def own_radius(reference: PairFeatures, k: int, modality: Modality) -> Tensor:
    """Distance of every reference row to its own k-th neighbour in the reference: ``float (m,)``, or ``(2 m,)`` for both."""
    return _own(reference, k, modality).distances[:, -1]


def neighbour_dimension(distances: Tensor) -> Tensor:
    """Local intrinsic dimensionality by maximum likelihood from distances ``(n, k)`` in ascending order: ``float (n,)``.

    LID = -k / sum_i log(d_i / d_k). Where all distances agree it is without bound; it is cut at 10,000.
    """
    k = distances.shape[1]
    return k / (distances[:, -1:] / distances).log().sum(1).clamp_min(k * 1e-4)


def own_dimension(reference: PairFeatures, k: int, modality: Modality) -> Tensor:
    """LID of every reference row within the reference: as :func:`own_radius`."""
    return neighbour_dimension(_own(reference, k, modality).distances)


def _own(reference: PairFeatures, k: int, modality: Modality) -> Neighbours:
    if modality != "both":
        return nearest(reference, reference, k, modality)
    parts = [nearest(asked, reference, k, "both") for asked in (reference, reference.texts)]
    return Neighbours(torch.cat([p.distances for p in parts]), torch.cat([p.index for p in parts]))
