"""Every number of clipvet.metrics against scipy, a loop or a count made by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from clipvet import metrics


def test_accuracy_and_asr_by_hand() -> None:
    labels = torch.tensor([0, 1, 2, 2, 1])
    predicted = torch.tensor([0, 2, 2, 1, 2])
    assert metrics.accuracy(predicted, labels) == pytest.approx(2 / 5)
    # of the three images that are not of class 2, two are called 2; images of the target itself do not count
    assert metrics.attack_success_rate(predicted, labels, 2) == pytest.approx(2 / 3)
    assert metrics.attack_success_rate(predicted, labels, 0) == 0


def test_asr_is_not_a_number_where_every_image_is_of_the_target() -> None:
    assert math.isnan(metrics.attack_success_rate(torch.tensor([1, 1]), torch.tensor([1, 1]), 1))


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_predict_does_not_depend_on_the_batch(batch: int) -> None:
    images = torch.rand(7, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(48, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    sizes = []

    def classifier(part: torch.Tensor) -> torch.Tensor:
        sizes.append(len(part))
        return part.flatten(1) @ weight

    predicted = metrics.predict(classifier, images, batch=batch)
    one_by_one = [int((image.flatten() @ weight.detach()).argmax()) for image in images]
    assert predicted.tolist() == one_by_one
    assert not predicted.requires_grad
    assert max(sizes) <= batch


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_the_mann_whitney_statistic(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = rng.integers(0, 6, 17).astype(float), rng.integers(2, 9, 11).astype(float)  # many ties
    expected = stats.mannwhitneyu(high, low).statistic / (len(low) * len(high))
    assert metrics.auroc(low.tolist(), high.tolist()) == pytest.approx(expected)
    wins = sum((h > n) + 0.5 * (h == n) for h, n in itertools.product(high, low))
    assert metrics.auroc(low.tolist(), high.tolist()) == pytest.approx(wins / (len(low) * len(high)))


def test_auroc_at_its_ends() -> None:
    assert metrics.auroc([1, 2], [3, 4]) == 1
    assert metrics.auroc([3, 4], [1, 2]) == 0
    assert metrics.auroc([1, 1], [1]) == 0.5
    assert math.isnan(metrics.auroc([], [1]))
    assert math.isnan(metrics.auroc([1], []))


@pytest.mark.parametrize(("statistic", "expected"), [(10.0, 1 / 5), (4.0, 2 / 5), (2.5, 3 / 5), (0.0, 5 / 5)])
def test_p_value_by_hand(statistic: float, expected: float) -> None:
    assert metrics.p_value(statistic, [1.0, 2.0, 3.0, 4.0]) == pytest.approx(expected)


def test_p_value_against_a_loop_and_never_zero() -> None:
    null = np.random.default_rng(3).normal(size=99).tolist()
    for statistic in (-3.0, 0.1, 2.2, 50.0):
        assert metrics.p_value(statistic, null) == pytest.approx((1 + sum(value >= statistic for value in null)) / 100)
    assert metrics.p_value(50.0, null) == pytest.approx(0.01)
    assert metrics.p_value(0.0, []) == 1


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (1, 3), (37, 40), (200, 1000)])
def test_wilson_against_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    low, high = metrics.wilson_interval(successes, n)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_wilson_of_nothing_is_everything() -> None:
    assert metrics.wilson_interval(0, 0) == (0, 1)


def test_bootstrap_against_scipy_where_every_value_is_its_own_cluster() -> None:
    values = np.random.default_rng(0).normal(5, 2, size=60)
    found = metrics.bootstrap_interval(values.tolist(), range(60), draws=20_000)
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), abs=0.03)


def test_bootstrap_resamples_clusters_and_not_values() -> None:
    # two pictures, seen 50 times each: only their two means vary, so the interval spans both
    values, pictures = [0.0] * 50 + [1.0] * 50, ["a"] * 50 + ["b"] * 50
    assert metrics.bootstrap_interval(values, pictures) == (0, 1)
    low, high = metrics.bootstrap_interval(values, range(100))
    assert 0.35 < low < 0.45 < 0.55 < high < 0.65


def test_bootstrap_weighs_clusters_by_their_size() -> None:
    # all equally likely draws of two clusters out of {three 1s, one 0}: means 1, 3/4 (twice) and 0
    values, clusters = [1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"]
    assert metrics.bootstrap_interval(values, clusters, level=0.4, draws=4000) == (0.75, 0.75)


def test_bootstrap_is_the_same_for_the_same_seed() -> None:
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    first = metrics.bootstrap_interval(values, range(5), seed=1, draws=300)
    assert first == metrics.bootstrap_interval(values, range(5), seed=1, draws=300)
    assert first != metrics.bootstrap_interval(values, range(5), seed=2, draws=300)


def test_bootstrap_needs_a_cluster_for_every_value() -> None:
    with pytest.raises(ValueError, match="shorter"):
        metrics.bootstrap_interval([1.0, 2.0], [1])


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.2, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["normal", "ties", "with gaps", "negative", "one"])
def test_the_share_threshold_is_the_smallest_that_few_enough_exceed(kind: str, rate: float) -> None:
    values = np.random.default_rng(0).normal(size=1 if kind == "one" else 997).astype(np.float32)
    values = {"ties": np.round(values), "negative": values - 100}.get(kind, values)
    if kind == "with gaps":
        values[::7], values[1], values[2] = np.nan, np.inf, -np.inf
    finite = values[np.isfinite(values)]
    wanted = min(v for v in finite if (finite > v).sum() <= math.floor(rate * len(finite)))
    assert metrics.share_threshold(lambda: np.array_split(values, 5), rate) == wanted


@pytest.mark.parametrize(("rate", "n", "wanted"), [(0.29, 100, 29), (0.01, 1000, 10), (0.01, 99, 0), (1.0, 7, 7), (0.5, 3, 1)])
def test_a_share_of_pairs_is_counted_as_in_decimals(rate: float, n: int, wanted: int) -> None:
    assert metrics.flaggable(rate, n) == wanted
    scores = np.arange(n, dtype=np.float32)
    assert (scores > metrics.share_threshold(lambda: [scores], rate)).sum() == min(wanted, n - 1)


def test_a_pair_without_a_score_was_not_found() -> None:
    assert metrics.fpr_at_tpr([0.1, 0.2], [0.5, math.nan], 0.5) == 0
    assert metrics.fpr_at_tpr([0.1, 0.2], [0.5, math.nan], 1.0) == 1
    assert metrics.fpr_at_tpr([0.1, math.nan], [0.5], 1.0) == 0


def test_the_share_threshold_of_nothing_is_infinite() -> None:
    assert metrics.share_threshold(lambda: [np.array([np.nan], np.float32)], 0.1) == math.inf


def test_fpr_at_tpr_equals_a_count() -> None:
    clean, bad = [0.1, 0.2, 0.3, 0.7, 0.9], [0.25, 0.5, 0.8, 0.85]
    assert metrics.fpr_at_tpr(clean, bad, 1.0) == pytest.approx(3 / 5)  # all four from 0.25 on: 0.3, 0.7 and 0.9 too
    assert metrics.fpr_at_tpr(clean, bad, 0.75) == pytest.approx(2 / 5)  # three from 0.5 on
    assert metrics.fpr_at_tpr(clean, bad, 0.7) == pytest.approx(2 / 5)  # 70 % of four are three
    assert math.isnan(metrics.fpr_at_tpr([], bad))


def test_the_clean_threshold_keeps_its_promise_on_average() -> None:
    rng = np.random.default_rng(0)
    flagged = [rng.normal() > metrics.clean_threshold(rng.normal(size=99), 0.1) for _ in range(4000)]
    assert np.mean(flagged) == pytest.approx(0.1, abs=0.015)


def test_the_clean_threshold_by_hand() -> None:
    assert metrics.clean_threshold(range(1, 10), 0.1) == 9  # the 9th of 9: one in ten
    assert metrics.clean_threshold(range(1, 10), 0.05) == math.inf  # nine resolve no finer than one in ten
