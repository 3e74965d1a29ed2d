"""A repair from path to report: read, tune, write, and measure what was written beside what was delivered."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from clipvet.data.labelled import LabelledImages, load_labelled
from clipvet.errors import UsageError
from clipvet.models.bases import load_base
from clipvet.models.delivery import Delivery, open_delivery
from clipvet.models.families import FAMILIES, prompt_from_tensors
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.reading import TensorFile, read_tensors, resolve_delivery
from clipvet.models.saving import wording_of
from clipvet.repair.base import Progress, Stamps
from clipvet.repair.files import Places, places, write
from clipvet.repair.measuring import Predicted, compare_ca, compare_triggers, hold_out, predicted
from clipvet.repair.options import RepairOptions
from clipvet.types import BeforeAfter, Evidence, FileRecord, RepairedTrigger, RepairReport, Skipped

__all__ = ["LARGEST_ASR", "check_inputs", "repair_model"]

LARGEST_ASR = 0.05  # of every reconstructed trigger of the first target, after a repair that succeeded
USED = 4  # triggers, those of the first rows


@dataclass(frozen=True, kw_only=True)
class _Images:
    """What is tuned on and what is measured on, and both in words."""

    tune: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    tuned_on: str
    measured_on: str


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """All that a repair is given but the triggers: the delivery, the prompt to tune, the images, and where the results go."""

    opened: Delivery
    prompt: PromptedClassifier
    images: _Images
    file: TensorFile
    where: Places
    notes: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def check_inputs(delivery: Path, options: RepairOptions) -> None:
    """Read all that a repair is given but the triggers, which take minutes to find: raises what :func:`repair_model` would."""
    _read(delivery, options)


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
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    report = progress or (lambda stage, done, total: None)
    given = _read(delivery, options)
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


def _read(delivery: Path, options: RepairOptions) -> _Inputs:
    opened = _open(delivery, options)
    checkpoint = resolve_delivery(delivery)
    file = read_tensors(checkpoint)
    where = places(options.out, delivery, checkpoint, file.record.reader)
    prompt, note = _on_trusted_towers(opened)
    labelled = _labelled(options.labelled, prompt, options)
    tested = _labelled(options.test, prompt, options) if options.test is not None else None
    return _Inputs(
        opened=opened,
        prompt=prompt,
        images=_split(labelled, tested, options),
        file=file,
        where=where,
        notes=(*opened.notes, *note, *_envelope_note(where, file.envelope)),
        skipped=labelled.skipped + (tested.skipped if tested is not None else ()),
    )


def _open(delivery: Path, options: RepairOptions) -> Delivery:
    base = load_base(options.base, device=options.device, quick_gelu=options.quick_gelu) if options.base else None
    opened = open_delivery(
        delivery,
        base=base,
        family=options.family,
        class_names=options.class_names,
        position=options.position,
        quick_gelu=options.quick_gelu,
    )
    if opened.info.family not in FAMILIES or not opened.classifier.prompt.state():
        known = ", ".join(name for name in FAMILIES if name != "zero-shot")
        raise UsageError(
            f"{delivery}: expected a prompt-tuned delivery ({known}), found a model without a learned prompt: "
            "what is repaired is the prompt, so take the model itself from its source again"
        )
    return opened


def _on_trusted_towers(opened: Delivery) -> tuple[PromptedClassifier, tuple[str, ...]]:
    """Put the prompt on the base's own towers, where the delivery brought others: tuning a prompt does not mend a tower."""
    delivered, base = opened.classifier, opened.base
    if base is None or delivered.model is base:
        return delivered, ()
    prompt = delivered.prompt
    wording, position = wording_of(prompt), getattr(prompt, "position", "end")
    names = delivered.class_names
    moved = prompt_from_tensors(prompt.family, prompt.state(), base, names, position=position, wording=wording)
    note = f"The delivered towers differ from {base.name}: the repaired prompt was tuned on the base's own and belongs on those."
    return PromptedClassifier(base, moved, names).freeze(), (note,)


def _labelled(folder: Path, classifier: PromptedClassifier, options: RepairOptions) -> LabelledImages:
    size = classifier.model.image_size
    found = load_labelled(folder, classifier.class_names, size, most=options.per_class, seed=options.seed)
    device = classifier.model.device
    return dataclasses.replace(found, images=found.images.to(device), labels=found.labels.to(device))


def _split(labelled: LabelledImages, tested: LabelledImages | None, options: RepairOptions) -> _Images:
    """Take the test folder to measure on, or hold out some of the labelled images, or say that there were too few."""
    images, labels = labelled.images, labelled.labels
    if tested is not None:
        return _Images(
            tune=(images, labels),
            test=(tested.images, tested.labels),
            tuned_on=f"{len(labels)} images of {options.labelled}",
            measured_on=f"{len(tested.labels)} images of {options.test}, which were not tuned on",
        )
    kept, held = hold_out(labels.cpu(), options.seed)
    same = len(kept) == len(labels)
    return _Images(
        tune=(images[kept], labels[kept]),
        test=(images[held], labels[held]),
        tuned_on=f"{len(kept)} images of {options.labelled}",
        measured_on=f"the {len(held)} images that were tuned on, since they are too few to hold some out: the numbers flatter"
        if same
        else f"{len(held)} images of {options.labelled} that were held out of the tuning",
    )


def _envelope_note(where: Places, envelope: str) -> tuple[str, ...]:
    if where.envelope is None:
        return ("The delivery was no torch file, so only clipvet's own layout was written.",)
    kept = "its optimizer and schedule are left empty, so it is to be used and not tuned on with --resume" if envelope else ""
    return (f"The original form was written too ({where.envelope.name})" + (f"; {kept}." if kept else "."),)


def _report(
    given: _Inputs,
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
