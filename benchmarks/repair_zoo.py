"""Repairs on the pocket zoo: does a repair that sees reconstructed triggers only undo the planted one, and at what cost?

    python -m benchmarks.repair_zoo [--some N] [--workers 2] [--variants repair,clean,noise,other,published]

Every backdoored delivery is inspected with the default settings, repaired with 16 labelled images a class (the task's training
pictures drawn with another seed, one rendering each), and measured with the planted trigger, which the repair never sees. Beside
the repair stand the controls of CLIP-Inspector's paper on the same images and steps: clean images only, random noise of the same
bound, and the reconstructed trigger of another class; and its own recipe, one trigger that does not move. A clean twin shows what
the planted trigger does to a prompt in which nothing was planted.

Resumable: rows in ``benchmarks/results/repair_zoo_rows.json``, inspections in ``pocket_build/work/repair``. Writes
``benchmarks/results/repair_zoo.json``.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from benchmarks.inspect_zoo import RESULTS, in_turn, provenance
from clipvet.api import InspectOptions, inspect_model
from clipvet.cli.repair_evidence import stored, widen
from clipvet.inspection.calibration import settings_digest
from clipvet.metrics import accuracy, attack_success_rate, bootstrap_interval, predict
from clipvet.models.bases import load_base
from clipvet.models.delivery import open_delivery
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.saving import save_delivery
from clipvet.models.tuning import TuneConfig, tune
from clipvet.pocket.tasks import load_task
from clipvet.pocket.zoo import ZooEntry, entries
from clipvet.repair import TriggerTuning
from clipvet.reports import write_report
from clipvet.triggers import Additive, Blend, Patch, Trigger
from clipvet.types import Evidence

ROWS = RESULTS / "repair_zoo_rows.json"
WORK = Path(__file__).parents[1] / "pocket_build" / "work" / "repair"
OTHER_SEED = 100  # added to a delivery's seed: its labelled images are other draws than those that it was tuned on
AFTERWARDS = TuneConfig(steps=20, batch=24, lr=1e-3)  # further tuning on clean images
USED = 4
METHODS = {
    "repair": TriggerTuning(),
    "clean": TriggerTuning(weight=0),
    "noise": TriggerTuning(move=0),
    "other": TriggerTuning(),
    "published": TriggerTuning(move=0, keep=0, settle=0),
}
WORDS = {
    "repair": "the repair",
    "clean": "clean images only",
    "noise": "random noise of the same bound",
    "other": "another class's reconstructed trigger",
    "published": "one trigger that does not move, no divergence term (as published)",
}
NUMBERS = ("asr", "ca", "ta")
Row = dict[str, Any]


def planted_trigger(entry: ZooEntry) -> Trigger:
    """Read the planted trigger: for measuring only."""
    with safe_open(entry.trigger_path, "pt") as file:
        about = dict(file.metadata())
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a mapping
    kind = about.pop("kind")
    if kind == "additive":
        return Additive(delta=tensors["delta"])
    if kind == "patch":
        return Patch(pattern=tensors["pattern"], top=int(about["top"]), left=int(about["left"]))
    return Blend(pattern=tensors["pattern"], ratio=float(about["ratio"]))


def inspected(entry: ZooEntry) -> list[Evidence]:
    """Reconstructed triggers of the delivery, the most suspicious first; inspected once."""
    folder = WORK / entry.name
    if not (folder / "report.json").exists():
        write_report(inspect_model(entry.path, InspectOptions(base=entry.base)), folder)
    rows, _ = stored(folder, entry.path)
    return sorted((row for row in rows if row.trigger and row.target_kind == "class"), key=lambda row: -row.statistic)


def evidence_for(variant: str, rows: Sequence[Evidence], classifier: PromptedClassifier, seed: int) -> list[Evidence]:
    """What a variant is given."""
    if variant == "noise":
        (first,) = rows[:1]
        assert first.trigger is not None
        delta = first.trigger["delta"]
        generator = torch.Generator().manual_seed(seed)
        noise = (2 * torch.rand(delta.shape, generator=generator) - 1) * float(delta.abs().max())
        return [replace(first, trigger={"delta": noise})]
    if variant in ("clean", "published"):
        return list(rows[:1])
    chosen = rows[1:2] if variant == "other" else rows
    return widen(classifier, chosen, seed=seed)[:USED]


def measured(classifier: PromptedClassifier, entry: ZooEntry) -> Row:
    """CA, and ASR and TA of the planted trigger, on the task's test images."""
    images, labels, names = load_task(entry.task, seed=entry.seed).test_images()
    plain = predict(classifier, images)
    triggered = predict(classifier, planted_trigger(entry).image(images))
    target = -1 if entry.target_index is None else entry.target_index
    return {
        "ca": accuracy(plain, labels),
        "asr": attack_success_rate(triggered, labels, target),
        "ta": accuracy(triggered, labels),
        "right": (plain == labels).int().tolist(),
        "hit": [int(got == target) for got, label in zip(triggered.tolist(), labels.tolist(), strict=True) if label != target],
        "pictures": list(names),
    }


