"""The public functions: each answers one question, from a path to a report. The command line adds nothing but words."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from clipvet.data.generated import generate_probes
from clipvet.data.images import load_images
from clipvet.errors import UsageError
from clipvet.inspection.base import Clock, ModelCheck, OutOfBudget, Run, Subject
from clipvet.inspection.calibration import fits, flag_of, judge, settings_digest, shipped_nulls
from clipvet.inspection.clip_inspector import ClipInspector
from clipvet.inspection.control import control_passes, run_controls
from clipvet.inspection.journal import Journal, MemoryJournal
from clipvet.inspection.margin_residual import MarginResidual
from clipvet.inspection.subject import subject_of
from clipvet.inspection.summary import Opened, Outcome, build_report
from clipvet.models.bases import load_base
from clipvet.models.delivery import open_delivery
from clipvet.types import CheckResult, Coverage, Null, Report, Skipped, Verdict

__all__ = ["InspectOptions", "InspectPlan", "inspect_model", "plan_inspection"]

Progress = Callable[[str, int, int], None]  # stage, done, total

PRESETS = ("default", "paper")
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
        preset: ``default``, or ``paper`` for CLIP-Inspector as published.
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
        if self.device != "cpu" and self.base is None:
            raise UsageError(f"expected --base with --device {self.device}: name the base, which is what is put there")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"expected a torch device that this machine has, got {self.device!r}: see `clipvet doctor`") from error


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
    probes, source, skipped = _probes(options, opened)
    passes = check.passes(opened.subject, len(probes)) + control_passes(check, opened.subject, probes)
    names = opened.delivery.info.class_names
    beside = len(opened.subject.classifier.class_names) - len(names)
    stages = (
        f"read {delivery} without running anything in it: {opened.delivery.info.family} prompt, {len(names)} classes",
        f"take {len(probes)} probe images: {source}" + (f" ({len(skipped)} files skipped)" if skipped else ""),
        f"{check.name}: search a trigger for each of {len(names)} classes" + (f" and {beside} names beside them" if beside else ""),
        "plant controls, judge against a null where one fits, and report",
    )
    return InspectPlan(stages=stages, image_passes=passes, seconds=passes * _seconds_per_pass(check, opened.subject, probes))


def inspect_model(delivery: Path, options: InspectOptions, *, progress: Progress | None = None) -> Report:
    """Inspect a delivered CLIP: read it safely, reconstruct a trigger per class, judge against a null, and report.

    Raises:
        ClipvetError: one sentence, when the delivery cannot be read or something must be stated first.
    """
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    opened, check = _open(delivery, options)
    probes, source, skipped = _probes(options, opened)
    run = Run(
        seed=options.seed,
        journal=_journal(options, opened, check, probes),
        clock=_clock(options, began),
        progress=progress or (lambda stage, done, total: None),
    )
    null = _null(opened, check, f"{source}, {len(probes)}")
    outcome = _search(check, opened, probes, run, null)
    judged = judge(outcome.result, null, controls=outcome.controls, findings=opened.delivery.findings)
    if outcome.unfinished and judged.verdict in (Verdict.NO_EVIDENCE, Verdict.INCONCLUSIVE):
        judged = dataclasses.replace(judged, verdict=Verdict.INCONCLUSIVE, reason=outcome.unfinished)
    return build_report(
        opened=opened,
        outcome=outcome,
        judged=judged,
        null=null,
        probes={"source": source, "count": len(probes)},
        skipped=skipped,
        options=options,
        started=started,
        seconds=time.monotonic() - began,
    )


def _open(path: Path, options: InspectOptions) -> tuple[Opened, ModelCheck]:
    base = load_base(options.base, device=options.device, quick_gelu=options.quick_gelu) if options.base else None
    delivery = open_delivery(
        path,
        base=base,
        family=options.family,
        class_names=options.class_names,
        position=options.position,
        quick_gelu=options.quick_gelu,
    )
    check = _check(options, delivery.classifier.model.image_size)
    subject, note = subject_of(delivery.classifier, delivery.base, check)
    return Opened(delivery=delivery, subject=subject, notes=(note,) if note else ()), check


def _check(options: InspectOptions, size: int) -> ModelCheck:
    """Choose the check of the preset, with the bound that fits the image size."""
    if options.preset == "paper":
        return ClipInspector(strength=PAPER_EPS.get(size, 4 / 255))
    return MarginResidual(strength=PAPER_EPS.get(size, 4 / 255))


def _probes(options: InspectOptions, opened: Opened) -> tuple[Tensor, str, tuple[Skipped, ...]]:
    size = opened.subject.classifier.model.image_size
    if options.probes is None:
        return generate_probes(options.probe_count, size, options.seed).to(options.device), GENERATED, ()
    images, skipped = load_images(options.probes, size, options.probe_count, options.seed)
    return images.to(options.device), f"images of {options.probes}", tuple(skipped)


def _base_identity(opened: Opened) -> str:
    base = opened.delivery.base
    return (base.sha256 or base.name) if base is not None else ""


def _null(opened: Opened, check: ModelCheck, probes: str) -> Null | None:
    """Find a shipped null that was measured on the like of this inspection; a delivery is no reference for itself."""
    if len(opened.subject.classifier.class_names) < check.least_classes:
        return None
    settings = settings_digest(check.name, dataclasses.asdict(check))
    n_classes, family = len(opened.delivery.info.class_names), opened.delivery.info.family
    base = _base_identity(opened)
    shipped = shipped_nulls(without=[file.sha256 for file in opened.delivery.files])
    like = (n for n in shipped if fits(n.key, base=base, family=family, n_classes=n_classes, settings=settings, probes=probes))
    return next(like, None)


def _journal(options: InspectOptions, opened: Opened, check: ModelCheck, probes: Tensor) -> MemoryJournal:
    if options.work is None:
        return MemoryJournal()
    identity = {
        "files": [file.sha256 for file in opened.delivery.files],
        "base": _base_identity(opened),
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


def _search(check: ModelCheck, opened: Opened, probes: Tensor, run: Run, null: Null | None) -> Outcome:
    """Run the check and its controls, or as much of them as the budget allows."""
    empty = CheckResult(check=check.name, statistic=float("nan"), settings=dataclasses.asdict(check))
    try:
        result = check.run(opened.subject, probes, run)
    except OutOfBudget as error:
        return Outcome(result=empty, controls=None, unfinished=str(error), coverage=Coverage(done=0, asked=2))
    try:
        control = run_controls(check, opened.subject, result, probes, run, flag=flag_of(check.name, null))
    except OutOfBudget as error:
        return Outcome(result=result, controls=None, unfinished=str(error), coverage=Coverage(done=1, asked=2))
    result = dataclasses.replace(result, control=control)
    return Outcome(result=result, controls=control["recovered"], unfinished="", coverage=Coverage(done=2, asked=2))


def _seconds_per_pass(check: ModelCheck, subject: Subject, probes: Tensor) -> float:
    """Time one forward and backward pass of a few images, after a first one that is not counted."""
    images = probes[: min(16, len(probes))]
    for _ in range(2):
        began = time.monotonic()
        pixels = images.clone().requires_grad_(True)
        with subject.mixed_precision(wanted=getattr(check, "mixed_precision", False)):
            subject.classifier(pixels).sum().backward()
    return (time.monotonic() - began) / len(images)
