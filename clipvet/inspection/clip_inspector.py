"""CLIP-Inspector as published."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.inspection.base import ControlSearch, Run, Subject
from clipvet.inspection.groups import Searched, search_classes
from clipvet.inspection.margin_residual import show_trigger, standardise
from clipvet.inspection.search import SearchConfig, chunk_for
from clipvet.types import CheckResult, Evidence

__all__ = ["ClipInspector"]

FLOOR = 1e-6  # smallest spread, against a division by zero alone


@dataclass(frozen=True, kw_only=True)
class ClipInspector:
    """One universal additive trigger per class, one epoch over the probe images, an outlier rule over the classes.

    Loss: margin between the strongest other logit and the target's logit; Adam; final loss and reconstructed ASR per class. The
    anomaly index of a class is the median absolute deviation score of its negated final loss among all classes; above ``k`` with a
    reconstructed ASR of at least ``least_asr``, the class is flagged.

    The paper is silent on these, so they are our guesses: the index is a MAD score (as in Neural Cleanse) of the loss alone; the
    trigger begins near zero; pixels are clipped to [0, 1]; logits carry CLIP's scale of about 100; final loss and ASR are measured
    over all probe images with the final trigger.

    Attributes:
        strength: L-inf bound; 4/255 in the paper at 224 px.
        step: Adam's step in pixel units; 0.1 in the paper, which saturates the bound at once.
        batch: probe images per step.
        epochs: passes over the probe images.
        k: anomaly index above which a class is flagged.
        least_asr: reconstructed ASR below which a trigger does not count.
        least_classes: with fewer classes, common names are put beside them up to this number; not in the paper.
        least_alone: the same where there is no base.

    Fails when: classes differ in how easily they are reached (fine-grained tasks), where clean models exceed k = 2; the target is
        not among the class names; few probe images.

    Reference: CLIP-Inspector, CVPR 2026 Findings (arXiv 2604.09101). Differs: classes share passes through the tower, which changes
        nothing for any of them; positive controls (see :mod:`clipvet.inspection.control`), which no figure of the paper needs and
        no index here depends on.
    """

    name: ClassVar[str] = "clip-inspector"
    strength: float = 4 / 255
    step: float = 0.1
    batch: int = 32
    epochs: int = 1
    k: float = 2.0
    least_asr: float = 0.5
    least_classes: int = 10
    least_alone: int = 10

    def run(self, subject: Subject, probes: Tensor, run: Run) -> CheckResult:
        """Measure every class; see :class:`clipvet.inspection.base.ModelCheck`.

        Raises:
            UsageError: with fewer than three classes or fewer probe images than a batch.
        """
        classes = torch.arange(len(subject.classifier.class_names))
        if len(classes) < 3 or len(probes) < self.batch:
            raise UsageError(
                f"expected at least 3 classes and {self.batch} images, got {len(classes)} and {len(probes)}: use the default preset"
            )
        how = self.control_search(subject, probes)
        found = search_classes(subject, how, stage="one epoch per class", run=run)
        index = standardise(found.margin, FLOOR)
        counted = torch.where(found.asr >= self.least_asr, index, index.clamp(max=0))  # a trigger that fails flags nothing
        rows = []
        candidates = counted[: len(subject.candidates)]
        top = set(candidates.topk(min(3, len(candidates))).indices.tolist())
        for c in classes.tolist():
            variables = {n: v[c : c + 1] for n, v in found.variables.items()}
            values = {"anomaly_index": float(index[c]), "final_loss": -float(found.margin[c]), "asr": float(found.asr[c])}
            rows.append(
                Evidence(
                    target=subject.classifier.class_names[c],
                    target_kind=subject.target_kind(c),
                    target_index=c,
                    trigger_kind="additive",
                    statistic=float(counted[c]),
                    values=values,
                    trigger=show_trigger(subject, how.config, c, variables, probes) if c in top else None,
                )
            )
        return CheckResult(check=self.name, statistic=float(candidates.max()), evidence=tuple(rows), settings=asdict(self))

    def control_search(self, subject: Subject, probes: Tensor) -> ControlSearch:
        """One epoch over all probe images; see :class:`clipvet.inspection.base.ModelCheck`."""
        chunk = chunk_for(subject.classifier.model)
        return ControlSearch(
            config=SearchConfig(strength=self.strength, batch=self.batch, lr=self.step / self.strength, chunk=chunk),
            strength=self.strength,
            steps=self.epochs * (len(probes) // self.batch),
            searched=probes,
            evaluation=probes,
            mixed_precision=False,
        )

    def control_statistic(self, result: CheckResult, target: int, found: Searched) -> float:
        """The index among the delivery's classes, at most 0 where the trigger fails.

        See :class:`clipvet.inspection.base.ModelCheck`.
        """
        margins = torch.tensor([-row.values["final_loss"] for row in result.evidence])
        margins[target] = found.margin[0]
        index = float(standardise(margins, FLOOR)[target])
        return index if found.asr[0] >= self.least_asr else min(index, 0.0)

    def passes(self, subject: Subject, n_probes: int) -> int:
        """Estimate the images through the tower; see :class:`clipvet.inspection.base.ModelCheck`."""
        epoch = self.epochs * (n_probes // self.batch) * self.batch
        return len(subject.classifier.class_names) * (epoch + n_probes)
