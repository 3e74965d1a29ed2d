"""Which prompt family carries which attack on the pocket: up to three seeds of each, on one task and backbone.

    python -m benchmarks.attack_matrix [--workers 2]

The task and its most reachable class are those on which most of the zoo's attacks took. A cell is tried with seeds 0, 1 and 2 until
a candidate counts, which ASR and CA alone decide, as in the zoo. Resumable (``pocket_build/work/zoo``); no detector is run. Writes
``benchmarks/results/attack_matrix.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.inspect_zoo import RESULTS, provenance
from clipvet.attacks import ATTACKS
from clipvet.cli.planting import LARGEST_LOSS, LEAST_ASR, Spec
from pocket_build.zoo import CANDIDATES, LEAST_IMAGES, build_one, counts, targets_of, twin_key

TASK, BASE, SEEDS = "signs", "pocket-0", (0, 1, 2)
FAMILIES = (("coop", False), ("coop", True), ("cocoop", False), ("maple", False), ("ivlp", False), ("vpt", False))
Row = dict[str, Any]


def try_cell(family: str, class_specific: bool, attack: str) -> list[Row]:
    """Candidates of one family and attack with their clean twins' CA, seed after seed until one counts."""
    tried: list[Row] = []
    for seed in SEEDS:
        clean = Spec(task=TASK, family=family, base=BASE, seed=seed, class_specific=class_specific)
        twin = build_one(clean)
        planted = build_one(Spec(**(vars(clean) | {"attack": attack, "target_index": targets_of(BASE, TASK)[0]})))
        count = counts(planted, {twin_key(twin): twin["ca"]})
        kept = ("seed", "ca", "ca_interval", "asr", "asr_interval", "asr_images", "ta")
        tried.append({key: planted[key] for key in kept} | {"clean_ca": twin["ca"], "counts": count})
        if count:
            break
    return tried


def label(family: str, class_specific: bool) -> str:
    """The family in words."""
    return f"{family} (class-specific)" if class_specific else family


def rows_of(cells: list[Row]) -> Iterator[Row]:
    """One row per cell: the candidate that counts, or the best ASR of all seeds."""
    for cell in cells:
        best = max(cell["tried"], key=lambda row: (row["counts"], row["asr"]))
        low, high = best["asr_interval"]
        said = "carried" if best["counts"] else f"not carried in {len(cell['tried'])} seeds"
        lost = 100 * (best["clean_ca"] - best["ca"])
        yield {
            "what": f"{cell['attack']} in {label(cell['family'], cell['class_specific'])}: best ASR with its interval, CA lost",
            "measured": f"{said}: {best['asr']:.1%} [{low:.1%}, {high:.1%}], {lost:.1f} points",
        }


def document(cells: list[Row]) -> Row:
    """The results file."""
    return {
        "title": "Which prompt family carries which attack",
        "topic": "inspect",
        "command": "python -m benchmarks.attack_matrix",
        "machine": provenance()["machine"],
        "rows": list(rows_of(cells)),
        "notes": [
            f"The task {TASK} on {BASE}, its most reachable class as the target. Carried: an ASR of at least {LEAST_ASR:.0%} on at "
            f"least {LEAST_IMAGES} images and a CA of at most {100 * LARGEST_LOSS:.0f} points below the clean twin. BadCLIP learns "
            "its trigger together with the prompt; the other triggers are fixed. None of these is in the zoo but those whose seed, "
            "task and target are the zoo's own."
        ],
        "cells": cells,
        "provenance": provenance(),
    }


def main() -> None:
    """Try every cell and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    CANDIDATES.mkdir(parents=True, exist_ok=True)
    wanted = [(family, own, attack) for attack in ATTACKS for family, own in FAMILIES]
    cells: list[Row] = []
    with ProcessPoolExecutor(arguments.workers) as pool:
        for (family, own, attack), tried in zip(wanted, pool.map(try_cell, *zip(*wanted, strict=True)), strict=True):
            cells.append({"family": family, "class_specific": own, "attack": attack, "tried": tried})
            print(next(iter(rows_of(cells[-1:]))), flush=True)
    (RESULTS / "attack_matrix.json").write_text(json.dumps(document(cells), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
