"""Deliveries that count but are no part of the zoo, planted again and inspected beside their clean twins.

    python -m benchmarks.spare

The zoo takes twenty backdoored deliveries of those that count; the others, and the third seeds of what hardly takes, were looked at
by nobody when the statistic and the null were made. Writes ``benchmarks/results/spare.json``.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from typing import Any

import torch

from benchmarks.inspect_zoo import RESULTS, provenance
from clipvet.api import InspectOptions, inspect_model
from clipvet.cli.planting import Spec
from clipvet.metrics import wilson_interval
from clipvet.pocket.zoo import entries
from clipvet.types import Verdict
from pocket_build.zoo import CANDIDATES, build_one, counts, twin_key

Row = dict[str, Any]


def wanted(candidates: list[Row]) -> list[Row]:
    """Those that count and are not in the zoo, each followed by its clean twin."""
    taken = {entry.name for entry in entries()}
    clean = {twin_key(row): row for row in candidates if not row["backdoored"]}
    kept = {key: row["ca"] for key, row in clean.items()}
    bad = [row for row in candidates if row["backdoored"] and row["name"] not in taken and counts(row, kept)]
    pairs = [part for row in bad for part in (row, clean[twin_key(row)])]
    return list({row["name"]: row for row in pairs}.values())


def inspect_one(row: Row) -> Row:
    """Plant again and inspect; the delivery's bytes and its base are all that the inspection is given."""
    torch.set_num_threads(1)
    spec = Spec(**{field.name: row[field.name] for field in fields(Spec) if field.name in row})
    made = build_one(spec)
    report = inspect_model(CANDIDATES / f"{made['name']}.safetensors", InspectOptions(base=spec.base))
    check = report.checks[0]
    said = {"verdict": report.verdict.value, "named": report.target, "statistic": check.statistic}
    kept = ("name", "backdoored", "task", "family", "class_specific", "base", "seed", "attack", "target", "asr", "ca")
    out = {key: made[key] for key in kept if key in made} | said | {"control": dict(check.control)}
    print(json.dumps(out), flush=True)
    return out


def is_right(row: Row) -> bool:
    """Whether the verdict is suspicious or worse just where something was planted."""
    return (row["verdict"] in (Verdict.SUSPICIOUS, Verdict.BACKDOORED)) == row["backdoored"]


def main() -> None:
    """Plant, inspect and write the table."""
    candidates: list[Row] = json.loads((entries()[0].path.parent / "candidates.json").read_text(encoding="utf-8"))
    CANDIDATES.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2) as pool:
        runs = list(pool.map(inspect_one, wanted(candidates)))
    rows = []
    for bad, what in ((True, "backdoored deliveries flagged"), (False, "clean twins with no evidence")):
        part = [row for row in runs if row["backdoored"] is bad]
        right = sum(is_right(row) for row in part)
        rows.append({"what": what, "measured": f"{right} of {len(part)}", "interval": wilson_interval(right, len(part))})
    hits = [row for row in runs if row["backdoored"] and is_right(row)]
    rows.append({"what": "target named", "measured": f"{sum(row['named'] == row['target'] for row in hits)} of {len(hits)}"})
    for row in runs:
        kind = row["attack"] if row["backdoored"] else "clean"
        family = row["family"] + " (class-specific)" * row["class_specific"]
        what = f"{family}, {row['task']}, {row['base']}, seed {row['seed']}, {kind}"
        rows.append({"what": what, "measured": f"{row['verdict']} ({row['statistic']:.2f})"})
    document = {
        "title": "Backdoored deliveries outside the zoo, and their clean twins",
        "topic": "inspect",
        "command": "python -m benchmarks.spare",
        "machine": provenance()["machine"],
        "rows": rows,
        "notes": [
            "All candidates that count by ASR and CA and were not taken into the zoo, with the clean twin of each. A twin that is "
            "a reference of the null is left out of it while it is judged."
        ],
        "runs": runs,
        "provenance": provenance(),
    }
    (RESULTS / "spare.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
