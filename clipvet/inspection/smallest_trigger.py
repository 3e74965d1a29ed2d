"""What Neural Cleanse and Pixel-Backdoor share: the class whose working trigger is far smaller than the others' is the target."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.inspection.base import ControlSearch, Run, Subject
from clipvet.inspection.groups import Searched, search_classes
from clipvet.inspection.margin_residual import MAD_TO_SIGMA, show_trigger
from clipvet.inspection.search import chunk_for
from clipvet.inspection.sparse_search import SparseConfig, SparseShape
from clipvet.types import CheckResult, Evidence

__all__ = ["SmallestTrigger", "small_side_index"]

FLOOR = 1.0  # pixel: the smallest spread that sizes are divided by, where most triggers are of the same size
LEAST_CLASSES = 3
SHOWN = 3  # triggers that are kept to be looked at


def small_side_index(sizes: Tensor) -> Tensor:
    """How far each size lies below the median, in median absolute deviations scaled to a normal's sigma: ``(k,)`` to ``(k,)``.

    Positive for what is smaller than the median. The deviation is at least :data:`FLOOR`.
    """
    below = sizes.quantile(0.5) - sizes
    return below / max(float(below.abs().quantile(0.5)) * MAD_TO_SIGMA, FLOOR)


@dataclass(frozen=True, kw_only=True)
class SmallestTrigger:
    """Search the smallest trigger for every class, and compare the sizes; a method states its defaults and its shape."""

    name: ClassVar[str]
    kind: ClassVar[str]  # of trigger, in evidence rows
    measure: ClassVar[str]  # what the size is called there
    shape: ClassVar[type[SparseShape]]

    epochs: float = 5.0
    batch: int = 32
    lr: float = 0.1
    reach: float = 0.99
    start_weight: float = 0.0
    weight: float = 1e-3
    patience: int = 5
    multiplier: float = 1.5
    evaluation: int = 96
    k: float = 2.0
    least_asr: float = 0.5
    strength: float = 4 / 255
    mixed_precision: bool = True
    least_classes: int = 10
    least_alone: int = 10

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.lr, self.weight, self.patience, self.evaluation) <= 0 or self.multiplier <= 1:
            raise UsageError(
                "expected positive epochs, batch, lr, weight, patience and evaluation, and a multiplier above 1: "
                "leave them at their defaults"
            )
        if not 0 < self.reach <= 1 or self.start_weight < 0:
            raise UsageError(f"expected a reach in (0, 1] and a start_weight of at least 0, got {self.reach}, {self.start_weight}")

    def run(self, subject: Subject, probes: Tensor, run: Run) -> CheckResult:
        """Measure every class; see :class:`clipvet.inspection.base.ModelCheck`.

        Raises:
            UsageError: with fewer than three classes or too few probe images.
        """
        classes = torch.arange(len(subject.classifier.class_names))
        if len(classes) < LEAST_CLASSES or len(probes) < 2 * self.batch:
            raise UsageError(
                f"expected at least {LEAST_CLASSES} classes and {2 * self.batch} images, got {len(classes)} and {len(probes)}: "
                "use the default preset"
            )
        how = self.control_search(subject, probes)
        found = search_classes(subject, how, stage="smallest trigger per class", run=run)
        sizes = self.shape.size(found.variables)
        counted = self._counted(sizes, found.asr)
        candidates = counted[: len(subject.candidates)]
        shown = set(candidates.topk(min(SHOWN, len(candidates))).indices.tolist())
        rows = [self._row(subject, how, found, c, sizes, float(counted[c]), shown=c in shown) for c in classes.tolist()]
        return CheckResult(check=self.name, statistic=float(candidates.max()), evidence=tuple(rows), settings=asdict(self))

    def _counted(self, sizes: Tensor, asr: Tensor) -> Tensor:
        """Index of every class; a trigger that fails flags nothing."""
        index = small_side_index(sizes)
        return index.where(asr >= self.least_asr, index.clamp(max=0))

    def _row(
        self, subject: Subject, how: ControlSearch, found: Searched, target: int, sizes: Tensor, statistic: float, *, shown: bool
    ) -> Evidence:
        variables = {n: v[target : target + 1] for n, v in found.variables.items()}
        values = {
            self.measure: float(sizes[target]),
            "anomaly_index": float(small_side_index(sizes)[target]),
            "final_loss": float(found.loss[target]),
            "asr": float(found.asr[target]),
        }
        return Evidence(
            target=subject.classifier.class_names[target],
            target_kind=subject.target_kind(target),
            target_index=target,
            trigger_kind=self.kind,
            statistic=statistic,
            values=values,
            trigger=show_trigger(subject, how.config, target, variables, how.evaluation) if shown else None,
        )

    def control_search(self, subject: Subject, probes: Tensor) -> ControlSearch:
        """All classes are searched alike; see :class:`clipvet.inspection.base.ModelCheck`."""
        held = self._held(len(probes))
        return ControlSearch(
            config=SparseConfig(
                shape=self.shape,
                batch=self.batch,
                lr=self.lr,
                reach=self.reach,
                start_weight=self.start_weight,
                weight=self.weight,
                patience=self.patience,
                multiplier=self.multiplier,
                chunk=chunk_for(subject.classifier.model),
            ),
            strength=self.strength,
            steps=self._steps(len(probes)),
            searched=probes[held:],
            evaluation=probes[:held],
            mixed_precision=self.mixed_precision,
        )

    def control_statistic(self, result: CheckResult, target: int, found: Searched) -> float:
        """The index among the delivery's sizes, at most 0 where the trigger fails.

        See :class:`clipvet.inspection.base.ModelCheck`.
        """
        sizes = torch.tensor([row.values[self.measure] for row in result.evidence])
        asr = torch.tensor([row.values["asr"] for row in result.evidence])
        sizes[target], asr[target] = self.shape.size(found.variables)[0], found.asr[0]
        return float(self._counted(sizes, asr)[target])

    def passes(self, subject: Subject, n_probes: int) -> int:
        """Estimate the images through the tower; see :class:`clipvet.inspection.base.ModelCheck`."""
        return len(subject.classifier.class_names) * (self._steps(n_probes) * self.batch + self._held(n_probes))

    def within(self, passes: int, subject: Subject, n_probes: int) -> Self:
        """Return the same check with as many steps as so many :meth:`passes` allow, at least one: an equal budget."""
        each, held = passes // len(subject.classifier.class_names), self._held(n_probes)
        steps = max(1, (each - held) // self.batch)
        return replace(self, epochs=steps * self.batch / (n_probes - held))

    def _held(self, n_probes: int) -> int:
        """Probe images set aside for measuring."""
        return min(self.evaluation, n_probes // 2)

    def _steps(self, n_probes: int) -> int:
        return max(1, round(self.epochs * (n_probes - self._held(n_probes)) / self.batch))
