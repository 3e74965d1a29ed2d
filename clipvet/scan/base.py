"""What a scorer is given and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal, Protocol
from weakref import WeakKeyDictionary

import torch.nn.functional as F
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.models.base import ClipModel

__all__ = ["Modality", "Neighbours", "PairFeatures", "PairScorer", "PixelScorer"]

Modality = Literal["image", "text", "both"]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The k nearest reference rows of each query.

    Attributes:
        distances: ``float (n, k)``, Euclidean, ascending; NaN where the query has no direction.
        index: ``long (n, k)``, rows of the reference (with ``both``, rows behind the images are texts).
    """

    distances: Tensor
    index: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PairFeatures:
    """Features of pairs; kept at unit length.

    Attributes:
        ids: ``long (n,)``, one number per pair, unique, the same wherever the pair appears: a query is never its own neighbour.
        image: ``float (n, d)``, or None.
        text: ``float (n, d)``, or None.
        trusted: features of the same pairs, in the same order, by a model that was not trained on them; or None.

    Raises:
        UsageError: the lengths differ, or there are neither image nor text features.
    """

    ids: Tensor
    image: Tensor | None = None
    text: Tensor | None = None
    trusted: PairFeatures | None = None
    # What was already looked up among these pairs: scorers that are given the same queries share it.
    near: WeakKeyDictionary[PairFeatures, dict[Modality, Neighbours]] = field(
        init=False, repr=False, default_factory=WeakKeyDictionary
    )

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.ids, self.image, self.text, self.trusted) if part is not None}
        if len(lengths) != 1 or (self.image is None and self.text is None):
            raise UsageError(f"expected image or text features, one row per id, got rows {sorted(lengths)}: give matching features")
        for name in ("image", "text"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, F.normalize(value.float(), dim=-1))

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, rows: Tensor) -> PairFeatures:
        """Those in some rows, ``long (m,)``, in that order."""
        image, text = (None if part is None else part[rows] for part in (self.image, self.text))
        trusted = None if self.trusted is None else self.trusted.at(rows)
        return PairFeatures(ids=self.ids[rows], image=image, text=text, trusted=trusted)

    @property
    def by_trusted(self) -> PairFeatures:
        """The features by the trusted model.

        Raises:
            UsageError: there are none.
        """
        if self.trusted is None:
            raise UsageError(
                "expected features by a trusted model, got none: name a CLIP that was not trained on these pairs with "
                "--trusted-model, or choose another scorer"
            )
        return self.trusted

    @cached_property
    def texts(self) -> PairFeatures:
        """The same pairs with the text features in the place of the image features."""
        return PairFeatures(ids=self.ids, image=self.of("text"))

    def of(self, modality: Literal["image", "text"]) -> Tensor:
        """Return the features of one kind: ``(n, d)``.

        Raises:
            UsageError: there are none.
        """
        found: Tensor | None = getattr(self, modality)
        if found is None:
            raise UsageError(f"expected {modality} features, got none: scan a source that has them, or choose another scorer")
        return found


class PairScorer(Protocol):
    """A score per pair: higher is more suspicious, NaN is not scored."""

    name: ClassVar[str]

    def score(self, queries: PairFeatures, reference: PairFeatures) -> Tensor:
        """Score ``queries`` against ``reference``: ``float (n,)``."""
        ...


class PixelScorer(Protocol):
    """A score per pair that needs the pixels and gradients of the model: higher is more suspicious."""

    name: ClassVar[str]

    def score_pixels(self, model: ClipModel, images: Tensor, texts: list[str], *, seed: int) -> Tensor:
        """Score ``images`` ``(n, 3, h, w)`` in [0, 1]: ``float (n,)``."""
        ...
