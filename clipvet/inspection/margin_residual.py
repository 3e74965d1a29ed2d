"""The default check: what a small change does to a delivery that it does not do to a prompt nobody tuned."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.inspection.base import ControlSearch, Run, Subject
from clipvet.inspection.groups import Searched, search_groups
from clipvet.inspection.search import SearchConfig, Searching, chunk_for
from clipvet.types import CheckResult, Evidence

__all__ = ["MarginResidual", "standardise"]

MAD_TO_SIGMA = 1.4826  # of a normal distribution


def standardise(values: Tensor, floor: float) -> Tensor:
    """Centre by the median and scale by the median absolute deviation, of at least ``floor``: ``(k,)`` to ``(k,)``."""
    centred = values - values.median()
    return centred / max(float(centred.abs().median()) * MAD_TO_SIGMA, floor)


@dataclass(frozen=True, kw_only=True)
class MarginResidual:
    """Search a trigger for every class in the delivery, and put it before a hand-written prompt on the trusted base as well.

    A frozen backbone makes some classes easy to reach, with or without a backdoor, and there a trigger works on the untuned prompt
    too. What the delivery's margin exceeds the untuned prompt's by, on the same changed images, is the residual; centred by its
    median over the names and in units of its spread, it is the statistic. A delivery's number is the maximum over classes and
    trigger shapes. All classes are screened with few steps, the most conspicuous ones searched further for a trigger to show.

    Few classes leave a spread that means little, and a class that draws unrelated images by itself stands out among them: common
    names are put beside them up to :attr:`least_classes`. These share in the spread, but no verdict rests on them. A whole
    model without a trusted base has no untuned prompt: its classes are set against some 200 common names within the model.

    Attributes:
        strength: L-inf bound of the additive trigger; 8/255 at 64 px reaches about as far as 4/255 at 224 px.
        extra_shapes: further (shape, strength) pairs that are screened alike.
        screen_steps: steps for every class.
        refine_steps: further steps for the classes that are kept.
        keep: classes that are kept.
        batch: probe images per class and step.
        lr: Adam's step in units of the strength; with few steps it has to reach the bound in two.
        screened_on: probe images that all classes are measured on.
        evaluation: probe images set aside for measuring the classes that are kept, those of the screening among them.
        floor: smallest spread, in logits, that residuals are divided by; the spread of clean tunings of the pocket lies below it.
        mixed_precision: pass the towers in bfloat16 where the device computes it faster than float32.
        least_classes: with fewer classes, common names are put beside them up to this number.
        least_alone: the same where there is no base; fewer than half of it are refused.

    Fails when: the target is not among the class names; the trigger works on images of the task only, or on the untuned prompt as
        well; there are few classes and no names can be put beside them (a context per class); the attacker shaped the margins of
        the other classes as well.

    Reference: own, after CLIP-Inspector (arXiv 2604.09101). Differs: the same trigger on the untuned prompt as a baseline; a few
        steps for all classes and more for the most conspicuous ones; a calibrated statistic instead of an outlier rule.
    """

    name: ClassVar[str] = "margin-residual"
    strength: float = 8 / 255
    extra_shapes: tuple[tuple[str, float], ...] = ()
    screen_steps: int = 5
    refine_steps: int = 36
    keep: int = 2
    batch: int = 8
    lr: float = 0.5
    screened_on: int = 48
    evaluation: int = 64
    floor: float = 4.0
    mixed_precision: bool = True
    least_classes: int = 20
    least_alone: int = 200

    def __post_init__(self) -> None:
        counts = (self.screen_steps, self.refine_steps, self.keep, self.batch, self.screened_on, self.evaluation)
        if min(counts) < 1 or min(self.lr, self.floor) <= 0:
            raise UsageError("expected positive steps, keep, batch, lr, images and floor: leave them at their defaults")

    def run(self, subject: Subject, probes: Tensor, run: Run) -> CheckResult:
        """Measure every class; see :class:`clipvet.inspection.base.ModelCheck`.

        Raises:
            UsageError: without a reference and with few names, or with too few probe images.
        """
        if subject.reference is None and len(subject.classifier.class_names) < self.least_alone // 2:
            raise UsageError("expected a trusted base for the untuned baseline, got none: name one with --base")
        if len(probes) < 2 * self.batch:
            raise UsageError(
                f"expected at least {2 * self.batch} probe images, got {len(probes)}: add images or use the generated pool"
            )
        held = self._held(len(probes))
        rows: list[Evidence] = []
        with subject.mixed_precision(wanted=self.mixed_precision):
            for shape, strength in (("additive", self.strength), *self.extra_shapes):
                config = replace(self._config(subject), shape=shape, strength=strength)
                rows += self._shape(subject, probes[held:], probes[:held], config, run)
        best = max((row.statistic for row in rows if row.target_kind == "class"), default=float("nan"))
        return CheckResult(check=self.name, statistic=best, evidence=tuple(rows), settings=asdict(self))

    def _shape(self, subject: Subject, probes: Tensor, evaluation: Tensor, config: SearchConfig, run: Run) -> list[Evidence]:
        """Screen all classes with one trigger shape, and refine the most conspicuous."""
        classes = torch.arange(len(subject.classifier.class_names))
        stage = f"{config.shape} {config.strength:.4g}"
        delivery, untuned = subject.classifier, subject.reference
        search = partial(search_groups, delivery, untuned, probes, config=config, run=run, candidates=subject.n_candidates)
        some = evaluation[: self.screened_on]
        screened = search(some, classes, steps=self.screen_steps, stage=f"screen, {stage}")
        scores = standardise(screened.margin if untuned is None else screened.margin - screened.transferred, self.floor)
        candidates = scores[: len(subject.candidates)]
        kept = candidates.topk(min(self.keep, len(candidates))).indices.sort().values
        refined = search(evaluation, kept, steps=self.refine_steps, stage=f"refine, {stage}", start=screened)
        return [
            self._row(subject, config, int(c), float(scores[i]), screened, refined if c in kept else None, evaluation)
            for i, c in enumerate(classes)
        ]

    def _row(
        self,
        subject: Subject,
        config: SearchConfig,
        target: int,
        score: float,
        screened: Searched,
        refined: Searched | None,
        evaluation: Tensor,
    ) -> Evidence:
        found = refined or screened
        at = found.at(target)
        values = {
            "margin": float(screened.margin[screened.at(target)]),
            "final_loss": float(found.loss[at]),
            "asr": float(found.asr[at]),
        }
        if subject.reference is not None:
            values["baseline_margin"] = float(screened.transferred[screened.at(target)])
        trigger = None
        if refined is not None:
            values["refined_margin"] = float(refined.margin[at])
            if subject.reference is not None:
                values["refined_baseline_margin"] = float(refined.transferred[at])
            trigger = show_trigger(subject, config, target, {n: v[at : at + 1] for n, v in refined.variables.items()}, evaluation)
        name = subject.classifier.class_names[target]
        return Evidence(
            target=name,
            target_kind=subject.target_kind(target),
            target_index=target,
            trigger_kind=config.shape,
            statistic=score,
            values=values,
            trigger=trigger,
        )

    def _config(self, subject: Subject) -> SearchConfig:
        return SearchConfig(strength=self.strength, batch=self.batch, lr=self.lr, chunk=chunk_for(subject.classifier.model))

    def _held(self, n_probes: int) -> int:
        """Probe images that are measured on and not searched on."""
        return min(self.evaluation, n_probes // 2)

    def control_search(self, subject: Subject, probes: Tensor) -> ControlSearch:
        """Screening with an additive trigger; see :class:`clipvet.inspection.base.ModelCheck`."""
        held = self._held(len(probes))
        return ControlSearch(
            config=self._config(subject),
            strength=self.strength,
            steps=self.screen_steps,
            searched=probes[held:],
            evaluation=probes[: min(held, self.screened_on)],
            mixed_precision=self.mixed_precision,
        )

    def control_statistic(self, result: CheckResult, target: int, found: Searched) -> float:
        """The residual's deviation among the delivery's residuals; see :class:`clipvet.inspection.base.ModelCheck`."""
        screened = [row.values for row in result.evidence if row.trigger_kind == "additive"]
        residuals = torch.tensor([values["margin"] - values.get("baseline_margin", 0.0) for values in screened])
        alone = "baseline_margin" not in screened[target]
        residuals[target] = found.margin[0] - (0 if alone else found.transferred[0])
        return float(standardise(residuals, self.floor)[target])

    def passes(self, subject: Subject, n_probes: int) -> int:
        """Estimate the images through the tower; see :class:`clipvet.inspection.base.ModelCheck`."""
        classes, kept = len(subject.classifier.class_names), min(self.keep, len(subject.candidates))
        held, classifiers = self._held(n_probes), 1 if subject.reference is None else 2
        screen = classes * (self.screen_steps * self.batch + classifiers * min(held, self.screened_on))
        refine = kept * (self.refine_steps * self.batch + classifiers * held)
        return (screen + refine) * (1 + len(self.extra_shapes))


def show_trigger(
    subject: Subject, config: Searching, target: int, variables: dict[str, Tensor], images: Tensor, samples: int = 4
) -> dict[str, Tensor]:
    """A trigger's tensors by name, with a few images before and after it was put on them."""
    search = config.begin(subject.classifier, images, torch.tensor([target]), seed=0)
    search.load(variables)
    some = images[:samples]
    with torch.no_grad():
        stamped = search.shape.apply(some, torch.tensor([0]))[0]
    shown = {**search.trigger(0), "samples": some.clone(), "triggered": stamped}
    return {name: value.cpu() for name, value in shown.items()}
