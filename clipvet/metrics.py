"""ASR, CA, TA, AUROC, thresholds and intervals: judged here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "accuracy",
    "attack_success_rate",
    "auroc",
    "bootstrap_interval",
    "p_value",
    "predict",
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
