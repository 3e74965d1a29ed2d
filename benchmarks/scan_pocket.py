"""Poisoned pairs of the pocket corpus, attack by attack: how well does each scorer find them?

    python -m benchmarks.scan_pocket [--workers 2]

Takes every poisoned pocket that ``pocket_build.pairs`` made, computes the features of all its training pairs (with the poisoned
model, and with a clean one that never saw them), scores them, and compares with what was planted. Features stay in
``pocket_build/work/poisoned``. Resumable: what ``benchmarks/results/scan_pocket.json`` holds is kept; it is written after each
attack.
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
from clipvet.scan.options import BATCH, ScanOptions, neighbours_for
from pocket_build.poisoned import POISONED, Plan, plan_of, poisoned_pairs

Row = dict[str, Any]
REFERENCE, K = ScanOptions.reference, neighbours_for(ScanOptions.poison_rate * ScanOptions.reference)  # of clipvet scan
SEEDS = 2  # samples that serve as the reference, in turn
TAKES = 0.8  # ASR from which an attack counts
FILE = RESULTS / "scan_pocket.json"
ALONE: tuple[tuple[str, dict[str, Any]], ...] = (
    *((name, {"k": K}) for name in ("slof-dense", "dao", "slof", "k-distance", "lid")),
    ("isolation-forest", {}),
    ("clip-score", {}),
)
ANOTHER = (*ALONE[:3], ALONE[-1])
WITH_TRUSTED: tuple[tuple[str, dict[str, Any]], ...] = (("clip-gap", {}), ("slof-dense+clip-gap", {"k": K}))  # of two models
SOURCES = {
    "itself": "by the model trained on them",
    "pocket-1": "by another, clean model",
    "both": "by both models",
}
REPORTED = {
    "badnets-pairs": {
        "reported": "dao, k = 16, batches of 128: 1.000 (4 poisoned among 49,950 images, RN50)",
        "source": "Huang et al., ICLR 2025, their example notebook",
    }
}


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


def score_all(found: PairFeatures, bad: np.ndarray, wanted: tuple[tuple[str, dict[str, Any]], ...]) -> dict[str, Row]:
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
        for part in order.split(BATCH):
            if len(part) > k + 1:
                scores[part.numpy()] = np.nan_to_num(function(found.image[part], k).numpy(), nan=1000.0, posinf=1000.0)
        out[name] = judged(scores, bad)
    return out


def measured(record: Row) -> Row:
    """What is true of one poisoned pocket, and what the scorers make of its pairs where the attack took."""
    torch.set_num_threads(1)
    plan = plan_of(record)
    row: Row = {"name": plan.name, "settings": vars(plan), **{key: record[key] for key in ("pairs", "poisoned", "before", "after")}}
    row["asr"] = min(value for key, value in record["after"].items() if key != "ca")
    if row["asr"] >= TAKES:
        both, bad = both_models(plan)
        assert both.trusted is not None
        own = PairFeatures(ids=both.ids, image=both.image, text=both.text)
        row["cells"] = {
            "itself": score_all(own, bad, ALONE) | official(own, bad, 16),
            "pocket-1": score_all(both.trusted, bad, ANOTHER),
            "both": score_all(both, bad, WITH_TRUSTED),
        }
    return row


def table(runs: list[Row]) -> list[Row]:
    """Rows of the documentation."""
    out: list[Row] = []
    for run in runs:
        attack, scratch = run["settings"]["attack"], run["settings"]["scratch"]
        what = f"{attack}, {'from scratch, ' if scratch else ''}{run['poisoned']} of {run['pairs']:,} pairs"
        rates = [f"{value:.1%}" for key, value in run["after"].items() if key != "ca"]
        ca = f"{run['after']['ca']:.1%}" if scratch else f"{run['before']['ca']:.1%}, {run['after']['ca']:.1%}"
        out.append({"what": f"{what}: ASR; CA{'' if scratch else ' before and after'}", "measured": f"{', '.join(rates)}; {ca}"})
        for source, words in SOURCES.items():
            if cells := run.get("cells", {}).get(source):
                said = "; ".join(f"{name}: {cell['auroc']:.4f}, {cell['fpr95']:.2%}" for name, cell in cells.items())
                reported = REPORTED[attack] if source == "itself" and attack in REPORTED else {}
                out.append({"what": f"{what}, features {words}", "measured": said, **reported})
    return out


def document(runs: list[Row]) -> Row:
    """The results file."""
    return {
        "title": "Poisoned pairs of the pocket corpus, attack by attack",
        "topic": "scan",
        "command": "python -m benchmarks.scan_pocket",
        "machine": provenance()["machine"],
        "rows": table(runs),
        "notes": [
            "Of each scorer: AUROC, and the share of clean pairs flagged where 95 % of the poisoned are. Pockets were trained from "
            "random weights on the pocket corpus with some pairs poisoned (16 or 24 epochs), or the clean pocket was tuned on it, "
            "its text tower locked and half of the image's patches dropped; one seed. An attack counts where each of its triggers "
            f"has an ASR of at least {TAKES:.0%} on held-out pictures among all held-out names; others show ASR and CA alone.",
            f"References are random samples of {REFERENCE:,} pairs; means over {SEEDS}. The published code compares each batch of "
            f"{BATCH:,} with itself.",
            "Patches are as large as a token of the tower (8 of 64 px), as 16 of 224 px are for ViT-B/16; warps grow alike. -fixed "
            "is a patch in the corner, and without it a random place; -fine is a warp that moves every pixel by itself, as in the "
            "published code for poisoned pairs, and without it a smooth one, as in WaNet. A single image stands in the place of "
            "others: it has no trigger.",
            "slof-dense was made, and its share of neighbours, the size of the reference and k for it chosen, on the patches, SIG, "
            "the single image and Blended with tuned pockets, and on the patch from scratch; the other rows had no part in it.",
            "The second model, pocket-1, was trained on the clean corpus that these pairs come from, which flatters clip-gap and "
            "slof-dense+clip-gap: a stranger's model knows the data less.",
        ],
        "runs": runs,
        "provenance": provenance(),
    }


def poisoned_pockets() -> list[tuple[Plan, Row]]:
    """Plan and record of every pocket that was trained on poisoned pairs, none taken out."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(POISONED.glob("*.json"))]
    plans = [(plan_of(record), record) for record in records]
    return [(plan, record) for plan, record in plans if plan.attack != "clean" and not plan.drop]


def main() -> None:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    runs: list[Row] = json.loads(FILE.read_text(encoding="utf-8"))["runs"] if FILE.exists() else []
    done = {run["name"] for run in runs}
    todo = [record for plan, record in poisoned_pockets() if plan.name not in done]
    with ProcessPoolExecutor(arguments.workers) as pool:
        for run in pool.map(measured, todo):
            runs = sorted([*runs, run], key=lambda found: str(found["name"]))
            FILE.write_text(json.dumps(document(runs), indent=1) + "\n", encoding="utf-8")
            print(json.dumps(table([run]), indent=1), flush=True)


if __name__ == "__main__":
    main()
