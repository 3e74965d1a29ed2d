"""Poisoned pairs, attack by attack: the default scorers on every poisoned pocket whose attack took.

    python -m benchmarks.scan_attacks [--workers 2]

A shorter table than ``benchmarks.scan_pocket``, over more attacks: DAO and SLOF with the default k, the plain CLIP score, and the
scorers that have a second, trusted model. Takes what ``pocket_build.pairs`` made. Resumable: what ``benchmarks/results/
scan_attacks.json`` holds is kept, and written after each attack.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from benchmarks.inspect_zoo import RESULTS, provenance
from benchmarks.scan_pocket import REFERENCE, SEEDS, TAKES, WITH_TRUSTED, both_models, poisoned_pockets, score_all
from clipvet.scan.base import PairFeatures
from pocket_build.poisoned import plan_of

FILE = RESULTS / "scan_attacks.json"
ALONE: tuple[tuple[str, dict[str, Any]], ...] = (("dao", {"k": 205}), ("slof", {"k": 205}), ("clip-score", {}))
Row = dict[str, Any]


def measured(record: Row) -> Row:
    """What is true of one poisoned pocket, and what the scorers make of its pairs where the attack took."""
    torch.set_num_threads(1)
    plan = plan_of(record)
    row: Row = {"name": plan.name, "settings": vars(plan), **{key: record[key] for key in ("pairs", "poisoned", "before", "after")}}
    row["asr"] = min(value for key, value in record["after"].items() if key != "ca")
    if row["asr"] >= TAKES:
        both, bad = both_models(plan)
        own = PairFeatures(ids=both.ids, image=both.image, text=both.text)
        row["cells"] = score_all(own, bad, ALONE) | score_all(both, bad, WITH_TRUSTED)
    return row


def table(runs: list[Row]) -> list[Row]:
    """Rows of the documentation."""
    out: list[Row] = []
    for run in runs:
        what = f"{run['settings']['attack']}, {run['poisoned']} of {run['pairs']:,} pairs"
        ca = f"{run['before']['ca']:.1%}, {run['after']['ca']:.1%}"
        out.append({"what": f"{what}: ASR; CA before and after", "measured": f"{run['asr']:.1%}; {ca}"})
        for name, cell in run.get("cells", {}).items():
            said = f"{cell['auroc']:.4f}; {cell['fpr95']:.2%}"
            out.append({"what": f"{what}, {name}: AUROC; clean flagged where 95 % of the poisoned are", "measured": said})
    return out


def document(runs: list[Row]) -> Row:
    """The results file."""
    return {
        "title": "Poisoned pairs, attack by attack",
        "topic": "scan",
        "command": "python -m benchmarks.scan_attacks",
        "machine": provenance()["machine"],
        "rows": table(runs),
        "notes": [
            "Pockets tuned on the pocket corpus with some pairs poisoned, for 3 to 8 epochs with Muon, the text tower locked and "
            "half of the image's patches dropped; one seed. An attack counts with an ASR of at least "
            f"{TAKES:.0%} on held-out pictures; of others only the ASR is shown. The single image "
            "stands in the place of others: it has no trigger.",
            f"References are random samples of {REFERENCE:,} pairs; means over {SEEDS}. clip-gap and dao+clip-gap have the second "
            "pocket as their trusted model, which was trained on the clean corpus, and that flatters them.",
            "Patches are as large as a token of the tower (8 of 64 px), as 16 of 224 px are for ViT-B/16; warps grow alike.",
        ],
        "runs": runs,
        "provenance": provenance(),
    }


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
            runs.append(run)
            FILE.write_text(json.dumps(document(runs), indent=1) + "\n", encoding="utf-8")
            print(run["name"], run["asr"], run.get("cells", ""), flush=True)


if __name__ == "__main__":
    main()
