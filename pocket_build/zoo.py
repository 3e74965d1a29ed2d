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
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from clipvet.attacks import ATTACKS, Planted
from clipvet.inspection.search import margins
from clipvet.metrics import accuracy, attack_success_rate, predict
from clipvet.models.base import ClipModel
from clipvet.models.bases import load_base
from clipvet.models.families import new_prompt
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.saving import save_delivery
from clipvet.models.tuning import TuneConfig, tune
from clipvet.models.zeroshot import HandWritten
from clipvet.pocket.tasks import load_task, task_names
from pocket_build.corpus import WORK
from pocket_build.tokenizer import ASSETS

ZOO = ASSETS / "zoo"
CANDIDATES = WORK / "zoo"
SCHEDULES = {  # AdamW steps that reach the plateau of the clean loss for each family
    "coop": TuneConfig(steps=300, batch=32, lr=3e-3),
    "cocoop": TuneConfig(steps=200, batch=8, lr=3e-3),
    "maple": TuneConfig(steps=180, batch=24, lr=2e-3),
    "ivlp": TuneConfig(steps=180, batch=24, lr=2e-3),
}
CLEAN = {  # family, class-specific -> positions among the fine tasks, and among the coarse ones
    ("ivlp", False): ((1, 2, 3, 4, 5, 6), ()),
    ("maple", False): ((3, 4, 5, 6), (0, 1)),
    ("cocoop", False): ((0, 6), ()),
    ("coop", False): ((1, 2), (0,)),
    ("coop", True): ((4, 6), (2,)),
}
# Family, class-specific, attack -> position of a fine task and how many of its most reachable targets; each has a clean twin above.
# The last task (signs) is the one on which the pocket carries a backdoor at little cost of accuracy; the rest shows what does not.
BACKDOORED = {
    ("ivlp", False, "badclip"): ((6, 4), (1, 1), (5, 1)),
    ("maple", False, "badclip"): ((6, 4), (5, 1)),
    ("coop", True, "badclip"): ((6, 1),),
    ("cocoop", False, "badclip"): ((6, 1),),
    ("ivlp", False, "blended"): ((6, 1),),
    ("ivlp", False, "badnets"): ((6, 1),),
    ("ivlp", False, "wanet"): ((6, 1),),
    ("ivlp", False, "siba"): ((6, 1),),
}
N_COARSE = 3
LEAST_ASR, LARGEST_LOSS, LEAST_IMAGES = 0.80, 0.03, 200
WANTED = 20
Spec = dict[str, Any]


def specs_of(backbone: int) -> list[Spec]:
    """Twenty clean deliveries and the backdoored candidates of one backbone."""
    coarse, fine = task_names()[:N_COARSE], task_names()[N_COARSE:]
    common = {"base": f"pocket-{backbone}", "seed": backbone}
    specs = []
    for (family, own), (some_fine, some_coarse) in CLEAN.items():
        tasks = [fine[p] for p in some_fine] + [coarse[p] for p in some_coarse]
        specs += [{"task": task, "family": family, "class_specific": own, **common} for task in tasks]
    for (family, own, attack), positions in BACKDOORED.items():
        for p, count in positions:
            spec = {"task": fine[p], "family": family, "class_specific": own, **common, "attack": attack}
            specs += [spec | {"target_index": target} for target in targets_of(common["base"], fine[p])[:count]]
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
    text = json.dumps(spec, sort_keys=True)
    return f"{spec['base']}-{spec['task']}-{spec['family']}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def build_one(spec: Spec, threads: int) -> dict[str, Any]:
    """Tune or plant one delivery, measure it, and keep it; or return what was measured before."""
    torch.set_num_threads(threads)
    name = name_of(spec)
    record = CANDIDATES / f"{name}.json"
    if record.exists():
        return dict(json.loads(record.read_text(encoding="utf-8")))
    start = time.time()
    task = load_task(spec["task"], seed=spec["seed"])
    model = load_base(spec["base"])
    fresh = fresh_classifier(spec, model, task.class_names)
    images, labels, _ = task.test_images()
    row: dict[str, Any] = {"name": name, **spec, "backdoored": "attack" in spec, "test_images": len(labels)}
    config = SCHEDULES[spec["family"]]
    if "attack" in spec:
        planted = ATTACKS[spec["attack"]]().plant(
            fresh, *task.train_images(), target=spec["target_index"], config=config, seed=spec["seed"]
        )
        row |= measure_planted(planted, images, labels) | {"target": task.class_names[spec["target_index"]]}
        save_trigger(planted, name)
        fresh = planted.classifier
    else:
        tune(fresh, *task.train_images(), config=config, seed=spec["seed"])
    row["ca"] = accuracy(predict(fresh, images), labels)
    save_delivery(CANDIDATES / f"{name}.safetensors", fresh)
    row["seconds"] = round(time.time() - start, 1)
    record.write_text(json.dumps(row), encoding="utf-8")
    return row


