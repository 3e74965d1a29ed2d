"""Numbers before and after, against plain counts."""

from __future__ import annotations

import math

import pytest
import torch

from clipvet.repair.measuring import Predicted, compare_ca, compare_triggers, hold_out
from clipvet.types import Evidence

LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2])
OLD = Predicted(plain=LABELS.clone(), triggered=torch.tensor([[1, 1, 1, 1, 1, 1, 2, 0]]))
NEW = Predicted(plain=torch.tensor([0, 1, 1, 1, 2, 2, 2, 2]), triggered=torch.tensor([[0, 0, 1, 1, 2, 2, 1, 2]]))


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Both roots of (p - hits / n)^2 = z^2 p (1 - p) / n."""
    z, p = 1.959964, hits / n
    a, b, c = 1 + z * z / n, -(2 * p + z * z / n), p * p
    root = math.sqrt(b * b - 4 * a * c)
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def test_shares_are_counts_on_the_same_images() -> None:
    ca = compare_ca(OLD, NEW, LABELS)
    assert (ca.before, ca.after, ca.images) == (1.0, pytest.approx(7 / 8), 8)
    assert ca.after_interval == pytest.approx(wilson(7, 8))
    (row,) = compare_triggers(OLD, NEW, LABELS, [Evidence(target="b", target_index=1, trigger_kind="additive", statistic=3.0)])
    assert (row.asr.before, row.asr.after, row.asr.images) == (pytest.approx(4 / 6), pytest.approx(1 / 6), 6)
    assert row.asr.before_interval == pytest.approx(wilson(4, 6))
    assert (row.ta.before, row.ta.after, row.ta.images) == (pytest.approx(3 / 8), pytest.approx(7 / 8), 8)


def test_a_quarter_of_every_class_is_held_out() -> None:
    labels = torch.arange(5).repeat_interleave(torch.tensor([16, 16, 16, 16, 17]))
    kept, held = hold_out(labels, seed=0)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(81))
    assert torch.bincount(labels[held]).tolist() == [4, 4, 4, 4, 4]
    assert held.tolist() != hold_out(labels, seed=1)[1].tolist()


@pytest.mark.parametrize("labels", [torch.arange(40), torch.arange(76) % 19 // 10])
def test_few_images_are_all_tuned_on_and_all_measured_on(labels: torch.Tensor) -> None:
    kept, held = hold_out(labels, seed=0)
    assert kept.tolist() == held.tolist() == list(range(len(labels)))
