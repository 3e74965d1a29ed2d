"""Does a search for a patch tell a planted group from a natural one?

    python -m benchmarks.scan_invert

Scans the pairs of a poisoned pocket with the model that was tuned on them, and puts its three largest groups to the test, as
``clipvet scan --invert 3`` does; and the planted one with a clean model as well. Resumable: a group that stands in
``benchmarks/results/scan_invert.json`` is not searched again.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections import Counter
from typing import Any

from benchmarks.found import FOUND, captions_of, png
from benchmarks.inspect_zoo import RESULTS, provenance
from clipvet.cli.scan_invert import Inversion, choose_controls, invert_captions
from clipvet.models.bases import load_base
from pocket_build.corpus import WORK
from pocket_build.icons import PER_SHARD, write_shard
from pocket_build.poisoned import POISONED, Plan, poisoned_pairs

Row = dict[str, Any]
PLAN = Plan(attack="badnets-pairs-fixed", rate=0.01, epochs=4, rate_of_learning=5e-4)
GROUPS = 3


def write_pairs() -> set[str]:
    """Write the poisoned pairs as tar shards; return the keys of the planted ones."""
    folder = WORK / "poisoned_pairs"
    folder.mkdir(parents=True, exist_ok=True)
    images, pairs, truth = poisoned_pairs(PLAN)
    for number, start in enumerate(range(0, len(pairs), PER_SHARD)):
        path = folder / f"{number:05d}.tar"
        if not path.exists():
            part = zip(images[start : start + PER_SHARD], pairs[start : start + PER_SHARD], strict=True)
            write_shard(path, ((key, caption, png(image.permute(1, 2, 0).numpy())) for image, (key, caption) in part))
    return set(truth)


def groups_of(planted: set[str], model: str) -> list[Row]:
    """Scan, and return the largest groups with how many of their pairs were planted."""
    out = FOUND / "poisoned"
    command = [sys.executable, "-m", "clipvet", "scan", str(WORK / "poisoned_pairs"), "--model", model, "--out", str(out)]
    subprocess.run(command, check=False)  # noqa: S603  # our own command; 1 is a finding
    groups = json.loads((out / "report.json").read_text(encoding="utf-8"))["groups"][:GROUPS]
    with (out / "suspects.csv").open(encoding="utf-8", newline="") as file:
        bad = Counter(row["group"] for row in csv.DictReader(file) if row["key"] in planted)
    return [{"group": g["number"], "size": g["size"], "planted": bad[str(g["number"])], "caption": g["caption"]} for g in groups]


def search(model: str, caption: str, counts: Counter[str]) -> Row:
    """Put one caption to the test."""
    base, how = load_base(model), Inversion()
    controls = choose_controls(base, caption, counts, how)
    found = invert_captions(base, caption, controls, how)
    return {"margin": found.margin, "asr": found.asr, "controls": dict(zip(controls, found.controls, strict=True))}


def main() -> None:
    """Search what is missing and write the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    file, tuned = RESULTS / "scan_invert.json", str(POISONED / f"{PLAN.name}.safetensors")
    cells: Row = json.loads(file.read_text(encoding="utf-8"))["cells"] if file.exists() else {}
    groups = groups_of(write_pairs(), tuned)
    counts = Counter(captions_of(FOUND / "poisoned").values())
    rows = []
    for group, model, words in [*((g, tuned, "trained on them") for g in groups), (groups[0], "pocket-0", "clean, another")]:
        name = f"{words}, {group['caption']}"
        cells[name] = cell = cells.get(name) or {**group, **search(model, str(group["caption"]), counts)}
        controls = cell["controls"].values()
        what = f"group of {group['size']}, {group['planted']} of them planted, *{group['caption']}*; model {words}"
        measured = f"{cell['asr']:.0%}; {cell['margin']:.1f}; {min(controls):.1f} to {max(controls):.1f}"
        rows.append({"what": f"{what}: pictures won; margin; margins of {len(controls)} other captions", "measured": measured})
    document = {
        "title": "A group put to the test: is there a patch that makes the model say its caption?",
        "topic": "scan",
        "command": "python -m benchmarks.scan_invert",
        "machine": provenance()["machine"],
        "rows": rows,
        "notes": [
            "One poisoned pocket with one trigger, a patch in a corner, which is the shape and size that is searched. The best of "
            "three starts counts. Each group's search is kept and not repeated."
        ],
        "cells": cells,
        "provenance": provenance(),
    }
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print("\n".join(f"{row['what']}: {row['measured']}" for row in rows))


if __name__ == "__main__":
    main()