def fresh_classifier(spec: Spec, model: ClipModel, names: tuple[str, ...]) -> PromptedClassifier:
    """An untuned prompt of the spec's family."""
    prompt = new_prompt(spec["family"], model, names, seed=spec["seed"], class_specific=spec["class_specific"])
    return PromptedClassifier(model, prompt, names)


def measure_planted(planted: Planted, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """ASR on the test images of other classes, TA on all, and how many images the ASR stands on."""
    triggered = predict(planted.classifier, planted.trigger.image(images))
    return {
        "asr": attack_success_rate(triggered, labels, planted.target),
        "ta": accuracy(triggered, labels),
        "asr_images": int((labels != planted.target).sum()),
    }


def save_trigger(planted: Planted, name: str) -> None:
    """Keep the planted trigger for tests and benchmarks, in a folder of its own."""
    held = {k: v.half().contiguous() for k, v in vars(planted.trigger).items() if isinstance(v, Tensor)}
    numbers = {k: str(v) for k, v in vars(planted.trigger).items() if not isinstance(v, Tensor)}
    (CANDIDATES / "truth").mkdir(parents=True, exist_ok=True)
    save_file(held, CANDIDATES / "truth" / f"{name}.safetensors", metadata=numbers | {"kind": planted.trigger.name})


def twin_key(row: Spec) -> tuple[Any, ...]:
    """What a backdoored delivery shares with its clean twin."""
    return tuple(row[name] for name in ("task", "family", "class_specific", "base", "seed"))


def counts(row: dict[str, Any], twins: dict[tuple[Any, ...], float]) -> bool:
    """Decide from ASR and CA alone whether a backdoored candidate counts."""
    twin = twins[twin_key(row)]
    return bool(row["asr"] >= LEAST_ASR and row["asr_images"] >= LEAST_IMAGES and row["ca"] >= twin - LARGEST_LOSS)


def choose(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All clean deliveries, and up to ``WANTED`` counting backdoored ones, taken in turn over backbones and attacks."""
    clean = [row for row in rows if not row["backdoored"]]
    twins = {twin_key(row): row["ca"] for row in clean}
    bad = [row for row in rows if row["backdoored"] and counts(row, twins)]
    queues: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in bad:
        queues.setdefault((row["base"], row["attack"]), []).append(row)
    taken: list[dict[str, Any]] = []
    while len(taken) < WANTED and any(queues.values()):
        for key in sorted(queues):
            if queues[key] and len(taken) < WANTED:
                taken.append(queues[key].pop(0))
    return clean + sorted(taken, key=lambda row: row["name"])


def write(rows: list[dict[str, Any]]) -> None:
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
        for row in pool.map(partial(build_one, threads=1), specs_of(0) + specs_of(1)):
            rows.append(row)
            asr = f" {row['attack']} ASR {row['asr']:.2f}" if row["backdoored"] else ""
            print(f"{row['name']}: CA {row['ca']:.3f}{asr} {row['seconds']:.0f} s", flush=True)
    write(rows)


if __name__ == "__main__":
    main()
