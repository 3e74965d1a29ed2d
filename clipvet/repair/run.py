"""A repair from path to report: read, tune, write, and measure what was written beside what was delivered."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from clipvet.models.delivery import open_delivery
from clipvet.repair.base import LARGEST_ASR, Progress, Stamps
from clipvet.repair.files import write
from clipvet.repair.inputs import Inputs, read_inputs
from clipvet.repair.measuring import Predicted, compare_ca, compare_triggers, predicted
from clipvet.repair.options import RepairOptions
from clipvet.types import BeforeAfter, Evidence, FileRecord, RepairedTrigger, RepairReport

__all__ = ["repair_inputs", "repair_model"]

USED = 4  # triggers, those of the first rows


def repair_model(
    delivery: Path, evidence: Sequence[Evidence], options: RepairOptions, *, progress: Progress | None = None
) -> RepairReport:
    """Repair a delivered prompt with the triggers that an inspection reconstructed, write it, and measure what that cost.

    Args:
        delivery: a checkpoint file or run folder; it is never changed.
        evidence: rows with reconstructed triggers, the most suspicious first; the first four are used.
        options: what is stated about the repair.
        progress: called with (stage, done, total).

    Raises:
        ClipvetError: one sentence, when something cannot be read, is no prompt, or must be stated first.
    """
    return repair_inputs(read_inputs(delivery, options), evidence, options, progress=progress)


def repair_inputs(
    given: Inputs, evidence: Sequence[Evidence], options: RepairOptions, *, progress: Progress | None = None
) -> RepairReport:
    """:func:`repair_model` of inputs that were read already, with the same options."""
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    report = progress or (lambda stage, done, total: None)
    model, (pictures, _) = given.prompt.model, given.images.test
    rows = list(evidence)[:USED]
    stamps = Stamps.of(rows, model.image_size).to(model.device)
    tuned = options.method.run(given.prompt, *given.images.tune, rows, seed=options.seed, progress=report)
    written = write(given.where, tuned, given.file)
    report("measuring", 0, 2)
    old = predicted(given.opened.classifier, pictures, stamps)
    report("measuring", 1, 2)
    repaired = open_delivery(given.where.own, base=model, quick_gelu=options.quick_gelu).classifier  # what was written counts
    new = predicted(repaired, pictures, stamps)
    report("measuring", 2, 2)
    made = _report(given, options, old, new, rows, written)
    return dataclasses.replace(made, started=started, seconds=time.monotonic() - began)


def _report(
    given: Inputs,
    options: RepairOptions,
    old: Predicted,
    new: Predicted,
    rows: Sequence[Evidence],
    written: tuple[FileRecord, ...],
) -> RepairReport:
    labels = given.images.test[1].cpu()
    ca, triggers = compare_ca(old, new, labels), compare_triggers(old, new, labels, rows)
    own = [trigger.asr.after for trigger in triggers if trigger.target_index == triggers[0].target_index]
    succeeded = max(own) <= LARGEST_ASR
    settings = {name: value for name, value in vars(options).items() if value is not None and name != "method"}
    return RepairReport(
        delivery=given.opened.info,
        method=options.method.name,
        succeeded=succeeded,
        largest_asr=LARGEST_ASR,
        summary=_summary(ca, triggers[0], max(own)),
        ca=ca,
        triggers=triggers,
        tuned_on=given.images.tuned_on,
        measured_on=given.images.measured_on,
        notes=given.notes,
        skipped=given.skipped,
        files=given.opened.files,
        written=written,
        settings=settings | dataclasses.asdict(options.method),
        environment=_environment(),
        next_steps=_next_steps(written, succeeded),
    )


def _summary(ca: BeforeAfter, first: RepairedTrigger, worst: float) -> str:
    how = "within" if worst <= LARGEST_ASR else "above"
    return (
        f"The reconstructed trigger reached '{first.target}' on {first.asr.before:.1%} of images before and on "
        f"{first.asr.after:.1%} after. The strongest that was tried for this class reaches {worst:.1%}, {how} the bound of "
        f"{LARGEST_ASR:.0%}. CA went from {ca.before:.1%} to {ca.after:.1%}."
    )


def _next_steps(written: tuple[FileRecord, ...], succeeded: bool) -> tuple[str, ...]:
    inspect = f"Inspect the repaired file with another seed before it is used: clipvet inspect {written[0].path} --seed 1"
    if succeeded:
        return (inspect, "Measure CA on images of your own that were neither tuned on nor measured on here.")
    return (
        "Do not use the repaired file: repair with more labelled images, or tune a prompt of your own on the same base.",
        inspect,
    )


def _environment() -> dict[str, str]:
    packages = ("clipvet", "torch", "open_clip_torch", "numpy", "safetensors")
    return {"python": platform.python_version(), "platform": platform.platform()} | {name: version(name) for name in packages}