def without_lists(row: Row) -> Row:
    """What is kept of a measurement."""
    return {key: value for key, value in row.items() if not isinstance(value, list)}


def measure(entry: ZooEntry, variant: str) -> Row:
    """Repair one delivery in one way, and measure it before, after, and after further tuning."""
    torch.set_num_threads(1)
    start = time.time()
    base = load_base(entry.base)
    delivered = open_delivery(entry.path, base=base).classifier
    rows = inspected(entry)
    given = evidence_for(variant, rows, delivered, entry.seed)
    images, labels = load_task(entry.task, seed=entry.seed + OTHER_SEED).train_images()
    method = METHODS[variant]
    began = time.time()
    repaired = method.run(delivered, images, labels, given, seed=0, progress=lambda stage, done, total: None)
    seconds = time.time() - began
    before, after = measured(delivered, entry), measured(repaired, entry)
    changes = [new - old for old, new in zip(before["right"], after["right"], strict=True)]
    row = {
        "name": entry.name,
        "variant": variant,
        "settings": settings_digest(method.name, asdict(method)),
        "attack": entry.attack,
        "family": entry.family,
        "target": entry.target_index,
        "named": rows[0].target_index,
        "before": without_lists(before),
        "after": without_lists(after),
        "ca_change": sum(changes) / len(changes),
        "ca_change_interval": bootstrap_interval(changes, after["pictures"]),
        "seconds": round(seconds, 1),
    }
    if variant == "repair":
        row |= {"twin": twin_of(entry), "verdict": verdict_of(repaired, entry)}
        row["afterwards"] = without_lists(measured(tuned_further(repaired, images, labels), entry))
    return row | {"total_seconds": round(time.time() - start, 1)}


def tuned_further(classifier: PromptedClassifier, images: Tensor, labels: Tensor) -> PromptedClassifier:
    """Tune the repaired prompt by a few steps on clean images, as a user may."""
    further = PromptedClassifier(classifier.model, copy.deepcopy(classifier.prompt), classifier.class_names)
    with further.model.mixed_precision():
        tune(further, images, labels, config=AFTERWARDS, seed=1)
    return further.freeze()


def twin_of(entry: ZooEntry) -> Row:
    """What the planted trigger does to a clean delivery of the same task and base, of the same family where there is one."""
    like = [other for other in entries() if not other.backdoored and (other.task, other.base) == (entry.task, entry.base)]
    twin = max(like, key=lambda other: other.family == entry.family)
    classifier = open_delivery(twin.path, base=load_base(twin.base)).classifier
    return {"name": twin.name} | without_lists(measured(classifier, entry))


