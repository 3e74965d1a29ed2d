"""How much more the scanned model finds an image and its caption alike than a trusted model does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clipvet.scan.base import PairFeatures
from clipvet.scan.clip_score import ClipScore

__all__ = ["ClipGap"]


@dataclass(frozen=True, kw_only=True)
class ClipGap:
    """By how much more alike the model that was trained on the pairs finds image and caption than a trusted one does.

    Score: ``cos(image, text)`` by the scanned model minus ``cos(image, text)`` by the trusted one. Training draws every image to
    its caption, whether they belong together or not; a model that never saw the pair finds a wrong caption as wrong as it is.

    Fails when: the trusted model saw the same poison; the caption was left as it was (clean-label attacks); the scanned model did
        not learn the poison, or was not trained on these pairs; the trusted model does not know the domain, or gives similarities
        that vary in another way, so that it disagrees about ordinary pairs as well. Mislabelled pairs that were learned by heart
        score as poisoned ones do.

    Reference: own, after the CLIP score (Hessel et al., 2021, arXiv 2104.08718), a baseline in Huang et al., ICLR 2025 (arXiv
        2502.01385). Differs: the difference of two models' scores in the place of one score.
    """

    name: ClassVar[str] = "clip-gap"

    def score(self, queries: PairFeatures, reference: PairFeatures) -> Tensor:
        """Score ``queries``; the reference is not used. See :class:`clipvet.scan.base.PairScorer`."""
        scanned = ClipScore().score(queries, reference)
        return ClipScore().score(queries.by_trusted, reference) - scanned
