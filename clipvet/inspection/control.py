"""Positive controls: backdoors that we plant ourselves, to see that the search would have found one with these probe images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.inspection.base import ModelCheck, Run, Subject
from clipvet.inspection.groups import search_groups
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.shift import learn_shift
from clipvet.types import CheckResult

__all__ = ["control_passes", "plant_control", "run_controls"]

COUNT = 2  # controls per inspection
LEAST_ASR, LEAST_KEPT = 0.75, 0.6
STEPS, SHIFT_STEPS, SHIFT_BATCH = 200, 12, 16


def plant_control(
    reference: PromptedClassifier, images: Tensor, evaluation: Tensor, target: int, *, eps: float, seed: int
) -> Tensor | None:
    """Plant a backdoor in the untuned classifier's text features.

    An additive pattern within ``eps`` is learned that moves the mean image feature far, in whatever direction; then the target's
    text feature is tuned until stamped images are classified as the target while the clean ones keep their class. That is what
    BadCLIP (arXiv 2311.16194) does to a frozen backbone, without the tuning of a prompt.

    Args:
        reference: a classifier with fixed text features.
        images: ``(n, 3, h, w)``, probe images that the pattern is learned on.
        evaluation: ``(m, 3, h, w)``, probe images that the text feature is tuned on.
        target: class to plant.
        eps: L-inf bound of the pattern.
        seed: of the pattern.

    Returns:
        Text features ``(n_classes, d)``, unit length, those of the other classes unchanged; None where fewer than
        :data:`LEAST_ASR` of the stamped images reach the target, or fewer than :data:`LEAST_KEPT` of the clean ones keep theirs.
    """
    delta = learn_shift(reference, images, eps=eps, steps=SHIFT_STEPS, batch=SHIFT_BATCH, seed=seed)
    with torch.no_grad():
        text = reference.prompt.text_features(reference.model)
        before, after = reference.image_features(evaluation), reference.image_features((evaluation + delta).clamp(0, 1))
        kept = (before @ text.T).argmax(1)
    scale = reference.model.logit_scale
    row = text[target].clone().requires_grad_(True)
    optimizer = torch.optim.Adam([row], lr=0.02)
    wanted = torch.cat([torch.full((len(after),), target, device=kept.device), kept])
    for _ in range(STEPS):
        planted = torch.cat([text[:target], F.normalize(row, dim=0)[None], text[target + 1 :]])
        loss = F.cross_entropy(scale * torch.cat([after, before]) @ planted.T, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    planted = planted.detach()
    works = ((after @ planted.T).argmax(1) == target).float().mean() >= LEAST_ASR
    stays = ((before @ planted.T).argmax(1) == kept).float().mean() >= LEAST_KEPT
    return planted if works and stays else None


def run_controls(
    check: ModelCheck, subject: Subject, result: CheckResult, probes: Tensor, run: Run, *, flag: float
) -> dict[str, float]:
    """Search planted controls like a delivery, and count those whose statistic exceeds the threshold.

    The other classes of a control are the untuned prompt's own, so only the planted class is searched; what was found for it takes
    the place of the delivery's among the delivery's classes, which gives its statistic on the delivery's own spread.

    Args:
        check: the check that is controlled.
        subject: the delivery and its untuned reference.
        result: of the check, whose classes the control is compared with.
        probes: the inspection's probe images.
        run: seed, journal, clock and progress.
        flag: the statistic that counts as found.

    Returns:
        ``recovered`` (share of those planted; 0 where none could be), ``statistic`` (the smallest; NaN without any), ``planted``.

    Raises:
        OutOfBudget: by the run's clock.
    """
    reference, how = subject.reference or subject.classifier, check.control_search(subject, probes)
    order = torch.randperm(len(subject.candidates), generator=torch.Generator().manual_seed(run.seed)).tolist()
    found = []
    for number in range(min(COUNT, len(order))):
        target = order[number]
        run.clock()
        with subject.mixed_precision(wanted=how.mixed_precision):
            text = plant_control(reference, how.searched, how.evaluation, target, eps=how.strength, seed=run.seed + number)
            if text is None:
                continue

            def logits(images: Tensor, text: Tensor = text) -> Tensor:
                return reference.model.logit_scale * reference.image_features(images) @ text.T

            got = search_groups(
                logits,
                subject.reference,
                how.searched,
                how.evaluation,
                torch.tensor([target]),
                config=how.config,
                steps=how.steps,
                stage=f"control {number}",
                run=run,
            )
        found.append(check.control_statistic(result, target, got))
    recovered = sum(value > flag for value in found) / len(found) if found else 0.0
    return {"recovered": recovered, "statistic": min(found, default=float("nan")), "planted": float(len(found))}


def control_passes(check: ModelCheck, subject: Subject, probes: Tensor) -> int:
    """Estimate the images through the tower for all controls, as :meth:`clipvet.inspection.base.ModelCheck.passes` does."""
    how = check.control_search(subject, probes)
    planting = 2 * SHIFT_STEPS * SHIFT_BATCH + 2 * len(how.evaluation)
    searching = how.steps * how.config.batch + 2 * len(how.evaluation)
    return min(COUNT, len(subject.candidates)) * (planting + searching)
