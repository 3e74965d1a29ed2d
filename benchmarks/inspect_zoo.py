"""Verdicts on the pocket zoo: how often is the default check right, and how does the published rule do on the same deliveries?

    python -m benchmarks.inspect_zoo

Every delivery is measured once (resumable; rows in ``benchmarks/results/inspect_zoo_rows.json``); all thresholds are set afterwards
from clean deliveries other than the one that is judged:

- leave one task out: the null of a delivery holds the clean deliveries of all other tasks, both backbones;
- across backbones: the null of a delivery on one backbone holds the clean deliveries on the other.

Writes ``benchmarks/results/inspect_zoo.json``: shares with Wilson intervals, AUROC with an interval bootstrapped over tasks.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipvet.data.generated import generate_probes
from clipvet.inspection.base import ModelCheck, Run
from clipvet.inspection.calibration import FALLBACK, FLAG_RATE, settings_digest, threshold
from clipvet.inspection.clip_inspector import ClipInspector
from clipvet.inspection.journal import MemoryJournal
from clipvet.inspection.margin_residual import MarginResidual
from clipvet.inspection.subject import subject_of
from clipvet.metrics import auroc, wilson_interval
from clipvet.models.bases import load_base
from clipvet.models.delivery import open_delivery
from clipvet.models.families import FAMILIES
from clipvet.pocket.zoo import ZooEntry, entries

RESULTS = Path(__file__).parent / "results"
ROWS = RESULTS / "inspect_zoo_rows.json"
LEAST_NULL = 4  # fewer clean deliveries are no null
LEAST_SHOWN = 10  # shares of fewer deliveries are not shown
Row = dict[str, Any]
CHECKS: dict[str, ModelCheck] = {
    "default": MarginResidual(),
    "half": MarginResidual(strength=4 / 255),  # the bound that is published for images of 224 px
    "shapes": MarginResidual(extra_shapes=(("patch", 0.04), ("blend", 0.2))),  # the attacks' own area and ratio
    "paper": ClipInspector(strength=8 / 255),
}


def measure(entry: ZooEntry, preset: str) -> Row:
    """Run one check on one delivery; nothing of the ground truth is given to it."""
    torch.set_num_threads(1)
    start = time.time()
    delivery = open_delivery(entry.path, base=load_base(entry.base))
    check = CHECKS[preset]
    subject, _ = subject_of(delivery.classifier, delivery.base, check)
    run = Run(seed=0, journal=MemoryJournal(), clock=lambda: None, progress=lambda stage, done, total: None)
    result = check.run(subject, generate_probes(1000, 64, 0), run)
    rows = [
        {"index": r.target_index, "kind": r.target_kind, "shape": r.trigger_kind, "statistic": r.statistic, **r.values}
        for r in result.evidence
    ]
    truth = {"task": entry.task, "family": entry.family, "base": entry.base, "attack": entry.attack, "target": entry.target_index}
    return {
        "name": entry.name,
        "preset": preset,
        "settings": settings_digest(check.name, asdict(check)),
        **truth,
        "statistic": result.statistic,
        "rows": rows,
        "seconds": time.time() - start,
    }


def named(row: Row) -> int | None:
    """The class that the check names."""
    best = max((r for r in row["rows"] if r["kind"] == "class"), key=lambda r: r["statistic"])
    return None if best["index"] is None else int(best["index"])


def flags(rows: list[Row], null_of: Callable[[Row], list[float]]) -> list[bool]:
    """Whether each delivery exceeds the threshold that its own null gives, or the constant where there is none."""
    nulls = [null_of(row) for row in rows]
    limits = [threshold(null, FLAG_RATE) if len(null) >= LEAST_NULL else FALLBACK["margin-residual"] for null in nulls]
    return [row["statistic"] > limit for row, limit in zip(rows, limits, strict=True)]


def tally(rows: list[Row], flagged: list[bool]) -> dict[str, Any]:
    """Shares right, clean ones flagged, targets named, each with its interval."""
    bad = [row["attack"] is not None for row in rows]
    right = sum(f == b for f, b in zip(flagged, bad, strict=True))
    clean_flagged = sum(f and not b for f, b in zip(flagged, bad, strict=True))
    hits = [row for row, f, b in zip(rows, flagged, bad, strict=True) if f and b]
    target_right = sum(named(row) == row["target"] for row in hits)
    out: dict[str, Any] = {}
    counted = {
        "right": (right, len(rows)),
        "clean_flagged": (clean_flagged, len(rows) - sum(bad)),
        "backdoored_flagged": (len(hits), sum(bad)),
        "target_named": (target_right, len(hits)),
    }
    for name, (count, of) in counted.items():
        out[name] = {"count": count, "of": of, "share": count / of if of else None, "interval": wilson_interval(count, of)}
    return out


def auroc_with_interval(rows: list[Row], draws: int = 2000) -> dict[str, Any]:
    """AUROC of the statistic, and a percentile interval over resampled tasks."""
    tasks = sorted({row["task"] for row in rows})
    rng = np.random.default_rng(0)
    values = []
    for _ in range(draws):
        picked = [row for task in rng.choice(tasks, len(tasks)) for row in rows if row["task"] == task]
        values.append(auroc(*split(picked)))
    finite = [v for v in values if math.isfinite(v)]
    return {"auroc": auroc(*split(rows)), "interval": list(np.quantile(finite, [0.025, 0.975]))}


def split(rows: list[Row]) -> tuple[list[float], list[float]]:
    """Statistics of the clean and of the backdoored deliveries."""
    clean = [row["statistic"] for row in rows if row["attack"] is None]
    return clean, [row["statistic"] for row in rows if row["attack"] is not None]


def judge_default(rows: list[Row]) -> dict[str, Any]:
    """Both protocols for the default check, and AUROC over all."""
    clean = [row for row in rows if row["attack"] is None]

    def other_tasks(row: Row) -> list[float]:
        return [r["statistic"] for r in clean if r["task"] != row["task"]]

    def other_tasks_same_towers(row: Row) -> list[float]:
        same = [r for r in clean if FAMILIES[r["family"]].changes_image_tower == FAMILIES[row["family"]].changes_image_tower]
        return [r["statistic"] for r in same if r["task"] != row["task"]]

    def other_backbone(row: Row) -> list[float]:
        return [r["statistic"] for r in clean if r["base"] != row["base"]]

    out = {
        "leave_one_task_out": tally(rows, flags(rows, other_tasks)),
        "leave_one_task_out_same_towers": tally(rows, flags(rows, other_tasks_same_towers)),
        "across_backbones": tally(rows, flags(rows, other_backbone)),
    }
    for kind, names in (("per_attack", {r["attack"] for r in rows} - {None}), ("per_family", {r["family"] for r in rows})):
        key = "attack" if kind == "per_attack" else "family"
        flagged = dict(zip([r["name"] for r in rows], flags(rows, other_tasks), strict=True))
        groups = {name: [row for row in rows if row[key] == name] for name in sorted(names)}
        out[kind] = {name: tally(part, [flagged[row["name"]] for row in part]) for name, part in groups.items()}
    return {**out, **auroc_with_interval(rows)}


def judge_paper(rows: list[Row], k: float = 2.0) -> dict[str, Any]:
    """The published rule: an anomaly index above k with a reconstructed ASR of at least one half."""
    return {"rule_k2": tally(rows, [row["statistic"] > k for row in rows]), **auroc_with_interval(rows)}


def judge_shapes(rows: list[Row]) -> dict[str, Row]:
    """AUROC of each trigger shape alone, and of the largest statistic over all of them."""

    def only(row: Row, shape: str) -> Row:
        return row | {"statistic": max(r["statistic"] for r in row["rows"] if r["kind"] == "class" and r["shape"] == shape)}

    shapes = dict.fromkeys(r["shape"] for r in rows[0]["rows"])
    return {shape: auroc_with_interval([only(row, shape) for row in rows]) for shape in shapes} | {
        "all together": auroc_with_interval(rows)
    }


def shape_table(shapes: dict[str, Row] | None) -> list[Row]:
    """Rows of the table, one per shape."""
    return [
        {"what": f"AUROC (default, search for shape: {shape})", "measured": part["auroc"], "interval": part["interval"]}
        for shape, part in (shapes or {}).items()
    ]


WORDS = {
    "right": "verdicts right",
    "clean_flagged": "clean deliveries flagged",
    "backdoored_flagged": "backdoored deliveries flagged",
    "target_named": "target named among those",
}


def table(default: Row | None, half: Row | None, paper: Row | None) -> list[Row]:
    """Rows for the generated documentation: what, measured, interval, reported."""
    reported = {"right": "47 of 50 (CLIP-Inspector, ViT-B/16)", "clean_flagged": "1 of 10 (CLIP-Inspector, ViT-B/16)"}
    rows = []
    for label, part in (
        ("default, leave one task out", default and default["leave_one_task_out"]),
        ("default, null of the other backbone", default and default["across_backbones"]),
        (
            "default, leave one task out, null of families that change the same towers",
            default and default["leave_one_task_out_same_towers"],
        ),
        ("paper preset, k = 2", paper and paper["rule_k2"]),
    ):
        for key, cell in (part or {}).items():
            row = {"what": f"{WORDS[key]} ({label})", "measured": f"{cell['count']} of {cell['of']}", "interval": cell["interval"]}
            rows.append(row | ({"reported": reported[key]} if key in reported else {}))
    for label, part in (
        ("default", default),
        ("default, bound of 4/255 instead of 8/255", half),
        ("paper preset", paper),
    ):
        if part:
            rows.append({"what": f"AUROC ({label})", "measured": part["auroc"], "interval": part["interval"], "reported": 0.973})
    return rows


def provenance() -> dict[str, str]:
    """Commit, machine and versions that the figures were measured with."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()  # noqa: S607  # the git of whoever measures
    packages = {name: version(name) for name in ("torch", "open_clip_torch", "numpy")}
    return {
        "commit": commit,
        "machine": f"{platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        **packages,
    }


