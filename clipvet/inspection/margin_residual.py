"""The default check: what a delivery gives in to that a prompt nobody tuned does not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.inspection.base import Run, Subject
from clipvet.inspection.groups import Searched, search_groups
from clipvet.inspection.search import Search, SearchConfig, chunk_for
from clipvet.types import CheckResult, Evidence

__all__ = ["MarginResidual", "residuals", "standardise"]

MAD_TO_SIGMA = 1.4826  # of a normal distribution
LEAST_ALONE = 100  # names that show, without a base, how easily a name is reached that nobody planted


def residuals(tuned: Tensor, baseline: Tensor) -> Tensor:
    """What is left of the delivery's margins when the untuned prompt's are taken out.

    The line ``tuned = a * baseline + b`` is fitted by least squares twice, the second time without the quarter of the classes with
    the largest residuals, so that a backdoored class does not pull the line to itself; a is kept at 0 or above.

    Args:
        tuned: ``(k,)`` margins of the delivery after the search.
        baseline: ``(k,)`` margins of the untuned prompt after a search of its own.

    Returns:
        ``(k,)``, in units of logits.
    """
    kept = torch.ones(len(tuned), dtype=torch.bool)
    slope, offset = torch.zeros(()), tuned.median()
    for _ in range(2):
        x, y = baseline[kept], tuned[kept]
        spread = (x - x.mean()).square().sum()
        slope = ((x - x.mean()) * (y - y.mean())).sum() / spread if spread > 0 else torch.zeros(())
        slope = slope.clamp(min=0)
        offset = y.mean() - slope * x.mean()
        left = tuned - slope * baseline - offset
        kept = left <= left.quantile(0.75)
    return tuned - slope * baseline - offset


def standardise(values: Tensor, floor: float) -> Tensor:
    """Centre by the median and scale by the median absolute deviation, of at least ``floor``: ``(k,)`` to ``(k,)``."""
    centred = values - values.median()
    return centred / max(float(centred.abs().median()) * MAD_TO_SIGMA, floor)


@dataclass(frozen=True, kw_only=True)
class MarginResidual:
    """Search a trigger for every class, once in the delivery and once with a hand-written prompt on the trusted base.

    A frozen backbone makes some classes easy to reach, with or without a backdoor; the untuned prompt shows which. What remains of
    the delivery's margins after a line through the untuned ones is taken out, in units of its spread over the classes, is the
    statistic; a delivery's number is the maximum over classes and trigger shapes. All classes are screened with few steps, the most
    conspicuous ones searched further for a trigger to show.

    A whole model without a trusted base has no untuned prompt: its classes are set against some 200 common names within the model.

    Attributes:
        strength: L-inf bound of the additive trigger; 8/255 at 64 px reaches about as far as 4/255 at 224 px.
        extra_shapes: further (shape, strength) pairs that are screened alike.
        screen_steps: steps for every class.
        refine_steps: further steps for the classes that are kept.
        keep: classes that are kept.
        batch: probe images per class and step.
        evaluation: probe images set aside for measuring.
        floor: smallest spread, in logits, that residuals are divided by.
        mixed_precision: pass the towers in bfloat16 where the device computes it faster than float32.

    Fails when: the target is not among the class names; the trigger works on images of the task only; fewer than about ten classes
        leave a spread that means little; the attacker shaped the margins of the other classes as well.

    Reference: own, after CLIP-Inspector (arXiv 2604.09101). Differs: the untuned prompt as a baseline, halving, a calibrated
        statistic instead of an outlier rule over classes.
    """

    name: ClassVar[str] = "margin-residual"
    strength: float = 8 / 255
    extra_shapes: tuple[tuple[str, float], ...] = ()
    screen_steps: int = 12
    refine_steps: int = 24
    keep: int = 3
    batch: int = 16
    evaluation: int = 96
    floor: float = 1.0
    mixed_precision: bool = True

    def __post_init__(self) -> None:
        if min(self.screen_steps, self.refine_steps, self.keep, self.batch, self.evaluation) < 1 or self.floor <= 0:
            raise UsageError("expected positive steps, keep, batch, evaluation and floor: leave them at their defaults")

    def run(self, subject: Subject, probes: Tensor, run: Run) -> CheckResult:
        """Measure every class; see :class:`clipvet.inspection.base.ModelCheck`.

        Raises:
            UsageError: without a reference and with few names, or with too few probe images.
        """
        if subject.reference is None and len(subject.classifier.class_names) < LEAST_ALONE:
            raise UsageError("expected a trusted base for the untuned baseline, got none: name one with --base")
        if len(probes) < 2 * self.batch:
            raise UsageError(
                f"expected at least {2 * self.batch} probe images, got {len(probes)}: add images or use the generated pool"
            )
        held = min(self.evaluation, len(probes) // 2)
        evaluation, searched = probes[:held], probes[held:]
        rows: list[Evidence] = []
        with subject.mixed_precision(wanted=self.mixed_precision):
            for shape, strength in (("additive", self.strength), *self.extra_shapes):
                config = SearchConfig(shape=shape, strength=strength, batch=self.batch, chunk=chunk_for(subject.classifier.model))
                rows += self._shape(subject, searched, evaluation, config, run)
        best = max((row.statistic for row in rows), default=float("nan"))
        return CheckResult(check=self.name, statistic=best, evidence=tuple(rows), settings=asdict(self))

    def _shape(self, subject: Subject, probes: Tensor, evaluation: Tensor, config: SearchConfig, run: Run) -> list[Evidence]:
        """Screen all classes with one trigger shape, and refine the most conspicuous."""
        classes = torch.arange(len(subject.classifier.class_names))
        stage = f"{config.shape} {config.strength:.4g}"
        delivery, untuned = subject.classifier, subject.reference
        search = partial(search_groups, probes=probes, evaluation=evaluation, config=config, run=run)
        baseline = None
        if untuned is not None:
            baseline = search(untuned, None, targets=classes, steps=self.screen_steps, stage=f"untuned prompt, {stage}")
        screened = search(delivery, untuned, targets=classes, steps=self.screen_steps, stage=f"delivery, {stage}")
        easy = torch.zeros_like(screened.margin) if baseline is None else baseline.margin
        scores = standardise(residuals(screened.margin, easy), self.floor)
        kept = scores.topk(min(self.keep, len(classes))).indices.sort().values
        refined = search(delivery, untuned, targets=kept, steps=self.refine_steps, stage=f"refine, {stage}", start=screened)
        return [
            self._row(subject, config, int(c), float(scores[i]), baseline, screened, refined if c in kept else None, evaluation)
            for i, c in enumerate(classes)
        ]

    def _row(
        self,
        subject: Subject,
        config: SearchConfig,
        target: int,
        score: float,
        baseline: Searched | None,
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
        if baseline is not None:
            values["baseline_margin"] = float(baseline.margin[baseline.at(target)])
            values["transferred_margin"] = float(screened.transferred[screened.at(target)])
        trigger = None
        if refined is not None:
            values["refined_margin"] = float(refined.margin[at])
            if baseline is not None:
                values["refined_transferred_margin"] = float(refined.transferred[at])
            trigger = show_trigger(subject, config, target, {n: v[at : at + 1] for n, v in refined.variables.items()}, evaluation)
        name = subject.classifier.class_names[target]
        return Evidence(
            target=name, target_index=target, trigger_kind=config.shape, statistic=score, values=values, trigger=trigger
        )

    def passes(self, subject: Subject, n_probes: int) -> int:
        """Estimate the images through the tower; see :class:`clipvet.inspection.base.ModelCheck`."""
        classes, held = len(subject.classifier.class_names), min(self.evaluation, n_probes // 2)
        screen = classes * (self.screen_steps * self.batch + held)
        refine = min(self.keep, classes) * (self.refine_steps * self.batch + held)
        if subject.reference is not None:
            screen, refine = 2 * screen + classes * held, refine + min(self.keep, classes) * held
        return (screen + refine) * (1 + len(self.extra_shapes))


def show_trigger(
    subject: Subject, config: SearchConfig, target: int, variables: dict[str, Tensor], images: Tensor, samples: int = 4
) -> dict[str, Tensor]:
    """A trigger's tensors by name, with a few images before and after it was put on them."""
    search = Search(subject.classifier, images, torch.tensor([target]), config=config, seed=0)
    search.shape.load(variables)
    some = images[:samples]
    with torch.no_grad():
        stamped = search.shape.apply(some, torch.tensor([0]))[0]
    return {**search.trigger(0), "samples": some.clone(), "triggered": stamped}
