"""What changed between two deliveries, bases or whole models: both are read safely, and nothing in them runs."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipvet.data.generated import generate_probes
from clipvet.errors import ClipvetError, UnknownLayoutError, UsageError
from clipvet.models._class_names import names_in_metadata
from clipvet.models._hints import Hints, read_hints
from clipvet.models._opening import Opening, Stated
from clipvet.models.base import ClipModel
from clipvet.models.delivery import Delivery, open_delivery
from clipvet.models.reading import TensorFile, read_tensors, resolve_delivery
from clipvet.models.recognise import recognise
from clipvet.models.tensor_diff import compare_tensors, parts_of
from clipvet.models.whole import convert
from clipvet.types import Difference, DiffReport, DiffSide, NameChanges, TextMove

__all__ = ["compare_deliveries", "compare_names"]

PROBES = 16  # images that texts are averaged over where they depend on the image


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One side as it was read.

    ``tensors`` are under open_clip's names for a whole model; ``delivery`` is None where none could be built.
    """

    info: DiffSide
    file: TensorFile
    hints: Hints
    tensors: Mapping[str, Tensor]
    delivery: Delivery | None


def compare_deliveries(
    old: Path, new: Path, *, base: ClipModel | None = None, class_names: Sequence[str] | None = None
) -> DiffReport:
    """Say what changed from one delivery to another.

    Tensors are compared under the names that they have in the files, whole models under open_clip's names, so that a copy in
    another layout is the same model. Where both are prompts on one base, the texts of their classes are encoded and compared.

    Args:
        old: a checkpoint or folder.
        new: another.
        base: the CLIP that prompts build on; those that ship with clipvet are found without it.
        class_names: those of a prompt whose file does not hold them.

    Raises:
        UnreadableError: one of them cannot be read, or was refused.
    """
    one, two = (_read(path, base, class_names) for path in (old, new))
    changes, sums = compare_tensors(one.tensors, two.tensors)
    names = compare_names(one.info.class_names, two.info.class_names)
    texts, notes = _texts(one, two, names)
    metadata = _metadata(one, two)
    hashes = [sorted(file.sha256 for file in side.info.files) for side in (one, two)]
    return DiffReport(
        old=one.info,
        new=two.info,
        changed=hashes[0] != hashes[1] or bool(changes or metadata) or names != NameChanges(),
        identical=tuple((a.path, b.path) for a in one.info.files for b in two.info.files if a.sha256 == b.sha256),
        names=names,
        parts=parts_of(changes, sums),
        tensors=changes,
        texts=texts,
        median=statistics.median(move.cosine for move in texts) if texts else None,
        metadata=metadata,
        notes=notes,
    )


def _read(path: Path, base: ClipModel | None, class_names: Sequence[str] | None) -> _Side:
    file, hints = read_tensors(resolve_delivery(path)), read_hints(path)
    tensors: Mapping[str, Tensor] = file.tensors
    delivery, notes = None, []
    try:
        family = recognise(tensors).name
        if family == "whole":
            converted = convert(tensors)
            tensors = converted.state | {name: tensors[name] for name in converted.unknown}
        else:
            delivery = _open(path, base, class_names)
            family = delivery.info.family
    except UnknownLayoutError as error:
        family = ""
        notes.append(str(error))
    except ClipvetError as error:
        notes.append(str(error))
    names = delivery.info.class_names if delivery is not None else _written_names(path, file, hints)
    info = DiffSide(
        path=str(path),
        family=family,
        base=delivery.info.base if delivery is not None else "",
        class_names=names,
        context_length=_context_length(tensors),
        files=(file.record, *file.parts),
        notes=tuple(notes),
    )
    return _Side(info=info, file=file, hints=hints, tensors=tensors, delivery=delivery)


def _open(path: Path, base: ClipModel | None, class_names: Sequence[str] | None) -> Delivery:
    """Open a prompt; the names that are stated are for a file that has none of its own."""
    try:
        return open_delivery(path, base=base)
    except UsageError:
        if class_names is None:
            raise
        return open_delivery(path, base=base, class_names=class_names)


def _written_names(path: Path, file: TensorFile, hints: Hints) -> tuple[str, ...]:
    stated = Stated(base=None, family=None, class_names=None, position=None, quick_gelu=None)
    metadata = file.extras if file.record.reader == "safetensors" else {}
    return names_in_metadata(Opening(path=path, file=file, hints=hints, metadata=metadata, stated=stated))


