"""How little an image and its caption agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clipvet.scan.base import PairFeatures

__all__ = ["ClipScore"]


@dataclass(frozen=True, kw_only=True)
class ClipScore:
    """One minus the cosine similarity of image and caption.

    Score: ``1 - cos(image, text)``.

    Fails when: the model was trained on the poisoned pairs, which it has learnt to find similar; the caption was left as it was
        (clean-label attacks).

    Reference: Hessel et al., 2021 (arXiv 2104.08718); as a baseline in Huang et al., ICLR 2025 (arXiv 2502.01385). Differs: the
        sign, so that higher is more suspicious.
    """

    name: ClassVar[str] = "clip-score"

    def score(self, queries: PairFeatures, reference: PairFeatures) -> Tensor:
        """Score ``queries``; the reference is not used. See :class:`clipvet.scan.base.PairScorer`."""
        image, text = queries.of("image"), queries.of("text")
        cosine = (image * text).sum(1)
        lost = (image.norm(dim=1) < 0.5) | (text.norm(dim=1) < 0.5)  # a zero row has no direction
        return torch.where(lost, torch.nan, 1 - cosine)
