"""Dimensionality-aware outlier score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clipvet.scan.base import Modality, PairFeatures
from clipvet.scan.neighbours import NeighbourScorer, nearest, own_dimension, own_radius

__all__ = ["Dao"]


@dataclass(frozen=True, kw_only=True)
class Dao(NeighbourScorer):
    """The local outlier factor with the local dimension of each neighbour taken into account.

    Score: ``mean over the k neighbours y of LID(y) * log(d_k(x) / d_k(y))``: the logarithm of a ratio of densities in a space of
    the neighbour's own dimension.

    Attributes:
        k: neighbours; must exceed the number of poisoned pairs of one kind in the reference.
        modality: features that are compared.

    Fails when: as :class:`clipvet.scan.slof.Slof`; the dimension, estimated from k distances, is noisy for small k.

    Reference: Anderberg et al., 2024; used on CLIP features by Huang et al., ICLR 2025 (arXiv 2502.01385). Differs: the formula,
        as :class:`clipvet.scan.slof.Slof`.
    """

    name: ClassVar[str] = "dao"
    k: int = 16
    modality: Modality = "image"

    def score(self, queries: PairFeatures, reference: PairFeatures) -> Tensor:
        """Score ``queries`` against ``reference``; see :class:`clipvet.scan.base.PairScorer`."""
        near = nearest(queries, reference, self.k, self.modality)
        radius = own_radius(reference, self.k, self.modality)[near.index]  # (n, k)
        dimension = own_dimension(reference, self.k, self.modality)[near.index]
        return (dimension * (near.distances[:, -1:] / radius).log()).mean(1)
