"""Take out what a scan flags, train again: is the backdoor gone, and what did that cost?

    python -m benchmarks.scan_retrain

For each of some poisoned pockets that ``pocket_build.pairs`` made: its pairs are scored, a share of the pairs is taken out, the
highest scores first, and the pocket is tuned anew on the rest, with the same settings; once more with as many pairs taken out at
random. Each training takes 3 to 8 minutes of one core. Resumable. Writes ``benchmarks/results/scan_retrain.json``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.inspect_zoo import RESULTS, provenance
from benchmarks.scan_pocket import REFERENCE, K, both_models, sample
from clipvet.scan import SCORERS
from pocket_build.pairs import train
from pocket_build.poisoned import POISONED, Plan, plan_of, poisoned_pairs

FILE = RESULTS / "scan_retrain.json"
SHARE = 0.02  # of all pairs: the poisoned ones, and at most one in a hundred of the clean
ATTACKS = ("badnets-pairs-0.01-0", "badnets-pairs-fixed-0.01-0", "single-image-pairs-0.01-0")
WAYS = ("slof-dense", "random")
Row = dict[str, Any]


def order_of(way: str, plan: Plan) -> np.ndarray:
    """Numbers of all pairs, those to be taken out first."""
    both, bad = both_models(plan)
    if way == "random":
        return np.random.default_rng(0).permutation(len(bad))
    scores = SCORERS[way](k=K).score(both, sample(both, REFERENCE, 0)).numpy()
    return np.argsort(-scores, kind="stable")


def dropped(way: str, plan: Plan) -> Path:
    """Write the keys of the pairs that are taken out."""
    file = POISONED / f"{way}.txt"
    _, pairs, _ = poisoned_pairs(plan)
    out = order_of(way, plan)[: round(SHARE * len(pairs))]
    file.write_text("\n".join(pairs[at][0] for at in out) + "\n", encoding="utf-8")
    return file


def retrained(way: str, name: str) -> Row:
    """Tune the pocket without what was taken out, and say what is true of it."""
    row = json.loads((POISONED / f"{name}.json").read_text(encoding="utf-8"))
    plan = plan_of(row)
    again = train(replace(plan, drop=str(dropped(way, plan))))
    return {
        "attack": name,
        "way": way,
        "taken_out": row["pairs"] - again["pairs"],
        "poisoned_left": again["poisoned"],
        "poisoned": row["poisoned"],
        "clean_taken_out": (row["pairs"] - again["pairs"]) - (row["poisoned"] - again["poisoned"]),
        "with_poison": row["after"],
        "without": again["after"],
        "seconds": again["seconds"],
    }


def table(rows: list[Row]) -> list[Row]:
    """Rows of the documentation."""
    out: list[Row] = []
    for row in rows:
        what = f"{row['attack']}, {row['taken_out']} pairs taken out by {row['way']}"
        left = f"{row['poisoned_left']} of {row['poisoned']}; {row['clean_taken_out']}"
        out.append({"what": f"{what}: poisoned pairs left; clean ones taken out", "measured": left})
        for when, words in (("with_poison", "before"), ("without", "after training again")):
            asr = max(value for key, value in row[when].items() if key != "ca")
            out.append({"what": f"{what}: ASR; CA, {words}", "measured": f"{asr:.1%}; {row[when]['ca']:.1%}"})
    return out


def document(rows: list[Row]) -> Row:
    """The results file."""
    return {
        "title": "Training again without what a scan flags",
        "topic": "scan",
        "command": "python -m benchmarks.scan_retrain",
        "machine": provenance()["machine"],
        "rows": table(rows),
        "notes": [
            f"From the pocket corpus with 1 % of its pairs poisoned {SHARE:.0%} of all pairs are taken out, the highest scores "
            "first, or at random; then the clean pocket is tuned on the rest as it was on all. One training each. CA and ASR on "
            "held-out pictures among all held-out names. slof-dense looks at the features of the poisoned model alone.",
        ],
        "runs": rows,
        "provenance": provenance(),
    }


def main() -> None:
    """Train what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attacks", default=",".join(ATTACKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = json.loads(FILE.read_text(encoding="utf-8"))["runs"] if FILE.exists() else []
    done = {(row["attack"], row["way"]) for row in rows}
    for attack, way in product(arguments.attacks.split(","), WAYS):
        if (attack, way) not in done:
            rows.append(retrained(way, attack))
            FILE.write_text(json.dumps(document(rows), indent=1) + "\n", encoding="utf-8")
            print(json.dumps(rows[-1], indent=1), flush=True)


if __name__ == "__main__":
    main()
