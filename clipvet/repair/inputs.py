"""What a repair is given but the triggers: the delivery, the prompt to tune, the images, and where the results go."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
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
from clipvet.repair.files import Places, places
from clipvet.repair.measuring import hold_out
from clipvet.repair.options import RepairOptions
from clipvet.types import Skipped

__all__ = ["Images", "Inputs", "read_inputs"]


@dataclass(frozen=True, kw_only=True)
class Images:
    """What is tuned on and what is measured on, and both in words."""

    tune: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    tuned_on: str
    measured_on: str


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """All that a repair is given but the triggers: the delivery, the prompt to tune, the images, and where the results go."""

    opened: Delivery
    prompt: PromptedClassifier
    images: Images
    file: TensorFile
    where: Places
    notes: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def read_inputs(delivery: Path, options: RepairOptions) -> Inputs:
    """Read all that a repair is given but the triggers, which take minutes to find.

    Args:
        delivery: a checkpoint file or run folder.
        options: what is stated about the repair.

    Raises:
        ClipvetError: one sentence, when something cannot be read, is no prompt, or must be stated first.
    """
    opened = _open(delivery, options)
    checkpoint = resolve_delivery(delivery)
    file = read_tensors(checkpoint)
    where = places(options.out, delivery, checkpoint, file.record.reader)
    prompt, note = _on_trusted_towers(opened)
    labelled = _labelled(options.labelled, prompt, options)
    tested = _labelled(options.test, prompt, options) if options.test is not None else None
    return Inputs(
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


def _split(labelled: LabelledImages, tested: LabelledImages | None, options: RepairOptions) -> Images:
    """Take the test folder to measure on, or hold out some of the labelled images, or say that there were too few."""
    images, labels = labelled.images, labelled.labels
    if tested is not None:
        return Images(
            tune=(images, labels),
            test=(tested.images, tested.labels),
            tuned_on=f"{len(labels)} images of {options.labelled}",
            measured_on=f"{len(tested.labels)} images of {options.test}, which were not tuned on",
        )
    kept, held = hold_out(labels.cpu(), options.seed)
    same = len(kept) == len(labels)
    return Images(
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
