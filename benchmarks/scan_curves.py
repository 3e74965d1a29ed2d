"""How scan's scores depend on k, on the reference and on how much is poisoned.

    python -m benchmarks.scan_curves

One poisoned pocket (the patch at 1 %) whose features ``benchmarks.scan_pocket`` keeps. Another rate is had by taking poisoned or
clean pairs away before the scan, so that the model is always the one that was trained on 1 %. References are drawn from the pairs
that are scanned, or from clean pairs alone, which are then not scanned. Writes ``benchmarks/results/scan_curves.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.inspect_zoo import RESULTS, provenance
from benchmarks.scan_pocket import REFERENCE, features, judged
from clipvet.scan import SCORERS
from clipvet.scan.base import PairFeatures
from pocket_build.pairs import POISONED, Plan

NAME = "badnets-pairs-fixed-0.01-0"
SCORED = ("dao", "slof", "dao+clip-gap")
KS = (16, 32, 64, 128, 205, 512, 1024)
REFERENCES = (512, 1024, 2048, 4096, 8192)
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2)
DEFAULT_K = 205  # ten times the poison that a reference of 2,048 holds at 1 %
SEEDS = 2
Row = dict[str, Any]


def both_models() -> tuple[PairFeatures, np.ndarray]:
    """Features of all pairs by the poisoned pocket and by the other, clean one, and which pairs are poisoned."""
    row = json.loads((POISONED / f"{NAME}.json").read_text(encoding="utf-8"))
    plan = Plan(**{key: row[key] for key in Plan.__dataclass_fields__})
    own, bad = features(plan, "itself")
    other, _ = features(plan, "pocket-1")
    return PairFeatures(ids=own.ids, image=own.image, text=own.text, trusted=other), bad


def at_rate(bad: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Numbers of pairs among which so many are poisoned: all of one kind, and as many of the other as that takes."""
    poisoned, clean = np.flatnonzero(bad), np.flatnonzero(~bad)
    wanted = round(len(clean) * rate / (1 - rate))
    if wanted <= len(poisoned):
        poisoned = rng.choice(poisoned, wanted, replace=False)
    else:
        clean = rng.choice(clean, round(len(poisoned) * (1 - rate) / rate), replace=False)
    return np.sort(np.concatenate([poisoned, clean]))


def cell(found: PairFeatures, bad: np.ndarray, *, k: int, size: int = REFERENCE, rate: float = 0.01, trusted: bool = False) -> Row:
    """AUROC and clean share flagged of each scorer, means over draws.

    Args:
        found: features of all pairs.
        bad: ``bool (n,)``, the poisoned ones.
        k: neighbours.
        size: of the reference.
        rate: poisoned share of what is scanned.
        trusted: whether the reference is drawn from clean pairs, which are then not scanned.
    """
    drawn: dict[str, list[Row]] = {name: [] for name in SCORED}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        picked = at_rate(bad, rate, rng)
        pool = picked[~bad[picked]] if trusted else picked
        reference = rng.choice(pool, min(size, len(pool) // 2), replace=False)
        scanned = np.setdiff1d(picked, reference) if trusted else picked
        queries, compared = (found.at(torch.from_numpy(part)) for part in (scanned, reference))
        for name in SCORED:
            scores = SCORERS[name](k=min(k, len(reference) - 1)).score(queries, compared).numpy()
            drawn[name].append(judged(scores, bad[scanned]))
    return {name: {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} for name, rows in drawn.items()}


def shown(what: str, found: Row) -> Row:
    """One row of the table."""
    said = "; ".join(f"{name} {one['auroc']:.3f}, {one['fpr95']:.2%}" for name, one in found.items())
    return {"what": what, "measured": said}


def curves(found: PairFeatures, bad: np.ndarray) -> tuple[list[Row], list[Row]]:
    """Rows of the table, and the cells behind them."""
    plans: list[tuple[str, dict[str, Any]]] = [(f"k = {k}", {"k": k}) for k in KS]
    plans += [(f"reference of {size:,}, k = {round(size / 10)}", {"k": round(size / 10), "size": size}) for size in REFERENCES]
    plans += [(f"{rate:.1%} poisoned, k = {DEFAULT_K}", {"k": DEFAULT_K, "rate": rate}) for rate in RATES]
    plans += [(f"{rate:.1%} poisoned, clean reference, k = 16", {"k": 16, "rate": rate, "trusted": True}) for rate in RATES]
    rows, cells = [], []
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
            "A patch in a corner, 229 of 22,945 pairs of the pocket corpus; features of the model that was trained on them. Each "
            f"cell is AUROC, and the share of clean pairs flagged where 95 % of the poisoned are; means over {SEEDS} draws. Where "
            f"nothing else is said the reference is a random {REFERENCE:,} of the pairs that are scanned.",
            "Other rates are scans of fewer pairs with the same model: poisoned pairs are taken away below 1 %, clean ones above. "
            "dao+clip-gap has the other pocket as its trusted model, which was trained on the clean corpus. k beyond the default "
            "is what the tool would choose for a higher stated rate.",
        ],
        "cells": list(cells),
        "provenance": provenance(),
    }


def main() -> None:
    """Measure all cells and write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    written = document(*curves(*both_models()))
    (RESULTS / "scan_curves.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
