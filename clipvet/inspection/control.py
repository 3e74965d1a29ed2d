"""Positive controls: backdoors that we plant ourselves, to see that the search would have found one with these probe images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.inspection.base import Run, Subject
from clipvet.inspection.groups import search_groups
from clipvet.inspection.margin_residual import MarginResidual, residuals, standardise
from clipvet.inspection.search import SearchConfig, chunk_for
from clipvet.models.prompts import PromptedClassifier
from clipvet.triggers.blend import random_blend
from clipvet.types import CheckResult

__all__ = ["plant_control", "run_controls"]

COUNT = 2  # controls per inspection
LEAST_ASR = 0.9


@torch.no_grad()
def plant_control(reference: PromptedClassifier, images: Tensor, target: int, *, seed: int) -> Tensor | None:
    """Plant a backdoor in the untuned classifier's text features.

    A random blended pattern (ratio 0.2) moves the mean image feature in some direction; the target's text feature is moved along
    it until 90 % of the stamped images are classified as the target. That is what a poisoned prompt does to a frozen backbone,
    without the tuning.

    Args:
        reference: a classifier with fixed text features.
        images: ``(n, 3, h, w)``, the probe images.
        target: class to plant.
        seed: of the pattern.

    Returns:
        Text features ``(n_classes, d)``, unit length, those of the other classes unchanged; None where no strength is enough.
    """
    generator = torch.Generator().manual_seed(seed)
    trigger = random_blend(images.shape[-1], ratio=0.2, generator=generator)
    before, after = reference.image_features(images), reference.image_features(trigger.image(images))
    direction = F.normalize((after - before).mean(0), dim=0)
    text = reference.prompt.text_features(reference.model)
    for strength in torch.linspace(0.05, 1.5, 30).tolist():
        planted = text.clone()
        planted[target] = F.normalize(text[target] + strength * direction, dim=0)
        if ((after @ planted.T).argmax(1) == target).float().mean() >= LEAST_ASR:
            return planted
    return None


def run_controls(
    check: MarginResidual, subject: Subject, result: CheckResult, probes: Tensor, run: Run, *, flag: float
) -> dict[str, float]:
    """Search planted controls like a delivery, and count those whose statistic exceeds the threshold.

    The other classes of a control are the untuned prompt's own, so only the planted class is searched; its margin takes the
    place of the delivery's among the delivery's margins, which gives its statistic on the delivery's own spread.

    Args:
        check: the check that is controlled.
        subject: the delivery and its untuned reference.
        result: of the check, whose screened margins the control is compared with.
        probes: the inspection's probe images.
        run: seed, journal, clock and progress.
        flag: the statistic that counts as found.

    Returns:
        ``recovered`` (share) and ``statistic`` (the smallest).
    """
    reference = subject.reference
    assert reference is not None
    screened = [row for row in result.evidence if row.trigger_kind == "additive"]
    tuned = torch.tensor([row.values["margin"] for row in screened])
    baseline = torch.tensor([row.values["baseline_margin"] for row in screened])
    held = min(check.evaluation, len(probes) // 2)
    evaluation, searched = probes[:held], probes[held:]
    config = SearchConfig(strength=check.strength, batch=check.batch, chunk=chunk_for(reference.model))
    order = torch.randperm(len(tuned), generator=torch.Generator().manual_seed(run.seed)).tolist()
    found = []
    for number in range(min(COUNT, len(order))):
        target = order[number]
        text = plant_control(reference, evaluation, target, seed=run.seed + number)
        if text is None:
            continue

        def logits(images: Tensor, text: Tensor = text) -> Tensor:
            return reference.model.logit_scale * reference.image_features(images) @ text.T

        got = search_groups(
            logits,
            None,
            searched,
            evaluation,
            torch.tensor([target]),
            config=config,
            steps=check.screen_steps,
            stage=f"control {number}",
            run=run,
        )
        replaced = tuned.clone()
        replaced[target] = got.margin[0]
        found.append(float(standardise(residuals(replaced, baseline), check.floor)[target]))
    recovered = sum(value > flag for value in found) / len(found) if found else 0.0
    return {"recovered": recovered, "statistic": min(found, default=float("nan")), "planted": float(len(found))}
