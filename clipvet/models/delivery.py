"""From what was handed over to a classifier, and everything that the delivery says, or gives away, about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipvet.errors import UnknownLayoutError, UsageError
from clipvet.models._class_names import names_in_metadata, settle_class_names
from clipvet.models._hints import read_hints
from clipvet.models._opening import Opening, Stated, settle_base, settle_family, settle_position
from clipvet.models.base import ClipModel
from clipvet.models.bases import whole_from_file, with_activation, with_state
from clipvet.models.claims import check_prefix, compare_frozen, compare_whole, tower_name, tower_tensors
from clipvet.models.families import prompt_from_tensors
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.reading import find_anomalies, read_tensors, resolve_delivery
from clipvet.models.recognise import Family
from clipvet.models.zeroshot import HandWritten
from clipvet.types import DeliveryInfo, FileRecord, Finding

__all__ = ["Delivery", "open_delivery"]

_SATELLITE = "a centered satellite photo of {}."


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """An opened delivery.

    Attributes:
        info: what it was found to be, for the report.
        classifier: the model as delivered, frozen, and its class names.
        base: the trusted base; None for a whole model without one.
        findings: what reading and comparing it brought up.
        files: what was read.
        notes: how gaps were filled, one sentence each.
    """

    info: DeliveryInfo
    classifier: PromptedClassifier
    base: ClipModel | None
    findings: tuple[Finding, ...] = ()
    files: tuple[FileRecord, ...] = ()
    notes: tuple[str, ...] = ()


def open_delivery(
    path: str | Path,
    *,
    base: ClipModel | None = None,
    family: str | None = None,
    class_names: Sequence[str] | None = None,
    position: str | None = None,
    quick_gelu: bool | None = None,
) -> Delivery:
    """Read a delivery safely, recognise it, and build the classifier that it is.

    What the user states is used, with a finding where the file contradicts it. What the user does not state is read off the
    tensors, then from the files beside them. Towers that a delivery carries are used as delivered, since they are what would
    be deployed, and every difference from the base is a finding.

    Args:
        path: a checkpoint, a Dassl run folder, an open_clip or Hugging Face folder.
        base: the CLIP that it claims to build on, from a source that the user trusts. Only the bases shipped with clipvet are
            found without being named.
        family: a key of `clipvet.models.recognise.FAMILY`, where the file cannot tell.
        class_names: one per class, in the order of the logits.
        position: where CoOp's class name stands, ``end``, ``middle`` or ``front``.
        quick_gelu: activation of the model; by default the base's, or what a whole model's file says.

    Raises:
        UnreadableError: it cannot be read, or was refused.
        UnknownLayoutError: it was read and is nothing that can be inspected.
        UsageError: the base or the class names must be stated, or do not fit.
    """
    path = Path(path)
    file = read_tensors(resolve_delivery(path))
    names = None if class_names is None else tuple(class_names)
    opening = Opening(
        path=path,
        file=file,
        hints=read_hints(path),
        metadata=file.extras if file.record.reader == "safetensors" else {},
        stated=Stated(base=base, family=family, class_names=names, position=position, quick_gelu=quick_gelu),
        findings=find_anomalies(file),
    )
    found = settle_family(opening)
    if found.unsupported:
        raise UnknownLayoutError(
            f"{path}: it is a {found.title} file, which is understood but cannot be inspected: {found.unsupported}"
        )
    return _open_whole(opening) if found.name == "whole" else _open_prompt(opening, found)


def _open_whole(opening: Opening) -> Delivery:
    stated = opening.stated
    names, source = stated.class_names, "stated by the user"
    if names is None:
        names, source = names_in_metadata(opening), "the file's metadata"
    if not names:
        raise UsageError(f"{opening.path}: it is a whole model, which knows no classes: name them with --classes")
    loaded = whole_from_file(opening.file, hints=opening.hints, base=stated.base, quick_gelu=stated.quick_gelu)
    model = loaded.model
    if stated.base is not None:
        opening.findings += compare_whole(loaded.converted.state, stated.base)
        model = model.to(stated.base.device)
    opening.notes += [*loaded.notes, f"Layout: {loaded.converted.layout}."]
    classifier = PromptedClassifier(model, HandWritten(model, names), names).freeze()
    return _delivery(opening, "whole", classifier, stated.base, source)


def _open_prompt(opening: Opening, family: Family) -> Delivery:
    tensors = opening.file.tensors
    base = settle_base(opening, family)
    if opening.stated.quick_gelu is not None:
        base = with_activation(base, opening.stated.quick_gelu)
    opening.notes.append(
        f"Activation: {'QuickGELU' if base.quick_gelu else 'GELU'}, "
        + ("the base's." if opening.stated.quick_gelu is None else "stated by the user.")
    )
    for name, values in tensors.items():
        if name.removeprefix("prompt_learner.") == "token_prefix":
            opening.findings += check_prefix(values, base)
    names, source = settle_class_names(opening, family, base)
    model = _as_delivered(opening, family, base)
    own = {name: values for name, values in tensors.items() if not (family.towers and tower_name(name))}
    satellite = family.name == "tcp" and opening.hints.dataset == "EuroSAT"
    if satellite:
        opening.notes.append(f"Class features: '{_SATELLITE}', as TCP's code has it for EuroSAT, the data set that the log names.")
    wording = opening.metadata.get("wording", "")
    prompt = prompt_from_tensors(
        family.name,
        own,
        model,
        names,
        position=settle_position(opening, family),
        wording=wording if "{}" in wording else "",
        feature_wording=_SATELLITE if satellite else "",
    )
    classifier = PromptedClassifier(model, prompt, names).freeze()
    return _delivery(opening, family.name, classifier, base, source)


def _delivery(opening: Opening, family: str, classifier: PromptedClassifier, base: ClipModel | None, names_source: str) -> Delivery:
    notes = tuple(opening.notes)
    info = DeliveryInfo(
        path=str(opening.path),
        family=family,
        base=base.name if base is not None else "",
        class_names=classifier.class_names,
        class_names_source=names_source,
        quick_gelu=classifier.model.quick_gelu,
        notes=notes,
    )
    file = opening.file
    files = (file.record, *file.parts)
    return Delivery(info=info, classifier=classifier, base=base, findings=tuple(opening.findings), files=files, notes=notes)


def _as_delivered(opening: Opening, family: Family, base: ClipModel) -> ClipModel:
    """The base with the towers that the delivery carries, if any; differences become findings."""
    if not family.towers:
        return base
    tensors = opening.file.tensors
    known = base.clip.state_dict()
    towers = {name: values for name, values in tower_tensors(tensors).items() if name in known}
    wrong = [name for name, values in towers.items() if values.shape != known[name].shape]
    if wrong:
        raise UsageError(
            f"{opening.path}: its towers are not those of {base.name} ({wrong[0]} has the shape {tuple(towers[wrong[0]].shape)}, "
            f"expected {tuple(known[wrong[0]].shape)}): name the base that it was tuned on"
        )
    differences = compare_frozen(tensors, base)
    opening.findings += differences
    if not towers:
        opening.notes.append("The file carries no towers; the base's were used.")
        return base
    if not differences:
        opening.notes.append(f"All {len(towers)} tensors of the delivered towers equal those of {base.name}.")
        return base
    moved = {name: values.to(base.device) for name, values in towers.items()}
    return with_state(base, moved, name=f"{base.name}, as delivered")
