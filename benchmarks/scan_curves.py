"""How scan's scores depend on k, on the reference and on how much is poisoned.

    python -m benchmarks.scan_curves

One poisoned pocket (the patch at 1 %, trained from scratch) whose features ``benchmarks.scan_pocket`` keeps. Another rate is had by
taking poisoned or clean pairs away before the scan, so that the model is always the one that was trained on 1 %. References are
drawn from the pairs that are scanned, or from clean pairs that are not. Writes ``benchmarks/results/scan_curves.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.inspect_zoo import RESULTS, provenance
from benchmarks.scan_pocket import REFERENCE, K, both_models, judged
from clipvet.scan import SCORERS
from clipvet.scan.base import PairFeatures
from clipvet.scan.options import ScanOptions, neighbours_for
from pocket_build.poisoned import POISONED, plan_of

NAME = "badnets-pairs-0.01-0-scratch"
SCORED = ("slof-dense", "dao", "slof", "slof-dense+clip-gap")
KS = (64, 128, 256, K, 820, 1640)
REFERENCES = (512, 1024, 2048, 4096, 8192)
LOW, HIGH = (0.001, 0.003, 0.01), (0.01, 0.03, 0.1, 0.2)
FEW = 1_145  # pairs of which all poisoned ones are a fifth: scans of so many are compared over the high rates
SEEDS = 2
Row = dict[str, Any]


def at_rate(bad: np.ndarray, rate: float, rng: np.random.Generator, total: int | None = None) -> np.ndarray:
    """Numbers of pairs among which so many are poisoned; of ``total`` pairs, or of all clean ones and as many as that takes."""
    poisoned, clean = np.flatnonzero(bad), np.flatnonzero(~bad)
    wanted = round(len(clean) * rate / (1 - rate)) if total is None else round(total * rate)
    kept = clean if total is None else rng.choice(clean, total - wanted, replace=False)
    return np.sort(np.concatenate([rng.choice(poisoned, min(wanted, len(poisoned)), replace=False), kept]))


def cell(
    found: PairFeatures,
    bad: np.ndarray,
    *,
    k: int,
    size: int = REFERENCE,
    rate: float = 0.01,
    total: int | None = None,
    clean_reference: bool = False,
) -> Row:
    """AUROC and clean share flagged of each scorer, means over draws.

    Args:
        found: features of all pairs.
        bad: ``bool (n,)``, the poisoned ones.
        k: neighbours.
        size: of the reference.
        rate: poisoned share of what is scanned.
        total: how many pairs are scanned; None for as many as there are at that rate.
        clean_reference: whether the reference is drawn from clean pairs that are not scanned, and not from those that are.
    """
    drawn: dict[str, list[Row]] = {name: [] for name in SCORED}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        scanned = at_rate(bad, rate, rng, total)
        pool = np.setdiff1d(np.flatnonzero(~bad), scanned) if clean_reference else scanned
        reference = rng.choice(pool, size, replace=False)
        queries, compared = (found.at(torch.from_numpy(part)) for part in (scanned, reference))
        for name in SCORED:
            drawn[name].append(judged(SCORERS[name](k=k).score(queries, compared).numpy(), bad[scanned]))
    return {name: {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} for name, rows in drawn.items()}


def shown(what: str, found: Row) -> Row:
    """One row of the table."""
    said = "; ".join(f"{name} {one['auroc']:.3f}, {one['fpr95']:.2%}" for name, one in found.items())
    return {"what": what, "measured": said}


def curves(found: PairFeatures, bad: np.ndarray) -> tuple[list[Row], list[Row]]:
    """Rows of the table, and the cells behind them."""
    plans: list[tuple[str, dict[str, Any]]] = [(f"k = {k}", {"k": k}) for k in KS]
    sizes = {size: neighbours_for(ScanOptions.poison_rate * size) for size in REFERENCES}
    plans += [(f"reference of {size:,}, k = {k}", {"k": k, "size": size}) for size, k in sizes.items()]
    plans += [(f"{rate:.1%} poisoned, k = {K}", {"k": K, "rate": rate}) for rate in LOW]
    few = {"k": neighbours_for(ScanOptions.poison_rate * FEW / 2), "size": FEW // 2, "total": FEW}
    words = f"of {FEW:,} pairs poisoned, reference of {FEW // 2}"
    plans += [(f"{rate:.1%} {words}, k = {few['k']}", {**few, "rate": rate}) for rate in HIGH]
    clean = {"k": 16, "size": FEW // 2, "total": FEW, "clean_reference": True}
    plans += [(f"{rate:.1%} {words} clean ones, k = 16", {**clean, "rate": rate}) for rate in HIGH]
    rows: list[Row] = []
    cells: list[Row] = []
    for what, settings in plans:
        one = cell(found, bad, **settings)
        rows.append(shown(what, one))
        cells.append({**settings, "cells": one})
        print(f"{what}: {rows[-1]['measured']}", flush=True)
    return rows, cells


def document(rows: Sequence[Row], cells: Sequence[Row]) -> Row:
    """The results file."""
    return {
        "title": "A scan by k, reference and poison rate",
        "topic": "scan",
        "command": "python -m benchmarks.scan_curves",
        "machine": provenance()["machine"],
        "rows": list(rows),
        "notes": [
            "A patch at random places, 229 of 22,945 pairs of the pocket corpus; features of the model trained from scratch on "
            f"them. Each cell is AUROC, and the share of clean pairs flagged where 95 % of the poisoned are; means over {SEEDS} "
            f"draws. Where nothing else is said the reference is a random {REFERENCE:,} of the pairs that are scanned.",
            "Other rates are scans of fewer pairs with the same model, which was trained on 1 %; above that all have as many pairs "
            "and as large a reference. Clean references hold pairs that are not scanned. slof-dense+clip-gap has the other pocket "
            "as its trusted model, which was trained on the clean corpus.",
        ],
        "cells": list(cells),
        "provenance": provenance(),
    }


def main() -> None:
    """Measure all cells and write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    plan = plan_of(json.loads((POISONED / f"{NAME}.json").read_text(encoding="utf-8")))
    written = document(*curves(*both_models(plan)))
    (RESULTS / "scan_curves.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
