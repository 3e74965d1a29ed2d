"""A target that is not among the class names: does the check that knows no classes find it?

    python -m benchmarks.outside_zoo [--workers 2]

Every delivery of the zoo that changes the image tower is measured as if its provider had kept one class from the user: a
backdoored one without its target, a clean one without its middle class. The settings were chosen on the zoo and, of the larger zoo
(``pocket_build.large_zoo``) and the candidates that the zoo left out, on those that were there then; what was built since had no
part in the choice. Resumable; rows in ``benchmarks/results/outside_zoo_rows.json``. Writes ``benchmarks/results/outside_zoo.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.inspect_zoo import RESULTS, auroc_with_interval, provenance
from clipvet.data.generated import generate_probes
from clipvet.inspection.base import Run, Subject
from clipvet.inspection.calibration import FLAG_RATE, settings_digest, threshold
from clipvet.inspection.feature_collapse import FeatureCollapse
from clipvet.inspection.journal import MemoryJournal
from clipvet.inspection.subject import with_names
from clipvet.metrics import wilson_interval
from clipvet.models.bases import load_base
from clipvet.models.delivery import open_delivery
from clipvet.models.families import FAMILIES
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.zeroshot import HandWritten
from clipvet.pocket.zoo import entries
from pocket_build.zoo import CANDIDATES, counts, twin_key

ROWS = RESULTS / "outside_zoo_rows.json"
SHIPPED, SEEN, LATER = "shipped", "seen", "later"  # seen: no part of the zoo, and looked at when settings were chosen
CHECK = FeatureCollapse()
SETTINGS = settings_digest(CHECK.name, asdict(CHECK))
Row = dict[str, Any]


def without(classifier: PromptedClassifier, left_out: int) -> PromptedClassifier:
    """The same prompt over all class names but one."""
    return with_names(classifier, [name for at, name in enumerate(classifier.class_names) if at != left_out])


def measure(path: Path, truth: Row) -> Row:
    """Run the check on one delivery that lacks a class name."""
    torch.set_num_threads(1)
    start = time.time()
    base = load_base(truth["base"])
    classifier = open_delivery(path, base=base).classifier
    left_out = truth["target_index"] if truth["backdoored"] else len(classifier.class_names) // 2
    shown = without(classifier, left_out)
    untuned = PromptedClassifier(base, HandWritten(base, shown.class_names), shown.class_names).freeze()
    subject = Subject(classifier=shown, reference=untuned)
    run = Run(seed=0, journal=MemoryJournal(), clock=lambda: None, progress=lambda stage, done, total: None)
    result = CHECK.run(subject, generate_probes(1000, base.image_size, 0), run)
    (row,) = result.evidence
    kept = ("name", "task", "family", "base", "backdoored", "attack", "target", "ca", "zoo")
    return {key: truth.get(key) for key in kept} | {
        "settings": SETTINGS,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "statistic": result.statistic,
        "nearest": row.target,
        **row.values,
        "passes": CHECK.passes(1000),
        "seconds": time.time() - start,
    }


def listed(seen: Collection[str]) -> list[tuple[Path, Row]]:
    """Deliveries that change the image tower: of the zoo, and those that it left out or that were built later.

    Args:
        seen: names of those that were looked at when settings were chosen.
    """
    known = [(entry.path, vars(entry) | {"zoo": SHIPPED}) for entry in entries()]
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(CANDIDATES.glob("*.json"))]
    twins = {twin_key(row): row["ca"] for row in rows if not row["backdoored"]}
    taken = {entry.name for entry in entries()}
    others = [row for row in rows if row["name"] not in taken and (not row["backdoored"] or counts(row, twins))]
    for row in others:
        known.append((CANDIDATES / f"{row['name']}.safetensors", row | {"zoo": SEEN if row["name"] in seen else LATER}))
    return [(path, truth) for path, truth in known if FAMILIES[truth["family"]].changes_image_tower]


def leave_one_task_out(rows: Sequence[Row], part: Sequence[Row]) -> Row:
    """Shares of a part that are flagged, each delivery against the clean ones among all rows whose task is another."""
    clean = [row for row in rows if not row["backdoored"]]
    total: dict[str, list[int]] = {"backdoored_flagged": [0, 0], "clean_flagged": [0, 0]}
    for row in part:
        limit = threshold([other["statistic"] for other in clean if other["task"] != row["task"]], FLAG_RATE)
        key = "backdoored_flagged" if row["backdoored"] else "clean_flagged"
        total[key][0] += row["statistic"] > limit
        total[key][1] += 1
    return {key: {"count": count, "of": of, "interval": wilson_interval(count, of)} for key, (count, of) in total.items()}


def table(rows: Sequence[Row]) -> list[Row]:
    """Rows for the generated documentation."""
    words = {"backdoored_flagged": "backdoored deliveries flagged", "clean_flagged": "clean deliveries flagged"}
    parts = {
        "zoo": (SHIPPED,),
        "zoo and others that settings were chosen on": (SHIPPED, SEEN),
        "deliveries that no setting was chosen on": (LATER,),
    }
    out: list[Row] = []
    for label, names in parts.items():
        part = [row for row in rows if row["zoo"] in names]
        if not part:
            continue
        cells = leave_one_task_out(rows, part)
        for key, cell in cells.items():
            measured = f"{cell['count']} of {cell['of']}"
            out.append({"what": f"{words[key]} ({label})", "measured": measured, "interval": cell["interval"]})
        found = auroc_with_interval([row | {"attack": row["attack"] if row["backdoored"] else None} for row in part])
        out.append({"what": f"AUROC ({label})", "measured": found["auroc"], "interval": found["interval"]})
    passes = rows[0]["passes"]
    out.append({"what": "images through delivery and base together, whatever the number of classes", "measured": passes})
    return out


def main() -> None:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    known: list[Row] = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else []
    rows = [row for row in known if row["settings"] == SETTINGS]
    done, seen = {row["name"] for row in rows}, {row["name"] for row in known if row["zoo"] == SEEN}
    todo = [one for one in listed(seen) if one[1]["name"] not in done]
    todo = [(path, {key: value for key, value in truth.items() if key != "path"}) for path, truth in todo]
    with ProcessPoolExecutor(arguments.workers) as pool:
        for row in pool.map(measure, *zip(*todo, strict=True)) if todo else ():
            rows.append(row)
            ROWS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            said = f"{row['statistic']:.2f}, {row['asr']:.2f} to {row['nearest']}, {row['seconds']:.0f} s"
            print(row["zoo"], row["name"], row["attack"], said, flush=True)
    document = {
        "title": "Targets outside the class names, on pocket deliveries",
        "topic": "inspect",
        "command": "python -m benchmarks.outside_zoo",
        "machine": provenance()["machine"],
        "rows": table(rows),
        "notes": [
            f"{len(rows)} deliveries that change the image tower (VPT, IVLP, MaPLe), each shown without one of its class names: "
            "the target, or the middle class of a clean one. The statistic uses no names. The number of steps and the difference "
            "as the statistic were chosen on deliveries of the zoo; that the search looks at the delivery alone, on all that were "
            "there then, clean VPT tunings on the coarse task 'mixed' (seeds 15 to 17) among them, which an earlier search that "
            "avoided the base's concentration had taken for backdoored. Each is judged against all clean ones of other tasks, by a "
            f"threshold for 1 in {1 / FLAG_RATE:.0f}. That rate (1 in 100 before) was settled after a look at all that were there "
            "then.",
        ],
        "settings": asdict(CHECK),
        "runs": rows,
        "provenance": provenance(),
    }
    (RESULTS / "outside_zoo.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document["rows"], indent=1))


if __name__ == "__main__":
    main()
