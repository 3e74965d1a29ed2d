"""Isolation forest on the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from clipvet.errors import MissingExtraError, UsageError
from clipvet.scan.base import PairFeatures

__all__ = ["IsolationForest"]


@dataclass(frozen=True, kw_only=True)
class IsolationForest:
    """How few random cuts set a pair's features apart from the reference; scikit-learn's implementation.

    Attributes:
        trees: number of trees.
        modality: features that are cut.
        seed: of the trees.

    Raises:
        MissingExtraError: scikit-learn is not installed.

    Fails when: outliers do not stand out along single axes, as is common for features of many dimensions.

    Reference: Liu et al., 2008; as a baseline in Huang et al., ICLR 2025 (arXiv 2502.01385). Differs: the sign, so that higher is
        more suspicious.
    """

    name: ClassVar[str] = "isolation-forest"
    trees: int = 100
    modality: Literal["image", "text"] = "image"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trees < 1 or self.modality not in ("image", "text"):
            raise UsageError(f"expected trees, and features out of image, text, got {self.trees} and {self.modality!r}")

    def score(self, queries: PairFeatures, reference: PairFeatures) -> Tensor:
        """Score ``queries`` against ``reference``; see :class:`clipvet.scan.base.PairScorer`."""
        try:
            from sklearn.ensemble import IsolationForest as Forest
        except ImportError as error:
            raise MissingExtraError(
                "expected scikit-learn for this scorer, found none: pip install 'clipvet[baselines]'"
            ) from error
        forest = Forest(n_estimators=self.trees, random_state=self.seed).fit(reference.of(self.modality).cpu().numpy())
        asked = queries.of(self.modality)
        usable = torch.isfinite(asked).all(1) & (asked.norm(dim=1) > 0.5)
        scores = torch.full((len(asked),), torch.nan)
        if usable.any():
            found = torch.from_numpy(forest.score_samples(asked[usable].cpu().numpy()))
            scores[usable.cpu()] = -found.float()
        return scores.to(asked.device)
