"""The public functions: each answers one question, from a path to a report. The command line adds nothing but words."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor

from clipvet.data.generated import generate_probes
from clipvet.data.images import load_images
from clipvet.errors import UsageError
from clipvet.inspection.base import Clock, ModelCheck, OutOfBudget, Run
from clipvet.inspection.beyond import Beyond, look_beyond
from clipvet.inspection.calibrating import Calibrated, CalibrateOptions, Calibration, open_calibration
from clipvet.inspection.calibration import flag_of, identity_of, judge, kind_of, settings_digest
from clipvet.inspection.choosing import choose_beyond, choose_null
from clipvet.inspection.clip_inspector import ClipInspector
from clipvet.inspection.control import control_passes
from clipvet.inspection.feature_collapse import FeatureCollapse
from clipvet.inspection.journal import Journal, MemoryJournal
from clipvet.inspection.margin_residual import MarginResidual
from clipvet.inspection.neural_cleanse import NeuralCleanse
from clipvet.inspection.pixel_backdoor import PixelBackdoor
from clipvet.inspection.running import search_and_control, seconds_per_pass
from clipvet.inspection.subject import subject_of
from clipvet.inspection.summary import Opened, build_report
from clipvet.models.base import ClipModel
from clipvet.models.bases import check_device, load_base
from clipvet.models.delivery import open_delivery
from clipvet.types import Null, NullKey, Report, Skipped, Verdict

__all__ = [
    "CalibrateOptions",
    "Calibrated",
    "InspectOptions",
    "InspectPlan",
    "calibrate_base",
    "inspect_model",
    "plan_calibration",
    "plan_inspection",
]

Progress = Callable[[str, int, int], None]  # stage, done, total

PRESETS = ("default", "paper", "neural-cleanse", "pixel-backdoor")
GENERATED = "generated pool"
PAPER_EPS = {224: 4 / 255, 64: 8 / 255}  # the same reach at another resolution


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """What a person may state about an inspection; None means "find out" or "use the default".

    Attributes:
        base: name or path of the CLIP that the delivery builds on, from a source the user trusts.
        family: prompt family, where the file leaves it open.
        class_names: in the order of the logits, where the file does not hold them.
        position: place of the class token in a CoOp prompt: end, middle or front.
        quick_gelu: whether the base uses QuickGELU.
        probes: folder of unlabelled images; None uses the generated pool.
        probe_count: how many probe images are used at most.
        null: file of ``clipvet calibrate`` that is judged against, before the nulls that ship.
        preset: ``default``, ``paper`` for CLIP-Inspector as published, or ``neural-cleanse`` or ``pixel-backdoor``, two earlier
            methods adapted to CLIP to compare with.
        seed: the one seed of everything random.
        budget: seconds after which no further group of classes is begun.
        work: folder for the state that ``resume`` picks up; None keeps none.
        resume: go on from the state in ``work``.
        device: torch device.
    """

    base: str | None = None
    family: str | None = None
    class_names: tuple[str, ...] | None = None
    position: str | None = None
    quick_gelu: bool | None = None
    probes: Path | None = None
    probe_count: int = 1000
    null: Path | None = None
    preset: str = "default"
    seed: int = 0
    budget: float | None = None
    work: Path | None = None
    resume: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"expected a preset out of {', '.join(PRESETS)}, got {self.preset!r}")
        if self.probe_count < 1:
            raise UsageError(f"expected at least one probe image, got {self.probe_count}")
        if self.budget is not None and self.budget <= 0:
            raise UsageError(f"expected a positive budget, got {self.budget} s")
        if self.resume and self.work is None:
            raise UsageError("expected --out with --resume: the state to go on from lies in that folder")
        check_device(self.device, self.base)


@dataclass(frozen=True, kw_only=True)
class InspectPlan:
    """What an inspection would do: one line per stage, encoder passes, and seconds on this machine (a short timing)."""

    stages: tuple[str, ...]
    image_passes: int
    seconds: float


def plan_inspection(delivery: Path, options: InspectOptions) -> InspectPlan:
    """Say what :func:`inspect_model` would do, without searching for anything; a few passes are timed for the estimate.

    Raises:
        ClipvetError: as :func:`inspect_model`.
    """
    opened, check = _open(delivery, options)
    probes, source, skipped = _probes(options, opened.subject.classifier.model.image_size)
    passes = check.passes(opened.subject, len(probes)) + control_passes(check, opened.subject, probes)
    if opened.beyond is not None and opened.beyond.applies(opened.subject):
        passes += opened.beyond.passes(len(probes))
    null, _ = _null(options, opened, check, f"{source}, {len(probes)}")
    names = opened.delivery.info.class_names
    beside = len(opened.subject.classifier.class_names) - len(names)
    stages = (
        f"read {delivery} without running anything in it: {opened.delivery.info.family} prompt, {len(names)} classes",
        f"take {len(probes)} probe images: {source}" + (f" ({len(skipped)} files skipped)" if skipped else ""),
        f"{check.name}: search a trigger for each of {len(names)} classes" + (f" and {beside} names beside them" if beside else ""),
        f"plant controls, judge {f'against {len(null.values)} references' if null else 'without a null'}, and report",
    )
    return InspectPlan(stages=stages, image_passes=passes, seconds=passes * seconds_per_pass(check, opened.subject, probes))


def inspect_model(
    delivery: Path, options: InspectOptions, *, progress: Progress | None = None, base: ClipModel | None = None
) -> Report:
    """Inspect a delivered CLIP: read it safely, reconstruct a trigger per class, judge against a null, and report.

    Args:
        delivery: a checkpoint file or run folder.
        options: what is stated about the inspection.
        progress: called with (stage, done, total).
        base: the model that ``options.base`` names, where the caller has loaded it already.

    Raises:
        ClipvetError: one sentence, when the delivery cannot be read or something must be stated first.
    """
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    opened, check = _open(delivery, options, base)
    probes, source, skipped = _probes(options, opened.subject.classifier.model.image_size)
    run = Run(
        seed=options.seed,
        journal=_journal(options, opened, check, probes),
        clock=_clock(options, began),
        progress=progress or (lambda stage, done, total: None),
    )
    null, unused = _null(options, opened, check, f"{source}, {len(probes)}")
    beside = _null_beyond(options, opened, f"{source}, {len(probes)}")
    outcome = search_and_control(check, opened, probes, run, flag=flag_of(check.name, null))
    beyond = Beyond() if opened.beyond is None else look_beyond(opened.beyond, opened.subject, probes, run, null=beside)
    judged = judge(outcome.result, null, controls=outcome.controls, findings=(*opened.delivery.findings, *beyond.findings))
    if outcome.unfinished and judged.verdict in (Verdict.NO_EVIDENCE, Verdict.INCONCLUSIVE):
        judged = dataclasses.replace(judged, verdict=Verdict.INCONCLUSIVE, reason=outcome.unfinished)
    return build_report(
        opened=opened,
        outcome=outcome,
        beyond=beyond,
        judged=judged,
        null=null,
        probes={"source": source, "count": len(probes)},
        skipped=(*skipped, *unused),
        options=options,
        started=started,
        seconds=time.monotonic() - began,
    )


def calibrate_base(like: InspectOptions, how: CalibrateOptions, *, progress: Progress | None = None) -> Calibrated:
    """Build a null for the deliveries on a base: tune prompts on it without a backdoor, and run on each what inspects them.

    Args:
        like: how deliveries will be inspected; ``work`` keeps every finished reference, ``budget`` ends between two of them.
        how: how the references are made.
        progress: called with (stage, done, total).

    Raises:
        ClipvetError: one sentence, when the base, names or images do not serve, or too few references learned anything.
    """
    began, calibration = time.monotonic(), _calibration(like, how)
    journal = Journal(like.work, identity=calibration.identity, resume=like.resume) if like.work else MemoryJournal()
    quiet = progress or (lambda stage, done, total: None)
    return calibration.run(Run(seed=like.seed, journal=journal, clock=_clock(like, began), progress=quiet))


def plan_calibration(like: InspectOptions, how: CalibrateOptions) -> InspectPlan:
    """Say what :func:`calibrate_base` would do, without tuning anything; a few passes are timed for the estimate.

    Raises:
        ClipvetError: as :func:`calibrate_base`.
    """
    calibration = _calibration(like, how)
    subject, passes = calibration.example(), calibration.passes()
    seconds = passes * seconds_per_pass(calibration.check, subject, calibration.probes)
    return InspectPlan(stages=calibration.stages(), image_passes=passes, seconds=seconds)


def _calibration(like: InspectOptions, how: CalibrateOptions) -> Calibration:
    if like.base is None:
        raise UsageError("expected the base that is to be calibrated, got none: name it with --base")
    base = load_base(like.base, device=like.device, quick_gelu=like.quick_gelu)
    check, (probes, source, unread) = _check(like, base.image_size), _probes(like, base.image_size)
    settings, source = settings_digest(check.name, dataclasses.asdict(check)), f"{source}, {len(probes)}"
    key = NullKey(base=identity_of(base), family=kind_of("coop"), classes=how.classes, settings=settings, probes=source)
    beyond = _collapse(like, base.image_size)
    return open_calibration(how, base=base, check=check, probes=probes, key=key, seed=like.seed, beyond=beyond, unread=unread)


def _open(path: Path, options: InspectOptions, base: ClipModel | None = None) -> tuple[Opened, ModelCheck]:
    if base is None and options.base:
        base = load_base(options.base, device=options.device, quick_gelu=options.quick_gelu)
    delivery = open_delivery(
        path,
        base=base,
        family=options.family,
        class_names=options.class_names,
        position=options.position,
        quick_gelu=options.quick_gelu,
    )
    size = delivery.classifier.model.image_size
    check, beyond = _check(options, size), _collapse(options, size)
    subject, note = subject_of(delivery.classifier, delivery.base, check)
    return Opened(delivery=delivery, subject=subject, beyond=beyond, notes=(note,) if note else ()), check


def _check(options: InspectOptions, size: int) -> ModelCheck:
    """Choose the check of the preset, with the bound that fits the image size."""
    strength = PAPER_EPS.get(size, 4 / 255)
    if options.preset == "paper":
        return ClipInspector(strength=strength)
    if options.preset == "neural-cleanse":
        return NeuralCleanse(strength=strength)
    if options.preset == "pixel-backdoor":
        return PixelBackdoor(strength=strength)
    return MarginResidual(strength=strength)


def _collapse(options: InspectOptions, size: int) -> FeatureCollapse | None:
    """Set up the check that looks for a target outside the class names; it runs beside the default check only."""
    return FeatureCollapse(strength=PAPER_EPS.get(size, 4 / 255)) if options.preset == "default" else None


def _probes(options: InspectOptions, size: int) -> tuple[Tensor, str, tuple[Skipped, ...]]:
    if options.probes is None:
        return generate_probes(options.probe_count, size, options.seed).to(options.device), GENERATED, ()
    images, skipped = load_images(options.probes, size, options.probe_count, options.seed)
    return images.to(options.device), f"images of {options.probes}", tuple(skipped)


def _null(options: InspectOptions, opened: Opened, check: ModelCheck, probes: str) -> tuple[Null | None, tuple[Skipped, ...]]:
    """Find a null that was measured on the like of this inspection; a delivery is no reference for itself."""
    enough = len(opened.subject.classifier.class_names) >= check.least_classes
    return choose_null(opened.null_key(check, probes), own=options.null, shipped=opened.shipped_nulls(), enough_names=enough)


def _null_beyond(options: InspectOptions, opened: Opened, probes: str) -> Null | None:
    if opened.beyond is None:
        return None
    return choose_beyond(opened.null_key(opened.beyond, probes), own=options.null, shipped=opened.shipped_nulls())


def _journal(options: InspectOptions, opened: Opened, check: ModelCheck, probes: Tensor) -> MemoryJournal:
    if options.work is None:
        return MemoryJournal()
    identity = {
        "files": [file.sha256 for file in opened.delivery.files],
        "base": identity_of(opened.delivery.base),
        "classes": opened.subject.classifier.class_names,
        "check": settings_digest(check.name, dataclasses.asdict(check)),
        "read as": [options.family, options.position, options.quick_gelu],
        "probes": hashlib.sha256(probes.cpu().contiguous().numpy().data).hexdigest(),
        "seed": options.seed,
    }
    return Journal(options.work, identity=identity, resume=options.resume)


def _clock(options: InspectOptions, began: float) -> Clock:
    def tick() -> None:
        if options.budget is not None and time.monotonic() - began > options.budget:
            raise OutOfBudget(f"the budget of {options.budget:.0f} s was used up")

    return tick
