"""Poisoned pairs of the pocket corpus: how well does each scorer find them?

    python -m benchmarks.scan_pocket

Takes every poisoned pocket that ``pocket_build.pairs`` made, computes the features of all its training pairs (with the poisoned
model, and with a clean one that never saw them), scores them, and compares with what was planted. Writes
``benchmarks/results/scan_pocket.json``. Features stay in ``pocket_build/work/poisoned``.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch

from benchmarks.inspect_zoo import RESULTS, provenance
from clipvet.metrics import auroc, fpr_at_tpr
from clipvet.models.base import ClipModel
from clipvet.models.bases import load_base
from clipvet.scan import SCORERS
from clipvet.scan.base import PairFeatures
from clipvet.scan.official_code import official_dao, official_slof
from pocket_build.poisoned import POISONED, Plan, plan_of, poisoned_pairs

Row = dict[str, Any]
REFERENCE = 2048
SEEDS = 2  # samples that serve as the reference, in turn
TAKES = 0.8  # ASR from which an attack counts
WANTED: tuple[tuple[str, dict[str, Any]], ...] = (  # k = 205 is the default: ten times the poison that the reference may hold
    ("dao", {"k": 205}),
    ("slof", {"k": 205}),
    ("dao", {"k": 16}),
    ("slof", {"k": 16}),
    ("k-distance", {"k": 205}),
    ("lid", {"k": 205}),
    ("clip-score", {}),
)
WITH_TRUSTED: tuple[tuple[str, dict[str, Any]], ...] = (("clip-gap", {}), ("dao+clip-gap", {"k": 205}))  # of two models


def tuned(name: str) -> ClipModel:
    """The pocket that was tuned on poisoned pairs."""
    model = load_base("pocket-0")
    from safetensors.torch import load_file

    model.clip.load_state_dict({k: v.float() for k, v in load_file(POISONED / f"{name}.safetensors").items()}, strict=False)
    return model


@torch.no_grad()
def features(plan: Plan, extractor: str) -> tuple[PairFeatures, np.ndarray]:
    """Features of all training pairs, and which of them are poisoned; kept in a file."""
    images, pairs, truth = poisoned_pairs(plan)
    file = POISONED / f"{plan.name}-by-{extractor}.npz"
    if not file.exists():
        model = tuned(plan.name) if extractor == "itself" else load_base(extractor)
        parts: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []
        for start in range(0, len(pairs), 256):
            parts[0].append(model.encode_image(images[start : start + 256].float() / 255).half())
            parts[1].append(model.encode_text([text for _, text in pairs[start : start + 256]]).half())
        np.savez(file, image=torch.cat(parts[0]).numpy(), text=torch.cat(parts[1]).numpy())
    held = np.load(file)
    bad = np.array([key in truth for key, _ in pairs])
    ids = torch.arange(len(pairs))
    return PairFeatures(ids=ids, image=torch.from_numpy(held["image"]), text=torch.from_numpy(held["text"])), bad


def both_models(plan: Plan) -> tuple[PairFeatures, np.ndarray]:
    """Features of all pairs by the poisoned pocket, with the other, clean one as the trusted model, and which are poisoned."""
    own, bad = features(plan, "itself")
    other, _ = features(plan, "pocket-1")
    return PairFeatures(ids=own.ids, image=own.image, text=own.text, trusted=other), bad


def sample(found: PairFeatures, size: int, seed: int) -> PairFeatures:
    """Draw a reference."""
    pick = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:size]
    return found.at(pick)


def judged(scores: np.ndarray, bad: np.ndarray) -> Row:
    """AUROC, and the share of clean pairs flagged where 95 % of the poisoned ones are."""
    clean, poisoned = scores[~bad], scores[bad]
    return {"auroc": auroc(clean.tolist(), poisoned.tolist()), "fpr95": fpr_at_tpr(clean.tolist(), poisoned.tolist())}


def averaged(rows: list[Row]) -> Row:
    """Mean over references, and the worst."""
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} | {"worst_auroc": min(row["auroc"] for row in rows)}


def score_all(found: PairFeatures, bad: np.ndarray, wanted: tuple[tuple[str, dict[str, Any]], ...] = WANTED) -> dict[str, Row]:
    """Scorers against several random references."""
    out: dict[str, list[Row]] = {}
    for seed in range(SEEDS):
        reference = sample(found, REFERENCE, seed)
        for name, settings in wanted:
            label = f"{name}, k = {settings['k']}" if settings else name
            scores = SCORERS[name](**settings).score(found, reference).numpy()
            out.setdefault(label, []).append(judged(scores, bad))
    return {name: averaged(rows) for name, rows in out.items()}


def official(found: PairFeatures, bad: np.ndarray, k: int) -> dict[str, Row]:
    """The published code's scores: every pair in a random batch of 2,048 that is its own reference."""
    assert found.image is not None
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
    out: dict[str, Row] = {}
    for name, function in (("dao, published code, k = 16", official_dao), ("slof, published code, k = 16", official_slof)):
        scores = np.zeros(len(found), np.float32)
        for part in order.split(REFERENCE):
            if len(part) > k + 1:
                scores[part.numpy()] = np.nan_to_num(function(found.image[part], k).numpy(), nan=1000.0, posinf=1000.0)
        out[name] = judged(scores, bad)
    return out