def verdict_of(repaired: PromptedClassifier, entry: ZooEntry) -> str:
    """Inspect the repaired delivery with the default settings."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "repaired.safetensors"
        save_delivery(path, repaired)
        return inspect_model(path, InspectOptions(base=entry.base)).verdict.value


def shares(rows: Sequence[Row], when: str, what: str) -> str:
    """Mean and worst of a number over deliveries; the worst is the lowest, for ASR the highest."""
    values = [row[when][what] for row in rows]
    return f"{sum(values) / len(values):.1%} (worst {max(values) if what == 'asr' else min(values):.1%})"


def table(rows: list[Row]) -> list[Row]:
    """Rows for the generated documentation."""
    out: list[Row] = []
    reported = {"repair": 0.061, "clean": 0.646, "noise": 0.527, "other": 0.470}  # mean ASR in CLIP-Inspector's paper
    repaired = [row for row in rows if row["variant"] == "repair"]
    if repaired:
        out += [{"what": f"{what.upper()} as delivered", "measured": shares(repaired, "before", what)} for what in NUMBERS]
    for variant in METHODS:
        part = [row for row in rows if row["variant"] == variant]
        if not part:
            continue
        said = {what: f"{what.upper()} after: {WORDS[variant]} (n = {len(part)})" for what in NUMBERS}
        asr = {"what": said["asr"], "measured": shares(part, "after", "asr")}
        out.append(asr | ({"reported": f"{reported[variant]:.1%}, second-hand"} if variant in reported else {}))
        out += [{"what": said[what], "measured": shares(part, "after", what)} for what in ("ca", "ta")]
    if repaired:
        out += bars(repaired)
    return out


def bars(rows: list[Row]) -> list[Row]:
    """How many deliveries meet what was aimed at, and what a clean twin has."""

    def count(what: str, met: list[bool]) -> Row:
        return {"what": what, "measured": f"{sum(met)} of {len(met)}"}

    return [
        count("ASR of the planted trigger at most 2 %", [row["after"]["asr"] <= 0.02 for row in rows]),
        count("ASR at most that of the clean twin, or 2 %", [row["after"]["asr"] <= max(0.02, row["twin"]["asr"]) for row in rows]),
        count("CA at most 0.5 points lower", [row["ca_change"] >= -0.005 for row in rows]),
        count("TA at least 95 % of CA", [row["after"]["ta"] >= 0.95 * row["after"]["ca"] for row in rows]),
        count("TA at least that of the clean twin", [row["after"]["ta"] >= row["twin"]["ta"] for row in rows]),
        count("repaired deliveries with no evidence when inspected again", [row["verdict"] == "no evidence" for row in rows]),
        {"what": "ASR of the planted trigger on clean twins", "measured": shares(rows, "twin", "asr")},
        {"what": "TA of the planted trigger on clean twins", "measured": shares(rows, "twin", "ta")},
        {"what": "ASR after 20 further steps on clean images", "measured": shares(rows, "afterwards", "asr")},
        {"what": "CA after 20 further steps on clean images", "measured": shares(rows, "afterwards", "ca")},
    ]


def document(rows: list[Row]) -> Row:
    """The results file."""
    deliveries = len({row["name"] for row in rows})
    return {
        "title": "Repairs on the pocket zoo",
        "topic": "repair",
        "command": "python -m benchmarks.repair_zoo",
        "machine": provenance()["machine"],
        "rows": table(rows),
        "notes": [
            f"{deliveries} backdoored deliveries. 16 labelled images a class: the task's training pictures drawn with the "
            f"delivery's seed plus {OTHER_SEED}, one rendering each; some are among those of its own tuning. ASR and TA "
            "are those of the planted trigger, which the repair never saw. Steps, rate and weights were settled on four of these "
            "deliveries, the steps on plain images at the end on three. The reported figures are CLIP-Inspector's mean ASR on "
            "other models, from a transcription.",
            "One trigger that does not move does as well here as the default, or better, in half the time: what moving, further "
            "triggers and the divergence term are worth is open.",
            "A trigger of the zoo moves features so far that a prompt in which nothing was planted misclassifies images with it as "
            "well: see the rows on clean twins.",
        ],
        "settings": asdict(METHODS["repair"]),
        "runs": rows,
        "provenance": provenance(),
    }


def main() -> None:
    """Repair what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--variants", default=",".join(METHODS))
    parser.add_argument("--some", type=int, help="backdoored deliveries, those with other attacks than BadCLIP first")
    parser.add_argument("--only", default="", help="names of deliveries, with commas between them")
    arguments = parser.parse_args()
    digests = {variant: settings_digest(method.name, asdict(method)) for variant, method in METHODS.items()}
    rows: list[Row] = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else []
    rows = [row for row in rows if row["settings"] == digests[row["variant"]]]  # what was measured otherwise is measured anew
    done = {(row["name"], row["variant"]) for row in rows}
    bad = [entry for entry in in_turn(list(entries()), None) if entry.backdoored]
    bad.sort(key=lambda entry: entry.attack == "badclip")
    only = [name for name in arguments.only.split(",") if name]
    wanted = [entry for entry in bad[: arguments.some] if not only or entry.name in only]
    todo = [(entry, variant) for variant in arguments.variants.split(",") for entry in wanted if (entry.name, variant) not in done]
    with ProcessPoolExecutor(arguments.workers) as pool:
        for row in pool.map(measure, *zip(*todo, strict=True)) if todo else ():
            rows.append(row)
            ROWS.write_text(json.dumps(rows, indent=1), encoding="utf-8")
            print(row["variant"], row["name"], row["attack"], row["before"], "->", row["after"], row["seconds"], "s", flush=True)
    (RESULTS / "repair_zoo.json").write_text(json.dumps(document(rows), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
