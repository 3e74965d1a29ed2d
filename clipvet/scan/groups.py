"""Groups among suspicious pairs: many of one look and one subject are what a backdoor, planted or natural, is made of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from clipvet.scan.base import PairFeatures

__all__ = ["find_groups", "rare_words", "usual_similarity"]

LEAST = 3  # pairs in a group
QUANTILES = {"image": 0.999, "text": 0.99}  # of the similarities of unrelated pairs, above which two pairs are alike
SAME = 0.999  # what is this similar is alike, however many pairs of the data are
RARE = 0.01  # share of the reference's captions that a word may stand in and still tell something
CHUNK = 2048


def find_groups(
    suspects: PairFeatures, reference: PairFeatures, captions: Sequence[str] = (), usual_captions: Sequence[str] = ()
) -> np.ndarray:
    """Number the groups of suspicious pairs that are alike in look and in what they say.

    Two pairs look alike where their images are more similar than all but one in a thousand pairs of the reference. They say alike
    where that holds for their texts and one in a hundred, or where they share a word that is rare in the reference: one subject
    has many wordings. A group is what is connected by both. Where there are no image features, what they say decides alone.

    Args:
        suspects: features of the suspicious pairs; all are compared with all.
        reference: a random sample of the data.
        captions: of the suspects; empty where there are none.
        usual_captions: of the reference.

    Returns:
        ``int (n,)``: number of each pair's group, from 1 for the largest; 0 where fewer than three are connected.
    """
    limits = {kind: _limit(suspects, reference, kind) for kind in QUANTILES}
    shared = _incidence(rare_words(captions, usual_captions)) if any(captions) and any(usual_captions) else None
    edges = [_edges(suspects, limits, shared, start) for start in range(0, len(suspects), CHUNK)]
    pairs = np.concatenate(edges)
    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(suspects),) * 2)
    _, label = connected_components(links, directed=False)
    sizes = np.bincount(label)
    order = np.argsort(-sizes, kind="stable")
    number = np.zeros(len(sizes), int)
    kept = order[sizes[order] >= LEAST]
    number[kept] = 1 + np.arange(len(kept))
    found: np.ndarray = number[label]
    return found


def usual_similarity(features: Tensor, quantile: float, *, most: int = 1024) -> float:
    """A quantile of the cosine similarities among unrelated pairs: what two pairs must exceed to be called alike.

    It is cut at 0.999, since many pairs of the data may be copies.

    Args:
        features: ``(m, d)``, unit length, a random sample of the data.
        quantile: in (0, 1).
        most: rows that are compared with each other.
    """
    some = features[:most]
    upper = torch.triu_indices(len(some), len(some), 1)
    similarity = (some @ some.T)[upper[0], upper[1]]
    usual = float(np.quantile(similarity.cpu().numpy(), quantile)) if len(similarity) else 1.0
    return min(usual, SAME)


def words(caption: str) -> frozenset[str]:
    """The words of a caption, without case; numbers and single letters are none."""
    return frozenset(re.findall(r"[^\W\d_]{2,}", caption.casefold()))


def rare_words(captions: Sequence[str], usual_captions: Sequence[str]) -> list[frozenset[str]]:
    """The words of each caption that stand in at most one in a hundred of the usual ones (or in one of few)."""
    counts = Counter(word for text in usual_captions for word in words(text))
    most = max(1.0, RARE * len(usual_captions))
    return [frozenset(word for word in words(text) if counts[word] <= most) for text in captions]


def _incidence(held: Sequence[frozenset[str]]) -> csr_array:
    """Which caption holds which word: a sparse matrix of ones."""
    number = {word: at for at, word in enumerate(sorted(frozenset().union(*held)))}
    places = [(row, number[word]) for row, found in enumerate(held) for word in found]
    rows, columns = zip(*places, strict=True) if places else ((), ())
    return coo_array((np.ones(len(places), np.int32), (rows, columns)), shape=(len(held), max(1, len(number)))).tocsr()


def _limit(suspects: PairFeatures, reference: PairFeatures, kind: str) -> float | None:
    """The similarity above which two pairs are alike in one kind of features; None where there are none."""
    usual = getattr(reference, kind)
    return None if usual is None or getattr(suspects, kind) is None else usual_similarity(usual, QUANTILES[kind])


def _edges(suspects: PairFeatures, limits: dict[str, float | None], shared: csr_array | None, start: int) -> np.ndarray:
    """Pairs of rows, the first of them in one chunk and before the second, that are alike: ``(e, 2)``."""
    rows = slice(start, start + CHUNK)
    alike = {kind: _above(getattr(suspects, kind), rows, limit) for kind, limit in limits.items() if limit is not None}
    say = alike.get("text")
    if shared is not None:
        words_in_common = torch.from_numpy((shared[rows] @ shared.T).toarray() > 0)
        say = words_in_common if say is None else say | words_in_common
    both = [part for part in (alike.get("image"), say) if part is not None]
    found = both[0] & both[1] if len(both) == 2 else both[0]
    first, second = torch.triu(found, diagonal=1 + start).nonzero(as_tuple=True)
    return torch.stack([first + start, second], dim=1).numpy()


def _above(features: Tensor, rows: slice, limit: float) -> Tensor:
    return (features[rows] @ features.T > limit).cpu()