def table(plan: Plan, row: Row) -> tuple[list[Row], Row]:
    """Rows of one poisoned pocket, and all its cells."""
    torch.set_num_threads(1)
    asr = min(value for key, value in row["after"].items() if key != "ca")
    what = f"{plan.attack}, {row['poisoned']} of {row['pairs']:,} pairs"
    rows = [
        {"what": f"{what}: ASR; CA before and after", "measured": f"{asr:.1%}; {row['before']['ca']:.1%}, {row['after']['ca']:.1%}"}
    ]
    cells: Row = {"asr": asr, "counts": asr >= TAKES}
    for extractor, words in (("itself", "features of the model trained on them"), ("pocket-1", "features of another, clean model")):
        if asr < TAKES:
            continue
        found, bad = features(plan, extractor)
        cells[extractor] = {**score_all(found, bad), **official(found, bad, 16)}
        rows += shown(f"{what}, {words}", cells[extractor])
    if asr >= TAKES:
        both, bad = both_models(plan)
        cells["itself, with pocket-1 as the trusted model"] = score_all(both, bad, WITH_TRUSTED)
        rows += shown(f"{what}, features of both models", cells["itself, with pocket-1 as the trusted model"], digits=4)
    return rows, cells


def shown(what: str, cells: dict[str, Row], digits: int = 3) -> list[Row]:
    """Rows of the table, one per scorer; more digits where three would say 1.000."""
    ends = "AUROC; clean flagged where 95 % of the poisoned are"
    return [
        {"what": f"{what}, {name}: {ends}", "measured": f"{cell['auroc']:.{digits}f}; {cell['fpr95']:.{digits - 2}%}"}
        for name, cell in cells.items()
    ]


def poisoned_pockets() -> list[tuple[Plan, Row]]:
    """Plan and record of every pocket that was trained on poisoned pairs, none taken out."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(POISONED.glob("*.json"))]
    plans = [(plan_of(record), record) for record in records]
    return [(plan, record) for plan, record in plans if plan.attack != "clean" and not plan.drop]


def main() -> None:
    """Score what is there and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    plans = poisoned_pockets()
    rows: list[Row] = []
    cells: Row = {}
    with ProcessPoolExecutor(arguments.workers) as pool:
        for (plan, _), found in zip(plans, pool.map(table, *zip(*plans, strict=True)), strict=True):
            added, cells[plan.name] = found
            rows += added
            print("\n".join(f"{part['what']}: {part['measured']}" for part in added), flush=True)
    document = {
        "title": "Poisoned pairs of the pocket corpus",
        "topic": "scan",
        "command": "python -m benchmarks.scan_pocket",
        "machine": provenance()["machine"],
        "rows": rows,
        "notes": [
            "The pocket was tuned on its own corpus with some pairs poisoned, the text tower locked. An attack counts with an ASR "
            f"of at least {TAKES:.0%} on held-out pictures among all held-out names; of one that does not, only its ASR is shown. "
            f"References are random samples of {REFERENCE:,} pairs; means over {SEEDS}. The published code compares each batch of "
            f"{REFERENCE:,} with itself.",
            "Patches are as large as a token of the tower (8 of 64 px), as 16 of 224 px are for ViT-B/16; warps grow alike.",
            "k was set to ten times the poison in the reference after a look at the patch attack at 1 %, and dao+clip-gap was "
            "chosen among several ways to combine its two parts on the same attack.",
            "The second model, pocket-1, was trained on the clean corpus that these pairs come from, which flatters clip-gap and "
            "dao+clip-gap: a stranger's model knows the data less.",
        ],
        "cells": cells,
        "provenance": provenance(),
    }
    (RESULTS / "scan_pocket.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
