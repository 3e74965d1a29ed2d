"""Poisoned pairs of the pocket corpus: how well does each scorer find them?

    python -m benchmarks.scan_pocket

Takes every poisoned pocket that ``pocket_build.pairs`` made, computes the features of all its training pairs (with the poisoned
model, and with a clean one that never saw them), scores them, and compares with what was planted. Writes
``benchmarks/results/scan_pocket.json``. Features stay in ``pocket_build/work/poisoned``.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch

from clipvet.metrics import auroc, fpr_at_tpr
from clipvet.models.base import ClipModel
from clipvet.models.bases import load_base
from clipvet.scan import SCORERS
from clipvet.scan.base import PairFeatures
from clipvet.scan.official_code import official_dao, official_slof
from pocket_build.pairs import POISONED, Plan, poisoned_pairs

Row = dict[str, Any]
REFERENCE = 2048
SEEDS = 3  # samples that serve as the reference, in turn


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


def sample(found: PairFeatures, size: int, seed: int) -> PairFeatures:
    """Draw a reference."""
    pick = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:size]
    assert found.image is not None
    assert found.text is not None
    return PairFeatures(ids=found.ids[pick], image=found.image[pick], text=found.text[pick])


def judged(scores: np.ndarray, bad: np.ndarray) -> Row:
    """AUROC, and the share of clean pairs flagged where 95 % of the poisoned ones are."""
    clean, poisoned = scores[~bad], scores[bad]
    return {"auroc": auroc(clean.tolist(), poisoned.tolist()), "fpr95": fpr_at_tpr(clean.tolist(), poisoned.tolist())}


def averaged(rows: list[Row]) -> Row:
    """Mean over references, and the worst."""
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} | {"worst_auroc": min(row["auroc"] for row in rows)}


def score_all(found: PairFeatures, bad: np.ndarray, wanted: dict[str, dict[str, Any]], size: int) -> dict[str, Row]:
    """All scorers against several random references of one size."""
    out: dict[str, list[Row]] = {}
    for seed in range(SEEDS):
        reference = sample(found, size, seed)
        for name, settings in wanted.items():
            scorer = SCORERS[settings.pop("scorer", name)](**settings) if "scorer" in settings else SCORERS[name](**settings)
            out.setdefault(name, []).append(judged(scorer.score(found, reference).numpy(), bad))
    return {name: averaged(rows) for name, rows in out.items()}


def official(found: PairFeatures, bad: np.ndarray, k: int) -> dict[str, Row]:
    """The published code's scores: every pair in a random batch of 2,048 that is its own reference."""
    assert found.image is not None
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
    out: dict[str, Row] = {}
    for name, function in (("slof, official code", official_slof), ("dao, official code", official_dao)):
        scores = np.zeros(len(found), np.float32)
        for part in order.split(REFERENCE):
            if len(part) > k + 1:
                scores[part.numpy()] = np.nan_to_num(function(found.image[part], k).numpy(), nan=1000.0, posinf=1000.0)
        out[name] = judged(scores, bad)
    return out


def main() -> None:
    """Score what is there and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    for record in sorted(POISONED.glob("*.json")):
        row = json.loads(record.read_text(encoding="utf-8"))
        plan = Plan(**{key: row[key] for key in Plan.__dataclass_fields__})
        if arguments.only and arguments.only not in plan.name:
            continue
        print(plan.name, row["poisoned"], "poisoned", row["before"], row["after"])
        for extractor in ("itself", "pocket-1"):
            found, bad = features(plan, extractor)
            wanted: dict[str, dict[str, Any]] = {name: {} for name in SCORERS if name != "isolation-forest"}
            for name, cell in {**score_all(found, bad, wanted, REFERENCE), **official(found, bad, 16)}.items():
                print(f"  {extractor} {name}: AUROC {cell['auroc']:.4f}, FPR at 95 % TPR {cell['fpr95']:.4f}")


if __name__ == "__main__":
    main()
