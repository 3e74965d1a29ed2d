"""Scorers of image-text pairs, one paper each, and what runs them over a data set."""

from clipvet.scan.base import PairScorer, PixelScorer
from clipvet.scan.clip_gap import ClipGap
from clipvet.scan.clip_score import ClipScore
from clipvet.scan.cognitive_distillation import CognitiveDistillation
from clipvet.scan.dao import Dao
from clipvet.scan.isolation_forest import IsolationForest
from clipvet.scan.k_distance import KDistance
from clipvet.scan.lid import Lid
from clipvet.scan.slof import Slof
from clipvet.scan.slof_dense import SlofDense
from clipvet.scan.slof_dense_clip_gap import SlofDenseClipGap

__all__ = [
    "ALL_SCORERS",
    "PIXEL_SCORERS",
    "SCORERS",
    "TRUSTED_SCORERS",
    "ClipGap",
    "ClipScore",
    "CognitiveDistillation",
    "Dao",
    "IsolationForest",
    "KDistance",
    "Lid",
    "PairScorer",
    "PixelScorer",
    "Slof",
    "SlofDense",
    "SlofDenseClipGap",
]

TRUSTED_SCORERS: dict[str, type[PairScorer]] = {cls.name: cls for cls in (SlofDenseClipGap, ClipGap)}  # of two models' features
SCORERS: dict[str, type[PairScorer]] = {
    **{cls.name: cls for cls in (SlofDense, Dao, Slof, KDistance, Lid, IsolationForest, ClipScore)},
    **TRUSTED_SCORERS,
}
PIXEL_SCORERS: dict[str, type[PixelScorer]] = {cls.name: cls for cls in (CognitiveDistillation,)}
ALL_SCORERS: dict[str, type[PairScorer] | type[PixelScorer]] = {**SCORERS, **PIXEL_SCORERS}
