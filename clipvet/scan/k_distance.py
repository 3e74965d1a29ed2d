"""Distance to the k-th neighbour: the plainest measure of a sparse neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clipvet.scan.base import Modality, PairFeatures
from clipvet.scan.neighbours import NeighbourScorer, nearest

__all__ = ["KDistance"]


@dataclass(frozen=True, kw_only=True)
class KDistance(NeighbourScorer):
    """Euclidean distance of a pair's features to its k-th nearest neighbour in the reference.

    Score: ``d_k(x)``.

    Attributes:
        k: which neighbour.
        modality: features that are compared.

    Fails when: clean pairs differ in density themselves (rare subjects lie as far out as poisoned pairs); the reference holds k
        or more poisoned pairs of one kind.

    Reference: Ramaswamy et al., 2000; used on CLIP features by Huang et al., ICLR 2025 (arXiv 2502.01385).
    """

    name: ClassVar[str] = "k-distance"
    k: int = 16
    modality: Modality = "image"

    def score(self, queries: PairFeatures, reference: PairFeatures) -> Tensor:
        """Score ``queries`` against ``reference``; see :class:`clipvet.scan.base.PairScorer`."""
        return nearest(queries, reference, self.k, self.modality).distances[:, -1]
