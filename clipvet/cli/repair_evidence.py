"""What a repair goes by: reconstructed triggers, of an earlier inspection, of one that is made now, or of a class that is named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clipvet.api import PAPER_EPS, InspectOptions, inspect_model
from clipvet.cli.progress import show_progress
from clipvet.data.generated import generate_probes
from clipvet.data.labelled import plain_name
from clipvet.errors import UnreadableError, UsageError
from clipvet.inspection.search import Search, SearchConfig, chunk_for
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.reading import resolve_delivery, sha256_of
from clipvet.reports.schema import from_json
from clipvet.types import Evidence, Verdict

__all__ = ["gather", "reconstruct", "stored", "widen"]

STEPS, PROBES = 36, 400  # of a search here: as many steps as the default check takes for a class that it keeps
# Beside the additive trigger of the target, the largest area of the papers. A blend was tried too: a whole picture that moves is
# so strong an adversary that it cost two to four points of CA, and the additive triggers undo a planted blend without it.
SHAPES = (("patch", 0.04),)
FOUND = (Verdict.SUSPICIOUS, Verdict.BACKDOORED)


def gather(
    classifier: PromptedClassifier, delivery: Path, options: InspectOptions, *, report: Path | None, target: str | None, force: bool
) -> tuple[list[Evidence], str]:
    """Return the rows that a repair goes by, the most suspicious first, and the inspection's verdict.

    Args:
        classifier: what is to be repaired.
        delivery: where it was read from.
        options: what is stated about it; with the default settings otherwise.
        report: the folder of an earlier inspection; None makes one now, unless a target is named.
        target: a class that is taken for the target, whatever an inspection says.
        force: go on where nothing was found.

    Raises:
        UsageError: nothing was found, and neither a target nor force was stated; the target is no class; the report is about
            another file.
        UnreadableError: the report cannot be read.
    """
    rows: list[Evidence] = []
    verdict: Verdict | None = None
    if report is not None:
        rows, verdict = stored(report, delivery)
    elif target is None:
        with show_progress(str(delivery)) as progress:
            found = inspect_model(delivery, options, progress=progress)
        rows, verdict = [row for check in found.checks for row in check.evidence], found.verdict
    rows = [row for row in rows if row.trigger and row.target_kind == "class" and row.target_index is not None]
    rows.sort(key=lambda row: math.inf if math.isnan(row.statistic) else -row.statistic)
    if target is None and verdict not in FOUND and not force:
        raise UsageError(
            f"{delivery}: expected something to repair, and the verdict of its inspection is '{said(verdict)}': "
            "name the target with --target, or repair all the same with --force"
        )
    rows = rows if target is None else _first(target, rows, classifier, options.seed)
    return widen(classifier, rows, seed=options.seed) if rows else [], said(verdict)


def said(verdict: Verdict | None) -> str:
    """The verdict in words."""
    return "not inspected" if verdict is None else verdict.value


def stored(folder: Path, delivery: Path) -> tuple[list[Evidence], Verdict]:
    """Read the rows and the verdict that ``clipvet inspect --out`` left in a folder.

    Raises:
        UnreadableError: there is no such report, or its triggers are missing or damaged.
        UsageError: it is about another file.
    """
    try:
        document = from_json((folder / "report.json").read_bytes())
        path = folder / "triggers.safetensors"
        tensors = load_file(path) if path.exists() else {}
    except (OSError, SafetensorError) as error:
        raise UnreadableError(f"{folder}: expected the --out folder of an inspection, could not read it ({error})") from error
    if sha256_of(resolve_delivery(delivery)) not in {file.sha256 for file in document.files}:
        raise UsageError(f"{folder}: expected the report on {delivery}, found that on another file: inspect this delivery")
    rows = []
    for check in document.checks:
        for position, row in enumerate(check.evidence):
            prefix = f"{check.check}.{position}."
            trigger = {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}
            rows.append(
                Evidence(
                    target=row.target,
                    target_kind=row.target_kind,
                    target_index=row.target_index,
                    trigger_kind=row.trigger_kind,
                    statistic=math.nan if row.statistic is None else row.statistic,
                    trigger=trigger or None,
                )
            )
    return rows, document.verdict


def reconstruct(
    classifier: PromptedClassifier, target: int, probes: Tensor, *, shape: str = "additive", strength: float = 0.0, seed: int
) -> Evidence:
    """Search a trigger for one class, as the default check does for those that it keeps.

    Args:
        classifier: the delivery.
        target: the class.
        probes: ``(n, 3, h, w)`` unlabelled images in [0, 1].
        shape: ``additive``, ``patch`` or ``blend``.
        strength: of the shape; 0 takes the default check's bound of an additive trigger.
        seed: of the search.
    """
    model = classifier.model
    strength = strength or PAPER_EPS.get(model.image_size, 4 / 255)
    config = SearchConfig(shape=shape, strength=strength, batch=16, chunk=chunk_for(model))
    search = Search(classifier, probes, torch.tensor([target]), config=config, seed=seed)
    with model.mixed_precision():
        search.run(STEPS)
    trigger = {name: values.cpu() for name, values in search.trigger(0).items()}
    return Evidence(target=classifier.class_names[target], target_index=target, trigger_kind=config.shape, trigger=trigger)


def widen(classifier: PromptedClassifier, rows: Sequence[Evidence], *, seed: int) -> list[Evidence]:
    """Put triggers of further shapes behind the first row, for its target: an additive one is not like a planted patch."""
    first = rows[0]
    assert first.target_index is not None
    model = classifier.model
    probes = generate_probes(PROBES, model.image_size, seed).to(model.device)
    more = [
        reconstruct(classifier, first.target_index, probes, shape=shape, strength=strength, seed=seed) for shape, strength in SHAPES
    ]
    return [first, *more, *rows[1:]]


def _first(target: str, rows: Sequence[Evidence], classifier: PromptedClassifier, seed: int) -> list[Evidence]:
    """Put the named class first, with the trigger that was reconstructed for it or one that is searched now."""
    names = [plain_name(name) for name in classifier.class_names]
    if plain_name(target) not in names:
        raise UsageError(f"expected a target out of {', '.join(classifier.class_names)}, got {target!r}")
    index = names.index(plain_name(target))
    named = [row for row in rows if row.target_index == index]
    others = [row for row in rows if row.target_index != index]
    if not named:
        probes = generate_probes(PROBES, classifier.model.image_size, seed).to(classifier.model.device)
        named = [reconstruct(classifier, index, probes, seed=seed)]
    return [*named, *others]
