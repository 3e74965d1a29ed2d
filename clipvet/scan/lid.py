"""Local intrinsic dimensionality of a pair's neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clipvet.scan.base import Modality, PairFeatures
from clipvet.scan.neighbours import NeighbourScorer, nearest, neighbour_dimension

__all__ = ["Lid"]


@dataclass(frozen=True, kw_only=True)
class Lid(NeighbourScorer):
    """Maximum-likelihood estimate of the local intrinsic dimensionality from the distances to k neighbours.

    Score: ``-k / sum_i log(d_i(x) / d_k(x))``.

    Attributes:
        k: neighbours that the estimate rests on; the published scripts take 64.
        modality: features that are compared.

    Fails when: few neighbours make the estimate noisy; poisoned pairs lie on a surface of the same dimension as clean ones.

    Reference: Amsaleg et al., 2015; used on CLIP features by Huang et al., ICLR 2025 (arXiv 2502.01385). Differs: the
        neighbourhood's radius is the k-th distance; the published code takes the (k+1)-th.
    """

    name: ClassVar[str] = "lid"
    k: int = 64
    modality: Modality = "image"

    def score(self, queries: PairFeatures, reference: PairFeatures) -> Tensor:
        """Score ``queries`` against ``reference``; see :class:`clipvet.scan.base.PairScorer`."""
        return neighbour_dimension(nearest(queries, reference, self.k, self.modality).distances)
