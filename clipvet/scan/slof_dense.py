"""Simplified local outlier factor against the densest of the neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clipvet.errors import UsageError
from clipvet.scan.base import Modality, PairFeatures
from clipvet.scan.neighbours import NeighbourScorer, nearest, own_radius

__all__ = ["SlofDense"]

LEAST = 3  # the densest of all is an accident


@dataclass(frozen=True, kw_only=True)
class SlofDense(NeighbourScorer):
    """How much sparser a pair's neighbourhood is than those of the densest of its neighbours.

    Score: ``d_k(x) / r``, where ``r`` is the ``share * k``-th smallest ``d_k(y)`` among the k neighbours y, rounded and at least
    the third; the radius of each within the reference.

    SLOF takes the mean of the ratio over all neighbours. Poisoned pairs have each other among their neighbours, as sparse as they
    are, which draws that mean to one; rare subjects lie among others that are about as rare. The densest neighbours tell the two
    apart: a poisoned image is drawn beside the many that the trigger was made to resemble. It also matters less how far ``k``
    exceeds the poison in the reference.

    Attributes:
        k: neighbours; must exceed the number of poisoned pairs of one kind in the reference.
        modality: features that are compared.
        share: which of the neighbours, as a share of k, counts as the densest.

    Raises:
        UsageError: the share is not in (0, 1].

    Fails when: as :class:`clipvet.scan.slof.Slof`; a tenth of the data are copies of one image: what lies beside them then stands
        out. On a model that was trained from scratch until it knew its pairs by heart, Blended, whose
        trigger lies over the whole image, left its pairs as scattered as clean ones, and no score of neighbourhoods found them.

    Reference: own, after SLOF (Schubert et al., 2014) as used on CLIP features by Huang et al., ICLR 2025 (arXiv 2502.01385).
        Differs: a quantile in the place of the mean. The share was chosen on five attacks on the pocket.
    """

    name: ClassVar[str] = "slof-dense"
    k: int = 16
    modality: Modality = "image"
    share: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise UsageError(f"expected a share of the neighbours in (0, 1], got {self.share}: 0.05 takes the densest twentieth")

    def score(self, queries: PairFeatures, reference: PairFeatures) -> Tensor:
        """Score ``queries`` against ``reference``; see :class:`clipvet.scan.base.PairScorer`."""
        near = nearest(queries, reference, self.k, self.modality)
        radius = own_radius(reference, self.k, self.modality)[near.index]  # (n, k)
        return near.distances[:, -1] / radius.kthvalue(min(self.k, max(LEAST, round(self.share * self.k))), dim=1).values