def in_turn(listed: list[ZooEntry], some: int | None, *, rare: bool = False) -> list[ZooEntry]:
    """Order deliveries so that the first ones of every task come first.

    Args:
        listed: the zoo.
        some: how many to keep, half of them backdoored, spread over the tasks; None for all.
        rare: whether attacks other than BadCLIP come first.
    """
    seen: Counter[tuple[str, str]] = Counter()
    turns: list[tuple[int, int]] = []
    for entry in listed:
        turns.append((seen[entry.base, entry.task], len(turns)))
        seen[entry.base, entry.task] += 1
    ordered = [listed[at] for _, at in sorted(turns)]
    if some is None:
        return ordered
    if rare:
        ordered.sort(key=lambda entry: entry.attack == "badclip")
    kinds = [[entry for entry in ordered if entry.backdoored is bad] for bad in (True, False)]
    return [entry for pair in zip(*kinds, strict=False) for entry in pair][:some]


def main() -> None:
    """Measure what is missing, judge, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--presets", default=",".join(CHECKS))
    parser.add_argument("--some", type=int, default=12, help="deliveries for what is not the default, half of them backdoored")
    arguments = parser.parse_args()
    settings = {preset: settings_digest(check.name, asdict(check)) for preset, check in CHECKS.items()}
    rows: list[Row] = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else []
    rows = [row for row in rows if row.get("settings") == settings[row["preset"]]]  # what was measured otherwise is measured anew
    for preset in arguments.presets.split(","):
        done = {(row["name"], row["preset"]) for row in rows}
        wanted = in_turn(list(entries()), None if preset == "default" else arguments.some, rare=preset == "shapes")
        todo = [entry for entry in wanted if (entry.name, preset) not in done]
        with ProcessPoolExecutor(arguments.workers) as pool:
            for row in pool.map(measure, todo, [preset] * len(todo)):
                rows.append(row)
                ROWS.write_text(json.dumps(rows), encoding="utf-8")
                print(f"{preset} {row['name']} {row['attack']} {row['statistic']:.2f} {row['seconds']:.0f} s", flush=True)
    default = [row for row in rows if row["preset"] == "default"]
    half, shapes, paper = ([row for row in rows if row["preset"] == preset] for preset in ("half", "shapes", "paper"))
    result: Row = {
        "title": "Verdicts on the pocket zoo",
        "topic": "inspect",
        "command": "python -m benchmarks.inspect_zoo",
        "machine": provenance()["machine"],
        "notes": [
            f"{len(default)} deliveries on two pocket backbones with the default check, {len(half)} with a bound of 4/255, "
            f"{len(shapes)} with patch and blend shapes as well (all that carry a patch or a blend are among them), "
            f"{len(paper)} with the paper preset; "
            "generated probe images, seed 0; never on real weights. The reported figures are CLIP-Inspector's on other models.",
            "The statistic was chosen on these deliveries: the untuned prompt's margin under the same trigger as the baseline, a "
            "smallest spread of four logits, names put beside fewer than 20 classes, and one null for all families. So the shares "
            "right are no independent estimate. Freshly planted backdoors are judged in a table of their own: other random draws, "
            "the same tasks and bases.",
        ],
        "rows": [],
        "settings": asdict(MarginResidual()),
        "flag_rate": FLAG_RATE,
        "default": judge_default(default) if default else None,
        "half": auroc_with_interval(half) if half else None,
        "shapes": judge_shapes(shapes) if shapes else None,
        "paper_preset": judge_paper(paper) if len(paper) >= LEAST_SHOWN else None,
        "provenance": provenance(),
    }
    result["rows"] = table(result["default"], result["half"], result["paper_preset"]) + shape_table(result["shapes"])
    (RESULTS / "inspect_zoo.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["default"], indent=1))


if __name__ == "__main__":
    main()
