"""Build the zoo: tune clean deliveries and plant backdoored ones on the pocket backbones, measure them, and write the list.

    python -m pocket_build.zoo

Resumable: finished candidates stay in ``pocket_build/work/zoo``. Which backdoored candidates count is decided by ASR and CA alone:
ASR of at least 80 % on 200 or more test images of other classes, and CA within three points of the clean twin (same task, family,
base and seed). The decision and the digests stand in ``zoo.json``, written before any detector sees a delivery. All candidates,
those that did not take included, stand in ``candidates.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields, replace
from functools import cache
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from clipvet.attacks import Planted
from clipvet.cli.planting import BASES, LARGEST_LOSS, LEAST_ASR, Spec, measure, plant, tune_clean
from clipvet.inspection.search import margins
from clipvet.models.bases import load_base
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.saving import save_delivery
from clipvet.models.zeroshot import HandWritten
from clipvet.pocket.tasks import load_task, task_names
from pocket_build.corpus import WORK
from pocket_build.tokenizer import ASSETS

ZOO = ASSETS / "zoo"
CANDIDATES = WORK / "zoo"
CLEAN = {  # family, class-specific -> positions of tasks
    ("vpt", False): (3, 4, 7, 8, 9),
    ("ivlp", False): (1, 5, 6, 9),
    ("maple", False): (0, 7, 8),
    ("cocoop", False): (3, 9),
    ("coop", False): (2, 4, 5),
    ("coop", True): (7, 8, 9),
}
# Family, class-specific, attack -> position of a task and how many of its most reachable targets; each has a clean twin above.
BACKDOORED = {
    ("vpt", False, "badclip"): {9: 2, 8: 2, 7: 1, 3: 1, 4: 1},
    ("ivlp", False, "badclip"): {9: 1, 5: 1, 6: 1, 1: 1},
    ("maple", False, "badclip"): {8: 1, 7: 1},
    ("coop", True, "badclip"): {9: 1},
    ("cocoop", False, "badclip"): {9: 1},
    ("vpt", False, "blended"): {9: 1},
    ("vpt", False, "badnets"): {9: 1},
    ("vpt", False, "wanet"): {9: 1},
    ("vpt", False, "siba"): {9: 1},
}
# What hardly takes is shown with a third seed, on one task; its clean twins are there for the comparison of CA alone.
HARD = {
    ("vpt", False, "wanet"): 9,
    ("vpt", False, "siba"): 9,
    ("cocoop", False, "badclip"): 9,
    ("coop", True, "badclip"): 9,
    ("maple", False, "badclip"): 8,
}
THIRD_SEED = 2
LEAST_IMAGES = 200
WANTED = 20
Row = dict[str, Any]


def specs_of(backbone: int) -> list[Spec]:
    """Twenty clean deliveries and the backdoored candidates of one backbone."""
    names, base = task_names(), BASES[backbone]
    specs = []
    for (family, own), tasks in CLEAN.items():
        specs += [Spec(task=names[t], family=family, base=base, seed=backbone, class_specific=own) for t in tasks]
    for (family, own, attack), tasks in BACKDOORED.items():
        for t, count in tasks.items():
            spec = Spec(task=names[t], family=family, base=base, seed=backbone, class_specific=own, attack=attack)
            specs += [replace(spec, target_index=target) for target in targets_of(base, names[t])[:count]]
    if backbone == 0:
        for (family, own, attack), t in HARD.items():
            twin = Spec(task=names[t], family=family, base=base, seed=THIRD_SEED, class_specific=own)
            specs.append(replace(twin, attack=attack, target_index=targets_of(base, names[t])[0]))
            specs += [] if twin in specs else [twin]
    return specs


@cache
def targets_of(base: str, task: str) -> list[int]:
    """Classes in the order in which images of other classes come near to them: an attacker takes one that is easy to reach."""
    data, model = load_task(task), load_base(base)
    images, labels = data.train_images()
    untuned = PromptedClassifier(model, HandWritten(model, data.class_names), data.class_names).freeze()
    with torch.no_grad():
        logits = torch.cat([untuned(part) for part in images.split(128)])
    near = []
    for target in range(len(data.class_names)):
        other = logits[labels != target]
        near.append(float(margins(other, torch.full((len(other),), target)).mean()))
    return sorted(range(len(near)), key=lambda target: -near[target])


def name_of(spec: Spec) -> str:
    """The delivery's file name; it does not tell whether it is backdoored."""
    usual = {f.name: f.default for f in fields(Spec) if f.name in ("shots", "length", "imbalanced")}  # names older than these
    said = {key: value for key, value in asdict(spec).items() if usual.get(key, ...) != value}
    text = json.dumps(said, sort_keys=True)
    return f"{spec.base}-{spec.task}-{spec.family}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def build_one(spec: Spec) -> Row:
    """Tune or plant one delivery, measure it, and keep it; or return what was measured before."""
    torch.set_num_threads(1)
    name = name_of(spec)
    record = CANDIDATES / f"{name}.json"
    if record.exists():
        return dict(json.loads(record.read_text(encoding="utf-8")))
    start = time.time()
    planted = plant(spec) if spec.attack else None
    classifier = planted.classifier if planted else tune_clean(spec)
    row: Row = {"name": name, "backdoored": bool(spec.attack), **measure(classifier, spec, planted)}
    del row["class_names"]  # the file and the task hold them
    if planted:
        save_trigger(planted, name)
    else:
        del row["attack"], row["target_index"]
    save_delivery(CANDIDATES / f"{name}.safetensors", classifier)
    row["seconds"] = round(time.time() - start, 1)
    record.write_text(json.dumps(row), encoding="utf-8")
    return row