def _context_length(tensors: Mapping[str, Tensor]) -> int | None:
    for name in ("ctx", "prompt_learner.ctx", "image_encoder.VPT"):
        if name in tensors and tensors[name].ndim >= 2:
            return int(tensors[name].shape[-2])
    positions = tensors.get("positional_embedding")
    return len(positions) if positions is not None and positions.ndim == 2 else None


def compare_names(old: Sequence[str], new: Sequence[str]) -> NameChanges:
    """Compare class names; where one side's are not known, nothing is said.

    Of lists of one length, a name that gave way to another at the same place was renamed, unless either stands elsewhere on the
    other side.
    """
    if not old or not new:
        return NameChanges()
    before, after = set(old), set(new)
    pairs = zip(old, new, strict=True) if len(old) == len(new) else ()
    renamed = tuple((a, b) for a, b in pairs if a not in after and b not in before)
    shared = [[name for name in names if name in both] for names, both in ((old, after), (new, before))]
    moved = {name for pair in zip(*shared, strict=False) if len(set(pair)) > 1 for name in pair}
    gone, come = ({pair[side] for pair in renamed} for side in (0, 1))
    return NameChanges(
        added=tuple(name for name in new if name not in before | come),
        removed=tuple(name for name in old if name not in after | gone),
        renamed=renamed,
        moved=tuple((name, place, list(new).index(name)) for place, name in enumerate(old) if name in moved),
    )


def _texts(one: _Side, two: _Side, names: NameChanges) -> tuple[tuple[TextMove, ...], tuple[str, ...]]:
    """Return the classes by rising cosine, or none and the reason."""
    first, second = one.delivery, two.delivery
    if first is None or second is None or first.base is None or second.base is None:
        return (), ("Texts were not compared: that needs two prompts and the base of both (--base).",)
    bases = [(delivery.base.sha256, delivery.base.name) for delivery in (first, second) if delivery.base is not None]
    if bases[0] != bases[1]:
        return (), (f"Texts were not compared: the prompts build on different bases, {bases[0][1]} and {bases[1][1]}.",)
    before, after = _features(first), _features(second)
    was = {new: old for old, new in names.renamed}
    moves = [
        TextMove(name=name, cosine=_cosine(before[was.get(name, name)], features), was=was.get(name, ""))
        for name, features in after.items()
        if was.get(name, name) in before
    ]
    return tuple(
        sorted(moves, key=lambda move: round(move.cosine, 6))
    ), ()  # what differs by rounding stays in the order of classes


def _features(delivery: Delivery) -> dict[str, Tensor]:
    """Class name -> unit text features ``(1, d)``, or ``(n, d)`` for n images where they depend on the image."""
    classifier, images = delivery.classifier, None
    with torch.no_grad():
        if classifier.prompt.image_dependent:
            images = classifier.image_features(generate_probes(PROBES, classifier.model.image_size, 0).to(classifier.model.device))
        text = classifier.prompt.text_features(classifier.model, images)
    text = text if text.ndim == 3 else text[None]
    return {name: text[:, place] for place, name in enumerate(classifier.class_names)}


def _cosine(old: Tensor, new: Tensor) -> float:
    """Mean over images of the cosine between unit features."""
    return float((old.double() * new.double()).sum(-1).mean())


def _metadata(one: _Side, two: _Side) -> tuple[Difference, ...]:
    """What differs beside the tensors: metadata and pickled extras, how they were wrapped, names of code, texts beside the file."""
    values = [
        {
            **{f"{key}": value for key, value in side.file.extras.items()},
            "(envelope)": side.file.envelope,
            "(read as)": side.file.record.reader,
            "(names of code)": sorted({name for file in side.info.files for name in file.stubbed_globals}),
            "(not read)": [f"{item.what}: {item.why}" for item in side.file.skipped],
            **{f"(beside it: {key})": value for key, value in dataclasses.asdict(side.hints).items() if key != "sources"},
        }
        for side in (one, two)
    ]
    keys = dict.fromkeys([*values[0], *values[1]])
    rows = [Difference(what=key, old=_text(values[0].get(key)), new=_text(values[1].get(key))) for key in keys]
    return tuple(row for row in rows if row.old != row.new)


def _text(value: Any) -> str | None:
    """A value as text; None for what is not there or says nothing."""
    if value is None or value in ("", [], {}, ()):
        return None
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False, sort_keys=True)
