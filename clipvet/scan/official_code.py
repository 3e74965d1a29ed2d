"""SLOF and DAO as the published code computes them, slips included: for comparison only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clipvet.scan.base import PairFeatures, PairScorer

__all__ = ["OFFICIAL", "OfficialDao", "OfficialSlof", "official_dao", "official_slof"]


def official_slof(features: Tensor, k: int = 16) -> Tensor:
    """SLOF of every row of a batch that is its own reference, as published: ``(n, d)`` to ``(n,)``.

    Differs from the formula in two ways. The radius of a query is the distance to its neighbour k + 1, that of a neighbour to its
    neighbour k. A neighbour's place among the *other* rows is taken for its row, so every neighbour that stands behind the query
    is replaced by the row before it.

    Reference: Huang et al., ICLR 2025 (arXiv 2502.01385), ``backdoor_sample_detector/slof.py``.
    """
    radius, own, _, row = _distances(features, k)
    return (radius[:, None] / own[row]).mean(1)


def official_dao(features: Tensor, k: int = 16) -> Tensor:
    """DAO of every row of a batch that is its own reference, as published; see :func:`official_slof`.

    The sum of logarithms of a neighbour's dimension includes its distance to itself, zero, to which 1e-4 is added.
    """
    radius, own, dimension, row = _distances(features, k)
    return (dimension[row] * (radius[:, None] / own[row]).log()).mean(1)


def _distances(features: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Radius per query, radius and dimension per row as a neighbour, and the rows taken for the neighbours ``(n, k)``."""
    n = len(features)
    full = torch.cdist(features, features)
    others = full[~torch.eye(n, dtype=torch.bool, device=full.device)].view(n, n - 1)
    far, row = others.sort(dim=1)
    near = full.sort(dim=1).values
    dimension = -k / (near[:, :k] / near[:, k : k + 1] + 1e-4).log().sum(1)
    return far[:, k], near[:, k], dimension, row[:, :k]


def _among_themselves(formula: Callable[[Tensor, int], Tensor], queries: PairFeatures, k: int) -> Tensor:
    """Score a batch that is its own reference; too small a one is not scored."""
    features = queries.of("image")
    return formula(features, k) if len(features) > k + 1 else torch.full((len(features),), torch.nan)


@dataclass(frozen=True, kw_only=True)
class OfficialSlof:
    """:func:`official_slof` of the queries among themselves: the reference is not used, and a score depends on the batch."""

    name: ClassVar[str] = "slof"
    k: int = 16

    def score(self, queries: PairFeatures, reference: PairFeatures) -> Tensor:
        """Score a batch; see :class:`clipvet.scan.base.PairScorer`."""
        return _among_themselves(official_slof, queries, self.k)


@dataclass(frozen=True, kw_only=True)
class OfficialDao:
    """:func:`official_dao` of the queries among themselves; see :class:`OfficialSlof`."""

    name: ClassVar[str] = "dao"
    k: int = 16

    def score(self, queries: PairFeatures, reference: PairFeatures) -> Tensor:
        """Score a batch; see :class:`clipvet.scan.base.PairScorer`."""
        return _among_themselves(official_dao, queries, self.k)


OFFICIAL: dict[str, type[PairScorer]] = {"slof": OfficialSlof, "dao": OfficialDao}
