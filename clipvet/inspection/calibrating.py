"""Calibrate a base: make clean references on it, and turn what each check says of them into a null."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

import clipvet
from clipvet.data.generated import generate_probes
from clipvet.data.images import load_images
from clipvet.errors import UsageError
from clipvet.inspection.base import ModelCheck, Run, Subject
from clipvet.inspection.calibration import settings_digest
from clipvet.inspection.feature_collapse import FeatureCollapse
from clipvet.inspection.null_file import NullFile, pack_null
from clipvet.inspection.references import Recipe, default_families, make_references
from clipvet.inspection.shots import LabelledFolders, PseudoLabelled, Shots
from clipvet.inspection.subject import CONCEPTS, subject_of
from clipvet.models.base import ClipModel
from clipvet.models.families import FAMILIES
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.tuning import schedule_of
from clipvet.models.zeroshot import HandWritten
from clipvet.types import NullKey, Skipped

__all__ = ["CalibrateOptions", "Calibrated", "Calibration", "open_calibration"]

POOL = 1000  # unlabelled images that classes take theirs from
POOL_SEED = 1 << 32  # added to the seed, so that no probe image is among the generated ones that references are tuned on


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """How the references of a null are made; None means "use the default".

    Attributes:
        references: how many.
        families: prompt families that are drawn from; None takes those that the base can carry.
        classes: the smallest and the largest number of class names of a reference.
        class_names: names that are drawn from; None takes common ones, or the folders of ``labelled``.
        images: folder of unlabelled images that the base labels itself; None generates some.
        labelled: folder with a folder of images per class, instead of images that the base labels.
    """

    references: int = 99
    families: tuple[str, ...] | None = None
    classes: tuple[int, int] = (10, 50)
    class_names: tuple[str, ...] | None = None
    images: Path | None = None
    labelled: Path | None = None

    def __post_init__(self) -> None:
        if self.references < 2:
            raise UsageError(f"expected at least 2 references, got {self.references}: 99 resolve a false-positive rate of 1/100")
        if self.images is not None and self.labelled is not None:
            raise UsageError("expected either images that the base labels itself or labelled ones, got both: leave one out")


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A null, why it has fewer references than were asked for (empty where it has them all), and images that were not read."""

    file: NullFile
    unfinished: str
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Everything that a null is made of.

    Attributes:
        base: the base that is calibrated.
        check: as an inspection runs it.
        probes: ``(n, 3, h, w)``, an inspection's probe images.
        shots: what references are tuned on.
        recipe: how they are drawn.
        count: how many.
        key: what the null is measured on.
        beyond: the check without classes, as an inspection runs it beside the first; None where it does not.
        skipped: images that were not read.
    """

    base: ClipModel
    check: ModelCheck
    probes: Tensor
    shots: Shots
    recipe: Recipe
    count: int
    key: NullKey
    beyond: FeatureCollapse | None = None
    skipped: tuple[Skipped, ...] = ()

    @property
    def identity(self) -> dict[str, object]:
        """What a reference depends on; their number is not among it, so that more can be made later.

        Nor is the check without classes: its number is kept under a name of its own, and made where it is missing.
        """
        probes = hashlib.sha256(self.probes.cpu().contiguous().numpy().data).hexdigest()
        recipe = self.recipe
        return {
            "clipvet": clipvet.__version__,
            "base": [self.key.base, self.base.quick_gelu],
            "check": self.key.settings,
            "probes": probes,
            "shots": self.shots.identity,
            "recipe": [recipe.families, recipe.names, recipe.classes, recipe.seed],
        }

    def run(self, run: Run) -> Calibrated:
        """Make the references that the journal does not hold yet.

        Raises:
            ClipvetError: too few of them learned anything.
        """
        made, unfinished = make_references(
            self.base, self.check, self.probes, self.shots, self.recipe, self.count, run, beyond=self.beyond
        )
        file = pack_null(
            made,
            check=self.check.name,
            key=self.key,
            base_name=self.base.name,
            pseudo_labelled=isinstance(self.shots, PseudoLabelled),
            beyond=self._key_beyond(),
        )
        return Calibrated(file=file, unfinished=unfinished, skipped=self.skipped)

    def example(self) -> Subject:
        """A reference that nobody tuned, with a middling number of classes, to estimate with."""
        names = self.recipe.names[: sum(self.recipe.classes) // 2]
        untuned = PromptedClassifier(self.base, HandWritten(self.base, names), names).freeze()
        return subject_of(untuned, self.base, self.check)[0]

    def passes(self) -> int:
        """Estimate the images through the tower: all checks, with a middling number of classes each, and all tunings.

        A step of a family that tunes texts only counts as if its images were passed: the texts take that time instead.
        """
        tuning = (schedule_of(family) for family in self._families().elements())
        checks = self.count * self.check.passes(self.example(), len(self.probes))
        if self.beyond is not None:
            checks += self._moved() * self.beyond.passes(len(self.probes))
        return checks + sum(one.steps * one.batch for one in tuning)

    def stages(self) -> tuple[str, ...]:
        """Say what is done, in the order in which it is done."""
        low, high = self.recipe.classes
        families = ", ".join(f"{count} {family}" for family, count in self._families().most_common())
        beyond = self.beyond if self._moved() else None
        beside = "" if beyond is None else f", {beyond.name} on the {self._moved()} that change the image tower"
        return (
            f"tune {self.count} prompts on {self.base.name} without a backdoor, {low} to {high} classes each: {families}",
            f"run {self.check.name} on each{beside}; probe images: {self.key.probes}",
            "write the null",
        )

    def _key_beyond(self) -> NullKey | None:
        if self.beyond is None:
            return None
        return replace(self.key, settings=settings_digest(self.beyond.name, asdict(self.beyond)))

    def _moved(self) -> int:
        return sum(count for family, count in self._families().items() if FAMILIES[family].changes_image_tower)

    def _families(self) -> Counter[str]:
        return Counter(self.recipe.draw(number).family for number in range(self.count))


def open_calibration(
    options: CalibrateOptions,
    *,
    base: ClipModel,
    check: ModelCheck,
    probes: Tensor,
    key: NullKey,
    seed: int,
    beyond: FeatureCollapse | None = None,
    unread: tuple[Skipped, ...] = (),
) -> Calibration:
    """Get everything together, and refuse what cannot be tuned before the long work begins.

    Args:
        options: how the references are made.
        base: the base that is calibrated.
        check: as an inspection runs it.
        probes: ``(n, 3, h, w)``, an inspection's probe images.
        key: what the null is measured on.
        seed: of every draw.
        beyond: the check without classes, where an inspection runs it.
        unread: probe images that were not read.

    Raises:
        UsageError: names, families and class counts do not go together, or the base has no room for them.
        UnreadableError: there are no images where they should be.
    """
    folders = None
    if options.labelled is not None:
        folders = LabelledFolders(options.labelled, base.image_size, names=options.class_names, device=base.device)
    recipe = Recipe(
        families=options.families or default_families(base),
        names=folders.names if folders else options.class_names or CONCEPTS,
        classes=options.classes,
        seed=seed,
    )
    recipe.try_on(base)
    shots, skipped = (folders, ()) if folders else _pseudo_labelled(options, base, seed)
    return Calibration(
        base=base,
        check=check,
        probes=probes,
        shots=shots,
        recipe=recipe,
        count=options.references,
        key=key,
        beyond=beyond,
        skipped=(*unread, *skipped),
    )


def _pseudo_labelled(options: CalibrateOptions, base: ClipModel, seed: int) -> tuple[Shots, tuple[Skipped, ...]]:
    if options.images is None:
        return PseudoLabelled(base, generate_probes(POOL, base.image_size, seed + POOL_SEED).to(base.device)), ()
    images, skipped = load_images(options.images, base.image_size, POOL, seed)
    return PseudoLabelled(base, images.to(base.device)), tuple(skipped)
