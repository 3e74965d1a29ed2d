"""Clean references: prompts tuned on a user's base without any backdoor, and what the checks say of each."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.inspection.base import ModelCheck, OutOfBudget, Run
from clipvet.inspection.calibration import settings_digest
from clipvet.inspection.feature_collapse import FeatureCollapse
from clipvet.inspection.journal import MemoryJournal
from clipvet.inspection.shots import Shots
from clipvet.inspection.subject import subject_of
from clipvet.metrics import accuracy, predict
from clipvet.models.base import ClipModel
from clipvet.models.families import FAMILIES, new_prompt
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.tuning import schedule_of, tune

__all__ = ["LEAST_LEARNED", "TUNED", "Draw", "Recipe", "Reference", "default_families", "make_references", "tune_reference"]

TUNED = tuple(name for name in FAMILIES if name != "zero-shot")
USUAL = ("coop", "cocoop", "vpt", "ivlp", "maple")
LEAST_LEARNED = 0.25  # of the way from chance to no error; a prompt that learned less has hardly left where it began
LARGEST_SEED = 2**31


def default_families(base: ClipModel) -> tuple[str, ...]:
    """Name the families that references are drawn from unless a user says otherwise: those that the base can carry."""
    return tuple(name for name in USUAL if base.is_vit or not FAMILIES[name].changes_image_tower)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What one reference is: its number, prompt family, class names, and the seed of its tuning."""

    number: int
    family: str
    class_names: tuple[str, ...]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How references are drawn, each by its own number, so that neither their count nor an interruption changes one.

    Attributes:
        families: keys of :data:`clipvet.models.families.FAMILIES` with something to learn.
        names: class names that are drawn from.
        classes: the smallest and the largest number of class names.
        seed: of all drawing.
    """

    families: tuple[str, ...]
    names: tuple[str, ...]
    classes: tuple[int, int]
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.families if name not in TUNED]
        if unknown or not self.families:
            raise UsageError(f"expected prompt families out of {', '.join(TUNED)}, got {unknown[0] if unknown else 'none'!r}")
        low, high = self.classes
        if not 2 <= low <= high:
            raise UsageError(f"expected a band of at least 2 classes such as 10-50, got {low}-{high}")
        if high > len(self.names):
            raise UsageError(
                f"expected at least {high} class names to draw up to {high} classes from, got {len(self.names)}: "
                f"give more names, or --classes {min(low, len(self.names))}-{len(self.names)}"
            )

    def draw(self, number: int) -> Draw:
        """Draw the reference of a number."""
        rng = random.Random(f"reference {number} of seed {self.seed}")  # noqa: S311 - a choice of examples, no secret
        family, count = rng.choice(self.families), rng.randint(*self.classes)
        names = tuple(rng.sample(self.names, count))
        return Draw(number=number, family=family, class_names=names, seed=rng.randrange(LARGEST_SEED))

    def try_on(self, base: ClipModel) -> None:
        """Begin a prompt of every family over all names, so that what cannot be tuned is said before hours of work.

        Raises:
            UsageError: the base has no room for a family or a name.
        """
        for family in self.families:
            new_prompt(family, base, self.names, seed=0)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A reference and what was measured on it.

    Attributes:
        draw: what it is.
        statistic: of the check.
        accuracy: on the labels that it was tuned on, pseudo-labels where there are no others.
        beyond: statistic of the check without classes; None where it was not run.
    """

    draw: Draw
    statistic: float
    accuracy: float
    beyond: float | None = None

    @property
    def learned(self) -> bool:
        """Whether it can stand for a prompt that someone tuned: it has left chance behind, and the check came to a number."""
        chance = 1 / len(self.draw.class_names)
        return math.isfinite(self.statistic) and self.accuracy - chance >= LEAST_LEARNED * (1 - chance)


def tune_reference(base: ClipModel, draw: Draw, shots: Shots) -> tuple[PromptedClassifier, float]:
    """Tune a prompt as someone does who plants nothing.

    Returns:
        The classifier, frozen, and its accuracy on the labels that it was tuned on.

    Raises:
        UsageError: the base has no room for the prompt or a name.
    """
    images, labels = shots.take(draw.class_names, draw.seed)
    fresh = PromptedClassifier(base, new_prompt(draw.family, base, draw.class_names, seed=draw.seed), draw.class_names)
    fresh.prompt.to(base.device)
    with base.mixed_precision():
        tune(fresh, images, labels, config=schedule_of(draw.family), seed=draw.seed)
    tuned = fresh.freeze()  # text features in float32
    return tuned, accuracy(predict(tuned, images), labels)


def make_references(
    base: ClipModel,
    check: ModelCheck,
    probes: Tensor,
    shots: Shots,
    recipe: Recipe,
    count: int,
    run: Run,
    *,
    beyond: FeatureCollapse | None = None,
) -> tuple[list[Reference], str]:
    """Make the first ``count`` references of a recipe and run the checks on each, as an inspection does.

    Args:
        base: the base that is calibrated.
        check: as an inspection will run it.
        probes: ``(n, 3, h, w)``, the inspection's probe images.
        shots: what the references are tuned on.
        recipe: how they are drawn.
        count: how many.
        run: the seed of the checks; the journal keeps every finished reference, and one that lacks a number, as those of earlier
            versions do, is made anew; the clock ends the work between two of them.
        beyond: the check without classes, run where the family changes the image tower.

    Returns:
        The references in the order of their numbers, and why there are fewer than ``count``, empty where there are not.
    """
    made: list[Reference] = []
    for number in range(count):
        run.progress("references", number, count)
        draw = recipe.draw(number)
        beside = beyond if FAMILIES[draw.family].changes_image_tower else None
        found = run.journal.get(f"reference {number}")
        if found is None or (beside is not None and _name(beside) not in found):
            try:
                run.clock()
            except OutOfBudget as error:
                return made, str(error)
            found = _measure(base, (check, beside), probes, tune_reference(base, draw, shots), run.seed)
            run.journal.put(f"reference {number}", found)
        made.append(_reference(draw, found, beside))
    run.progress("references", count, count)
    return made, ""


def _measure(
    base: ClipModel,
    checks: tuple[ModelCheck, FeatureCollapse | None],
    probes: Tensor,
    tuned: tuple[PromptedClassifier, float],
    seed: int,
) -> dict[str, Tensor]:
    (check, beside), (classifier, share) = checks, tuned
    subject, _ = subject_of(classifier, base, check)
    run = Run(seed=seed, journal=MemoryJournal(), clock=lambda: None, progress=_quiet)
    numbers = {"statistic": check.run(subject, probes, run).statistic, "accuracy": share}
    if beside is not None:
        numbers[_name(beside)] = beside.run(subject, probes, run).statistic
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}


def _reference(draw: Draw, found: Mapping[str, Tensor], beside: FeatureCollapse | None) -> Reference:
    return Reference(
        draw=draw,
        statistic=float(found["statistic"]),
        accuracy=float(found["accuracy"]),
        beyond=None if beside is None else float(found[_name(beside)]),
    )


def _name(beside: FeatureCollapse) -> str:
    """Call the kept number by the check's settings, so that one measured with others is not taken for it."""
    return settings_digest(beside.name, asdict(beside))


def _quiet(stage: str, done: int, total: int) -> None:
    """Show nothing: what a user waits for are whole references."""
