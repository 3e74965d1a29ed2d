"""CA, ASR and TA before and after a repair, on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipvet.metrics import accuracy, attack_success_rate, predict, wilson_interval
from clipvet.models.prompts import PromptedClassifier
from clipvet.repair.base import Stamps
from clipvet.types import BeforeAfter, Evidence, RepairedTrigger

__all__ = ["LEAST_HELD_OUT", "Predicted", "compare_ca", "compare_triggers", "hold_out", "predicted"]

SHARE = 4  # one labelled image in so many is held out of the tuning
LEAST_HELD_OUT = 20  # images; fewer tell nothing, and are missed in the tuning


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a classifier makes of the same n images: ``plain`` ``long (n,)``, and ``triggered`` ``long (k, n)`` for k triggers."""

    plain: Tensor
    triggered: Tensor


def predicted(classifier: PromptedClassifier, images: Tensor, stamps: Stamps) -> Predicted:
    """Classify ``(n, 3, h, w)`` images without a trigger and with each."""
    triggered = [predict(classifier, stamps.put_one(images, position)) for position in range(len(stamps))]
    return Predicted(plain=predict(classifier, images).cpu(), triggered=torch.stack(triggered).cpu())


def hold_out(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Split positions into those that are tuned on and those that are measured on, a quarter of every class.

    Returns:
        Two ``long`` tensors; both hold all positions where less than :data:`LEAST_HELD_OUT` images could be held out.
    """
    generator = torch.Generator().manual_seed(seed)
    kept, held = [], []
    for label in labels.unique():
        places = (labels == label).nonzero()[:, 0]
        order = places[torch.randperm(len(places), generator=generator)]
        kept.append(order[len(order) // SHARE :])
        held.append(order[: len(order) // SHARE])
    everything = torch.arange(len(labels))
    if sum(map(len, held)) < LEAST_HELD_OUT:
        return everything, everything
    return torch.cat(kept), torch.cat(held)


def compare_ca(before: Predicted, after: Predicted, labels: Tensor) -> BeforeAfter:
    """Accuracy on images without a trigger."""
    return _shares(before.plain == labels, after.plain == labels, accuracy(before.plain, labels), accuracy(after.plain, labels))


def compare_triggers(
    before: Predicted, after: Predicted, labels: Tensor, evidence: Sequence[Evidence]
) -> tuple[RepairedTrigger, ...]:
    """ASR and TA of each trigger."""
    rows = []
    for row, old, new in zip(evidence, before.triggered, after.triggered, strict=True):
        target = -1 if row.target_index is None else row.target_index
        other = labels != target
        asr = [attack_success_rate(found, labels, target) for found in (old, new)]
        ta = [accuracy(found, labels) for found in (old, new)]
        rows.append(
            RepairedTrigger(
                target=row.target,
                target_index=target,
                kind=row.trigger_kind,
                statistic=row.statistic,
                asr=_shares(old[other] == target, new[other] == target, *asr),
                ta=_shares(old == labels, new == labels, *ta),
            )
        )
    return tuple(rows)


def _shares(before: Tensor, after: Tensor, old: float, new: float) -> BeforeAfter:
    n = len(before)
    return BeforeAfter(
        before=old,
        after=new,
        before_interval=wilson_interval(int(before.sum()), n),
        after_interval=wilson_interval(int(after.sum()), n),
        images=n,
    )
