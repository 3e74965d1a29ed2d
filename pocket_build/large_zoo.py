"""A larger zoo for the benchmarks, beside the shipped one: more seeds, tasks, targets and shots, and an adaptive attacker.

    python -m pocket_build.large_zoo [--workers 2] [--seconds N]

Resumable, like the shipped zoo's build, whose candidates it shares, in ``pocket_build/work/zoo``. The list, with the
CA, ASR, TA and digest of each candidate, goes to ``benchmarks/results/large_zoo.json`` as each is built, before a detector sees it.
What the list holds and does not lie here is left as it is, unless ``--again`` is given; it was built, and perhaps measured,
elsewhere. What counts is decided as for the shipped zoo, by ASR and CA alone. With ``--seconds`` no further delivery is begun after
so long.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from clipvet.cli.planting import BASES, LARGEST_LOSS, LEAST_ASR, Spec
from clipvet.pocket.tasks import task_names
from clipvet.pocket.zoo import entries
from pocket_build.zoo import CANDIDATES, LEAST_IMAGES, build_one, counts, name_of, targets_of, twin_key

LIST = Path(__file__).parents[1] / "benchmarks" / "results" / "large_zoo.json"
SEEDS = (10, 11)  # of the backbones; the shipped zoo has 0, 1 and 2
# Family, class-specific -> positions of tasks; the fine-grained ones come last in the list of tasks.
CLEAN = {
    ("coop", False): range(10),
    ("coop", True): (0, 2, 3, 5, 7, 9),
    ("cocoop", False): (1, 4, 6, 8),
    ("vpt", False): range(10),
    ("ivlp", False): range(10),
    ("maple", False): (1, 2, 4, 6, 8, 9),
}
OTHERWISE: tuple[dict[str, Any], ...] = ({"shots": 4}, {"imbalanced": True}, {"length": 0.3}, {"length": 2.0})
# Family, attack -> position of a task and how many of its most reachable targets.
BACKDOORED = {
    ("vpt", "badclip"): dict.fromkeys((2, 3, 4, 6, 7, 8, 9), 1),
    ("ivlp", "badclip"): dict.fromkeys((1, 2, 4, 5, 6, 7, 8, 9), 1),
    ("maple", "badclip"): dict.fromkeys((4, 8), 1),
    ("vpt", "blended"): dict.fromkeys((4, 7, 8, 9), 1),
    ("vpt", "badnets"): dict.fromkeys((4, 7, 8, 9), 1),
    ("ivlp", "blended"): dict.fromkeys((8, 9), 1),
    ("ivlp", "badnets"): dict.fromkeys((8, 9), 1),
    ("vpt", "siba"): {9: 1},
    ("ivlp", "wanet"): {9: 1},
    ("vpt", "badclip-adaptive"): dict.fromkeys((2, 4, 7, 8, 9), 1),
    ("ivlp", "badclip-adaptive"): dict.fromkeys((1, 5, 6, 8, 9), 1),
}
Row = dict[str, Any]


def specs_of(backbone: int) -> list[Spec]:
    """Clean and backdoored deliveries of one backbone; every backdoored one has its clean twin among them."""
    names, base, seed = task_names(), BASES[backbone], SEEDS[backbone]
    specs = [
        Spec(task=names[task], family=family, base=base, seed=seed, class_specific=own)
        for (family, own), tasks in CLEAN.items()
        for task in tasks
    ]
    for (family, attack), tasks in BACKDOORED.items():
        for task, count in tasks.items():
            spec = Spec(task=names[task], family=family, base=base, seed=seed, attack=attack)
            specs += [replace(spec, target_index=target) for target in targets_of(base, names[task])[:count]]
    for at, family in enumerate(("coop", "vpt", "ivlp", "maple")):
        spec = Spec(task=names[(3 * at + backbone) % len(names)], family=family, base=base, seed=seed + 10)
        specs += [replace(spec, **change) for change in OTHERWISE]
    twins = {twin_key(vars(spec)) for spec in specs if not spec.attack}
    missing = [replace(spec, attack="", target_index=0) for spec in specs if spec.attack and twin_key(vars(spec)) not in twins]
    return specs + list({name_of(spec): spec for spec in missing}.values())


def plan() -> list[Spec]:
    """All deliveries in a fixed random order, so that a part is a fair sample of attacks; a clean twin follows what needs it."""
    specs = specs_of(0) + specs_of(1)
    random.Random(0).shuffle(specs)  # noqa: S311 - an order
    twins = {twin_key(vars(spec)): spec for spec in specs if not spec.attack}
    pairs = [(spec, twins[twin_key(vars(spec))]) for spec in specs]
    return list({name_of(spec): spec for pair in pairs for spec in pair}.values())


def listed(rows: Sequence[Row]) -> Row:
    """The list: what counts, and what does not with its figures; what has no twin yet is not in it."""
    twins = {twin_key(row): row["ca"] for row in rows if not row["backdoored"]}
    rows = [row for row in rows if twin_key(row) in twins]
    taken = [row | {"counts": not row["backdoored"] or counts(row, twins)} for row in rows]
    attacks = Counter((row["family"], row["attack"], row["counts"]) for row in taken if row["backdoored"])
    return {
        "rule": {"least_asr": LEAST_ASR, "largest_ca_loss": LARGEST_LOSS, "least_images": LEAST_IMAGES},
        "planned": len(plan()),
        "shipped": len(entries()),
        "clean": sum(not row["backdoored"] for row in taken),
        "backdoored": sum(row["backdoored"] and row["counts"] for row in taken),
        "took": {f"{family}, {attack}": attacks[family, attack, True] for family, attack in BACKDOORED},
        "did_not_take": {f"{family}, {attack}": attacks[family, attack, False] for family, attack in BACKDOORED},
        "deliveries": sorted(taken, key=lambda row: str(row["name"])),
    }


def build(spec: Spec, until: float) -> Row | None:
    """Build one delivery unless time is up."""
    if time.time() > until and not (CANDIDATES / f"{name_of(spec)}.json").exists():
        return None
    row = build_one(spec)
    return row | {"sha256": hashlib.sha256((CANDIDATES / f"{row['name']}.safetensors").read_bytes()).hexdigest()}


def elsewhere() -> list[Row]:
    """Rows of the list whose deliveries do not lie here."""
    rows = json.loads(LIST.read_text(encoding="utf-8"))["deliveries"] if LIST.exists() else []
    return [row for row in rows if not (CANDIDATES / f"{row['name']}.json").exists()]


def main() -> None:
    """Build what is missing and write the list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--again", action="store_true", help="build what the list holds and does not lie here, too")
    arguments = parser.parse_args()
    CANDIDATES.mkdir(parents=True, exist_ok=True)
    rows = [] if arguments.again else elsewhere()
    kept = {row["name"] for row in rows}
    specs = [spec for spec in plan() if name_of(spec) not in kept]
    with ProcessPoolExecutor(arguments.workers) as pool:
        for row in pool.map(build, specs, [time.time() + arguments.seconds] * len(specs)):
            if row is not None:
                rows.append(row)
                print(
                    row["name"], f"CA {row['ca']:.3f}", row.get("attack", ""), row.get("asr", ""), row["seconds"], "s", flush=True
                )
                LIST.write_text(json.dumps(listed(rows), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