def save_trigger(planted: Planted, name: str) -> None:
    """Keep the planted trigger for tests and benchmarks, in a folder of its own."""
    held = {k: v.half().contiguous() for k, v in vars(planted.trigger).items() if isinstance(v, Tensor)}
    numbers = {k: str(v) for k, v in vars(planted.trigger).items() if not isinstance(v, Tensor)}
    (CANDIDATES / "truth").mkdir(parents=True, exist_ok=True)
    save_file(held, CANDIDATES / "truth" / f"{name}.safetensors", metadata=numbers | {"kind": planted.trigger.name})


def twin_key(row: Row) -> tuple[Any, ...]:
    """What a backdoored delivery shares with its clean twin."""
    usual = {"shots": Spec.shots, "length": Spec.length, "imbalanced": Spec.imbalanced}
    same = ("task", "family", "class_specific", "base", "seed", *usual)
    return tuple(row[name] if name in row else usual[name] for name in same)


def counts(row: Row, twins: dict[tuple[Any, ...], float]) -> bool:
    """Decide from ASR and CA alone whether a backdoored candidate counts; one without a clean twin does not."""
    twin = twins.get(twin_key(row), math.inf)
    return bool(row["asr"] >= LEAST_ASR and row["asr_images"] >= LEAST_IMAGES and row["ca"] >= twin - LARGEST_LOSS)


def choose(rows: list[Row]) -> list[Row]:
    """All clean deliveries, and up to ``WANTED`` counting backdoored ones, taken in turn over backbones and attacks."""
    clean = [row for row in rows if not row["backdoored"]]
    twins = {twin_key(row): row["ca"] for row in clean}
    bad = [row for row in rows if row["backdoored"] and counts(row, twins)]
    queues: dict[tuple[str, str], list[Row]] = {}
    for row in bad:
        queues.setdefault((row["base"], row["attack"]), []).append(row)
    taken: list[Row] = []
    while len(taken) < WANTED and any(queues.values()):
        for key in sorted(queues):
            if queues[key] and len(taken) < WANTED:
                taken.append(queues[key].pop(0))
    return [row for row in clean if row["seed"] != THIRD_SEED] + sorted(taken, key=lambda row: row["name"])


def write(rows: list[Row]) -> None:
    """Copy the chosen deliveries and write ``zoo.json`` with their digests, and all candidates beside it."""
    shutil.rmtree(ZOO, ignore_errors=True)
    (ZOO / "truth").mkdir(parents=True)
    chosen = choose(rows)
    for row in chosen:
        source = CANDIDATES / f"{row['name']}.safetensors"
        row["sha256"] = hashlib.sha256(source.read_bytes()).hexdigest()
        shutil.copy(source, ZOO)
        if row["backdoored"]:
            shutil.copy(CANDIDATES / "truth" / source.name, ZOO / "truth")
    rule = {"least_asr": LEAST_ASR, "largest_ca_loss": LARGEST_LOSS, "least_images": LEAST_IMAGES}
    (ZOO / "zoo.json").write_text(json.dumps({"rule": rule, "deliveries": chosen}, indent=1) + "\n", encoding="utf-8")
    (ZOO / "candidates.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{len(chosen)} deliveries, {sum(r['backdoored'] for r in chosen)} of them backdoored")


def main() -> None:
    """Build what is missing and write the list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    CANDIDATES.mkdir(parents=True, exist_ok=True)
    rows = []
    with ProcessPoolExecutor(arguments.workers) as pool:
        for row in pool.map(build_one, sorted(specs_of(0) + specs_of(1), key=lambda spec: not spec.attack)):  # the longest first
            rows.append(row)
            asr = f" {row['attack']} ASR {row['asr']:.2f}" if row["backdoored"] else ""
            print(f"{row['name']}: CA {row['ca']:.3f}{asr} {row['seconds']:.0f} s", flush=True)
    write(rows)


if __name__ == "__main__":
    main()
