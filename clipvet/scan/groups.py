"""Groups among suspicious pairs: many of one caption and one look are what a backdoor, planted or natural, is made of."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from clipvet.scan.base import PairFeatures

__all__ = ["find_groups", "usual_similarity"]

LEAST = 3  # pairs in a group
QUANTILES = {"image": 0.999, "text": 0.99}  # of the similarities of unrelated pairs, above which two pairs are alike
SAME = 0.999  # what is this similar is alike, however many pairs of the data are
CHUNK = 2048


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


def find_groups(suspects: PairFeatures, reference: PairFeatures) -> np.ndarray:
    """Number the groups of suspicious pairs that are alike in image and, where there are texts, in text.

    Two pairs are alike where their images are more similar than all but one in a thousand pairs of the reference, and their texts
    than all but one in a hundred (one caption has many wordings); a group is what is connected by that.

    Args:
        suspects: features of the suspicious pairs.
        reference: a random sample of the data.

    Returns:
        ``int (n,)``: number of each pair's group, from 1 for the largest; 0 where fewer than three are connected.
    """
    kinds = [kind for kind in QUANTILES if _both(suspects, reference, kind)]
    links = [_links(getattr(suspects, kind), usual_similarity(getattr(reference, kind), QUANTILES[kind])) for kind in kinds]
    alike = links[0].multiply(links[1]) if len(links) == 2 else links[0]
    _, label = connected_components(alike, directed=False)
    sizes = np.bincount(label)
    order = np.argsort(-sizes, kind="stable")
    number = np.zeros(len(sizes), int)
    kept = order[sizes[order] >= LEAST]
    number[kept] = 1 + np.arange(len(kept))
    found: np.ndarray = number[label]
    return found


def _both(suspects: PairFeatures, reference: PairFeatures, kind: str) -> bool:
    return getattr(suspects, kind) is not None and getattr(reference, kind) is not None


def _links(features: Tensor, limit: float) -> coo_array:
    """Which rows are alike, as a sparse matrix of ones, found in chunks."""
    found = [
        torch.nonzero(part @ features.T > limit) + torch.tensor([start, 0], device=features.device)
        for start, part in zip(range(0, len(features), CHUNK), features.split(CHUNK), strict=True)
    ]
    pairs = torch.cat(found).cpu().numpy()
    return coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(features),) * 2).tocsr()
