"""ASR, CA, TA, AUROC, thresholds and intervals: judged here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "accuracy",
    "attack_success_rate",
    "auroc",
    "bootstrap_interval",
    "clean_threshold",
    "flaggable",
    "fpr_at_tpr",
    "p_value",
    "predict",
    "share_threshold",
    "wilson_interval",
]


@torch.no_grad()
def predict(classifier: Callable[[Tensor], Tensor], images: Tensor, *, batch: int = 128) -> Tensor:
    """Classify ``(n, 3, h, w)`` in batches and return the predicted classes ``(n,)``."""
    return torch.cat([classifier(part).argmax(1) for part in images.split(batch)])


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of predictions that equal the labels; CA on clean images, TA on triggered ones."""
    return float((predicted == labels).float().mean())


def attack_success_rate(predicted: Tensor, labels: Tensor, target: int) -> float:
    """Share of triggered images of *other* classes that are predicted as the target; NaN where there is none."""
    other = labels != target
    return float((predicted[other] == target).float().mean()) if other.any() else float("nan")


def auroc(negatives: Sequence[float], positives: Sequence[float]) -> float:
    """Probability that a positive scores above a negative, ties counted half (Mann-Whitney)."""
    low, high = np.asarray(negatives, dtype=float), np.asarray(positives, dtype=float)
    if not len(low) or not len(high):
        return float("nan")
    above = (high[:, None] > low[None]).mean() + 0.5 * (high[:, None] == low[None]).mean()
    return float(above)


def fpr_at_tpr(negatives: Sequence[float], positives: Sequence[float], tpr: float = 0.95) -> float:
    """Share of negatives at or above the highest threshold that at least ``tpr`` of the positives reach; NaN was not found."""
    low, high = (np.nan_to_num(np.asarray(values, dtype=float), nan=-np.inf) for values in (negatives, positives))
    high = np.sort(high)[::-1]
    if not len(low) or not len(high):
        return float("nan")
    limit = high[int(np.ceil(tpr * len(high))) - 1]
    return float((low >= limit).mean())


def flaggable(rate: float, n: int) -> int:
    """How many of ``n`` pairs a share of ``rate`` is at most; 29 % of 100 are 29, whatever binary fractions make of it."""
    return int(np.floor(round(rate * n, 9)))


def share_threshold(scores: Callable[[], Iterable[np.ndarray]], rate: float) -> float:
    """The smallest score that at most ``rate`` of all finite scores exceed, however many there are; infinity where there is none.

    Args:
        scores: yields all scores in parts, float32; called twice, so that no more than a part is held at a time.
        rate: in [0, 1].

    Whatever share of the pairs is poisoned, at most ``rate`` times the number of pairs is flagged with it.
    """
    high = np.zeros(1 << 16, np.int64)
    for part in scores():
        high += np.bincount(_ordered(part) >> 16, minlength=1 << 16)
    allowed = flaggable(rate, int(high.sum()))
    if not high.sum():
        return float("inf")
    above = np.concatenate([np.cumsum(high[::-1])[::-1][1:], [0]])  # scores in higher bins
    chosen = int(np.flatnonzero((above <= allowed) & (high > 0))[0])
    low = np.zeros(1 << 16, np.int64)
    for part in scores():
        order = _ordered(part)
        low += np.bincount(order[order >> 16 == chosen] & 0xFFFF, minlength=1 << 16)
    beyond = above[chosen] + np.concatenate([np.cumsum(low[::-1])[::-1][1:], [0]])
    fine = int(np.flatnonzero((beyond <= allowed) & (low > 0))[0])
    return _value((chosen << 16) | fine)


def _ordered(scores: np.ndarray) -> np.ndarray:
    """Whole numbers in the order of the finite scores: a float's bits, the negative ones turned around."""
    bits = scores[np.isfinite(scores)].astype(np.float32).view(np.uint32).astype(np.int64)
    ordered: np.ndarray = np.where(bits >> 31, 0xFFFFFFFF - bits, bits | 0x80000000)
    return ordered


def _value(order: int) -> float:
    bits = order & 0x7FFFFFFF if order >> 31 else 0xFFFFFFFF - order
    return float(np.array(bits, np.uint32).view(np.float32))


def clean_threshold(scores: Sequence[float], rate: float) -> float:
    """The score that a further pair like these m trusted ones exceeds with probability of at most ``rate`` (split conformal).

    Infinity where m is too small for that: a rate of 1 % takes at least 99.
    """
    ordered = np.sort(np.asarray(scores, dtype=float))
    place = int(np.ceil((1 - rate) * (len(ordered) + 1)))
    return float(ordered[place - 1]) if place <= len(ordered) else float("inf")


def p_value(statistic: float, null: Sequence[float]) -> float:
    """One-sided permutation p-value ``(1 + #{null >= statistic}) / (1 + M)``; its floor is 1 / (M + 1)."""
    values = np.asarray(null, dtype=float)
    return float((1 + (values >= statistic).sum()) / (1 + len(values)))


def wilson_interval(successes: int, n: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion, 95 % unless ``z`` says otherwise; (0, 1) where n is 0."""
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def bootstrap_interval(
    values: Sequence[float], clusters: Sequence[object], *, seed: int = 0, draws: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean, resampling whole clusters (pictures, tasks) with replacement."""
    groups: dict[object, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(float(value))
    sums = np.array([sum(g) for g in groups.values()])
    counts = np.array([len(g) for g in groups.values()])
    rng = np.random.default_rng(seed)
    pick = rng.integers(len(sums), size=(draws, len(sums)))
    means = sums[pick].sum(1) / counts[pick].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
