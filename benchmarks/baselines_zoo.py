"""Neural Cleanse and Pixel-Backdoor on the pocket zoo, beside the default check: do sparsity scores separate on CLIP?

    python -m benchmarks.baselines_zoo

Two budgets: as many images through the tower as the default check takes on the same delivery (in batches of the default check's
size), and the five epochs that both had in the comparison with CLIP-Inspector. The default check is not run: its rows come from
``benchmarks/results/inspect_zoo_rows.json``, for the same deliveries. Resumable; rows in
``benchmarks/results/baselines_zoo_rows.json``. Writes ``benchmarks/results/baselines_zoo.json``: verdicts by the published rule
with Wilson intervals, AUROC with an interval bootstrapped over tasks.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.inspect_zoo import CHECKS as ZOO_CHECKS
from benchmarks.inspect_zoo import RESULTS, WORDS, Row, auroc_with_interval, in_turn, judge_paper, named, provenance
from benchmarks.inspect_zoo import ROWS as ZOO_ROWS
from clipvet.data.generated import generate_probes
from clipvet.inspection.base import Run
from clipvet.inspection.calibration import settings_digest
from clipvet.inspection.journal import MemoryJournal
from clipvet.inspection.margin_residual import MarginResidual
from clipvet.inspection.neural_cleanse import NeuralCleanse
from clipvet.inspection.pixel_backdoor import PixelBackdoor
from clipvet.inspection.smallest_trigger import SmallestTrigger
from clipvet.inspection.subject import subject_of
from clipvet.metrics import wilson_interval
from clipvet.models.bases import load_base
from clipvet.models.delivery import Delivery, open_delivery
from clipvet.pocket.zoo import ZooEntry, entries

ROWS = RESULTS / "baselines_zoo_rows.json"
N_PROBES = 1000
EQUAL, PUBLISHED = "equal budget", "five epochs"
STRENGTH = MarginResidual().strength
CHECKS: dict[tuple[str, str], SmallestTrigger] = {
    (cls.name, budget): cls(strength=STRENGTH, batch=MarginResidual().batch) if budget == EQUAL else cls(strength=STRENGTH)
    for budget in (EQUAL, PUBLISHED)
    for cls in (NeuralCleanse, PixelBackdoor)
}
REPORTED = {"neural-cleanse": 0.495, "pixel-backdoor": 0.687}  # AUROC in CLIP-Inspector (arXiv 2604.09101), ViT-B/16


def default_passes(delivery: Delivery) -> int:
    """Images that the default check passes through the tower for a delivery."""
    default = MarginResidual()
    subject, _ = subject_of(delivery.classifier, delivery.base, default)
    return default.passes(subject, N_PROBES)


def measure(entry: ZooEntry, key: tuple[str, str]) -> Row:
    """Run one baseline on one delivery; nothing of the ground truth is given to it."""
    torch.set_num_threads(1)
    began = time.time()
    delivery = open_delivery(entry.path, base=load_base(entry.base))
    check = CHECKS[key]
    subject, _ = subject_of(delivery.classifier, delivery.base, check)
    used = check.within(default_passes(delivery), subject, N_PROBES) if key[1] == EQUAL else check
    run = Run(seed=0, journal=MemoryJournal(), clock=lambda: None, progress=lambda stage, done, total: None)
    result = used.run(subject, generate_probes(N_PROBES, 64, 0), run)
    return {
        "name": entry.name,
        "check": key[0],
        "budget": key[1],
        "settings": settings_digest(check.name, asdict(check)),
        "task": entry.task,
        "family": entry.family,
        "base": entry.base,
        "attack": entry.attack,
        "target": entry.target_index,
        "statistic": result.statistic,
        "rows": [{"index": r.target_index, "kind": r.target_kind, "statistic": r.statistic, **r.values} for r in result.evidence],
        "passes": used.passes(subject, N_PROBES),
        "epochs": used.epochs,
        "seconds": time.time() - began,
    }


def read_rows() -> list[Row]:
    """Rows that were measured with today's settings; the others are measured anew."""
    rows: list[Row] = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else []
    settings = {key: settings_digest(check.name, asdict(check)) for key, check in CHECKS.items()}
    return [row for row in rows if row["settings"] == settings.get((row["check"], row["budget"]))]


