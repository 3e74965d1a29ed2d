"""SLOF against the densest neighbours and the gap between two models' CLIP scores, added on one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakKeyDictionary

from torch import Tensor

from clipvet.scan.base import Modality, PairFeatures, PairScorer
from clipvet.scan.clip_gap import ClipGap
from clipvet.scan.neighbours import NeighbourScorer
from clipvet.scan.slof_dense import SlofDense

__all__ = ["SlofDenseClipGap", "standardised"]

NORMAL = 1.4826  # times the median absolute deviation: the standard deviation, where values are normal
LEAST = 5e-4  # of the deviation, as half-precision features round: in a reference of copies nothing deviates
# A reference's scores among its own pairs, which every stretch of a shard is set against.
_USUAL: WeakKeyDictionary[PairFeatures, dict[PairScorer, Tensor]] = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class SlofDenseClipGap(NeighbourScorer):
    """The sum of ``slof-dense`` and ``clip-gap``, each in standard deviations from the reference's median.

    Score: ``z(slof-dense) + z(clip-gap)``, where ``z(s) = (s - median) / (1.4826 * median absolute deviation)`` over the scores of
    the reference's own pairs. One part asks whether an image lies among others like it, the other whether the caption fits;
    poisoned pairs stand out in both, and few others do. Median and deviation hardly move while poison in the reference is rare.

    Attributes:
        k: neighbours; must exceed the number of poisoned pairs of one kind in the reference.
        modality: features that are compared.

    Fails when: as :class:`clipvet.scan.slof_dense.SlofDense` and :class:`clipvet.scan.clip_gap.ClipGap`; a pair that is extreme in
        one part needs nothing of the other.

    Reference: own. Chosen among several ways to put the two together, on patch attacks on the pocket. A score needs the pair and
        the reference alone, and no pass over all scores.
    """

    name: ClassVar[str] = "slof-dense+clip-gap"
    k: int = 16
    modality: Modality = "image"

    def score(self, queries: PairFeatures, reference: PairFeatures) -> Tensor:
        """Score ``queries`` against ``reference``; see :class:`clipvet.scan.base.PairScorer`."""
        parts = (SlofDense(k=self.k, modality=self.modality), ClipGap())
        sparse, gap = (standardised(part.score(queries, reference), _usual(part, reference)) for part in parts)
        return sparse + gap


def _usual(part: PairScorer, reference: PairFeatures) -> Tensor:
    found = _USUAL.setdefault(reference, {})
    if part not in found:
        found[part] = part.score(reference, reference)
    return found[part]


def standardised(scores: Tensor, usual: Tensor) -> Tensor:
    """Scores in standard deviations from the median of the usual ones, both estimated robustly: ``(n,)``, ``(m,)`` to ``(n,)``."""
    middle = usual.nanquantile(0.5)
    spread = NORMAL * (usual - middle).abs().nanquantile(0.5)
    return (scores - middle) / spread.clamp_min(LEAST)
