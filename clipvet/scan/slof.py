"""Simplified local outlier factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clipvet.scan.base import Modality, PairFeatures
from clipvet.scan.neighbours import NeighbourScorer, nearest, own_radius

__all__ = ["Slof"]


@dataclass(frozen=True, kw_only=True)
class Slof(NeighbourScorer):
    """How much sparser a pair's neighbourhood is than its neighbours' own.

    Score: ``mean over the k neighbours y of d_k(x) / d_k(y)``, the radius of each within the reference.

    Attributes:
        k: neighbours; must exceed the number of poisoned pairs of one kind in the reference.
        modality: features that are compared.

    Fails when: the reference holds k or more poisoned pairs of one kind, which are then each other's neighbours; the features do
        not set the trigger apart.

    Reference: Schubert et al., 2014; used on CLIP features by Huang et al., ICLR 2025 (arXiv 2502.01385). Differs: the formula,
        not the published code, which takes the radius of the query from one neighbour further out than that of its neighbours and
        mistakes places among the others for rows (:mod:`clipvet.scan.official_code` repeats that for comparison).
    """

    name: ClassVar[str] = "slof"
    k: int = 16
    modality: Modality = "image"

    def score(self, queries: PairFeatures, reference: PairFeatures) -> Tensor:
        """Score ``queries`` against ``reference``; see :class:`clipvet.scan.base.PairScorer`."""
        near = nearest(queries, reference, self.k, self.modality)
        radius = own_radius(reference, self.k, self.modality)[near.index]  # (n, k)
        return (near.distances[:, -1:] / radius).mean(1)