def default_rows(names: set[str]) -> list[Row]:
    """What the default check said of the same deliveries."""
    settings = settings_digest(MarginResidual.name, asdict(ZOO_CHECKS["default"]))
    rows: list[Row] = json.loads(ZOO_ROWS.read_text(encoding="utf-8")) if ZOO_ROWS.exists() else []
    return [row for row in rows if row["preset"] == "default" and row["settings"] == settings and row["name"] in names]


def table(check: str, budget: str, rows: list[Row], default: list[Row]) -> list[Row]:
    """Rows of the documentation for one baseline at one budget, with the default check on the same deliveries."""
    label = f"{check}, {budget}"
    judged = judge_paper(rows)
    out: list[dict[str, Any]] = [
        {
            "what": f"{WORDS[key]} ({label}, index above 2)",
            "measured": f"{cell['count']} of {cell['of']}",
            "interval": cell["interval"],
        }
        for key, cell in judged["rule_k2"].items()
    ]
    bad = [row for row in rows if row["attack"] is not None]
    first = sum(row["statistic"] > 0 and named(row) == row["target"] for row in bad)  # where all sizes are alike, none is first
    ranked = {"measured": f"{first} of {len(bad)}", "interval": wilson_interval(first, len(bad))}
    out.append({"what": f"target ranked first ({label})", **ranked})
    area = {"measured": judged["auroc"], "interval": judged["interval"], "reported": REPORTED[check]}
    out.append({"what": f"AUROC ({label})", **area})
    if default:
        same = auroc_with_interval(default)
        what = f"AUROC (default check, the {len(default)} deliveries of {label})"
        out.append({"what": what, "measured": same["auroc"], "interval": same["interval"]})
    return out


def document(rows: list[Row]) -> dict[str, Any]:
    """The results file."""
    of = {key: [row for row in rows if (row["check"], row["budget"]) == key] for key in CHECKS}
    counts = ", ".join(f"{len(part)} with {check} at {budget}" for (check, budget), part in of.items())
    lines = [
        line
        for (check, budget), part in of.items()
        if part
        for line in table(check, budget, part, default_rows({row["name"] for row in part}))
    ]
    return {
        "title": "Two earlier trigger reconstructions on the pocket zoo",
        "topic": "inspect",
        "command": "python -m benchmarks.baselines_zoo",
        "machine": provenance()["machine"],
        "notes": [
            f"Deliveries: {counts}; half of them backdoored where there are as many of both, spread over the tasks. {N_PROBES} "
            "generated probe images, seed 0; never on real weights.",
            f"'{EQUAL}': at most as many images through the tower as the default check takes on the same delivery, in batches of "
            f"{MarginResidual().batch}. '{PUBLISHED}': as in the comparison of CLIP-Inspector (arXiv 2604.09101), whose AUROC on "
            "other models stand beside ours; what differs from the papers is said by 'clipvet explain'.",
            "The statistic of the default check was chosen on deliveries of this zoo; that of the baselines was not.",
        ],
        "rows": lines,
        "settings": {f"{check}, {budget}": asdict(value) for (check, budget), value in CHECKS.items()},
        "seconds": {f"{check}, {budget}": sum(row["seconds"] for row in part) for (check, budget), part in of.items()},
        "provenance": provenance(),
    }


def main() -> None:
    """Measure what is missing, judge, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--some", type=int, default=20, help="deliveries at the equal budget, half of them backdoored")
    parser.add_argument("--published", type=int, default=8, help="deliveries at the published budget, half of them backdoored")
    arguments = parser.parse_args()
    rows = read_rows()
    for key in CHECKS:
        done = {row["name"] for row in rows if (row["check"], row["budget"]) == key}
        wanted = in_turn(list(entries()), arguments.some if key[1] == EQUAL else arguments.published)
        todo = [entry for entry in wanted if entry.name not in done]
        with ProcessPoolExecutor(arguments.workers) as pool:
            for row in pool.map(measure, todo, [key] * len(todo)):
                rows.append(row)
                ROWS.write_text(json.dumps(rows), encoding="utf-8")
                said = f"{row['name']} {row['attack']} {row['statistic']:.2f} {row['seconds']:.0f} s"
                print(f"{key[0]}, {key[1]}: {said}", flush=True)
    written = document(rows)
    (RESULTS / "baselines_zoo.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(written["rows"], indent=1))


if __name__ == "__main__":
    main()
