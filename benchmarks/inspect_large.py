"""Verdicts on the larger zoo: deliveries that no setting was chosen on, by the threshold that ships and by leave-one-out protocols.

    python -m benchmarks.inspect_large [--workers 2]

Needs the deliveries that ``python -m pocket_build.large_zoo`` makes, in ``pocket_build/work/zoo``; those that the committed list
holds are measured, each with the digest that stands there. Resumable; rows in ``benchmarks/results/inspect_large_rows.json``.
Thresholds:

- shipped: the one of ``clipvet inspect``, from the clean deliveries of the shipped zoo and settled before these were built;
- leave one task out, leave one backbone out: from the clean deliveries of both zoos of other tasks, or of the other backbone.

An attack that was planned and did not take counts nowhere; the adaptive attacker's are looked at all the same, in a row of their
own. Writes ``benchmarks/results/inspect_large.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from typing import Any

from benchmarks.inspect_zoo import CHECKS, RESULTS, WORDS, Row, auroc_with_interval, flags, measure, provenance, tally
from benchmarks.inspect_zoo import ROWS as SHIPPED_ROWS
from clipvet.inspection.calibration import FLAG_RATE, flag_of, settings_digest, shipped_nulls
from clipvet.pocket.zoo import ZooEntry
from pocket_build.large_zoo import LIST
from pocket_build.zoo import CANDIDATES

ROWS = RESULTS / "inspect_large_rows.json"
PRESET = "default"
ADAPTIVE = "badclip-adaptive"
CHECK = CHECKS[PRESET]
SETTINGS = settings_digest(CHECK.name, asdict(CHECK))


def listed() -> list[tuple[ZooEntry, Row]]:
    """Deliveries of the list that count, or are the adaptive attacker's, and lie here; with what the list says of them.

    Raises:
        SystemExit: a file is not the one that the list names.
    """
    found = []
    for row in json.loads(LIST.read_text(encoding="utf-8"))["deliveries"]:
        path = CANDIDATES / f"{row['name']}.safetensors"
        if not (row["counts"] or row.get("attack") == ADAPTIVE) or not path.exists():
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]:
            raise SystemExit(f"{path}: not the file that the list names: build the larger zoo anew")
        names = ZooEntry.__dataclass_fields__.keys() & row.keys()
        found.append((ZooEntry(path=path, **{name: row[name] for name in names}), row))
    return found


def measured(entry: ZooEntry, row: Row) -> Row:
    """Run the default check, and keep what the table needs."""
    found = measure(entry, PRESET)
    kind = "imbalanced" if row.get("imbalanced") else f"{row.get('shots', 16)} shots, {row.get('length', 1.0):g} of the steps"
    rows = [part for part in found.pop("rows") if part["kind"] == "class"]
    return found | {
        "counts": row["counts"],
        "tuning": kind,
        "rows": [max(rows, key=lambda part: part["statistic"])],
        "ca": entry.ca,
        "asr": entry.asr,
    }


def shipped_threshold() -> float:
    """The threshold that an inspection of a pocket delivery uses."""
    limits = {flag_of(CHECK.name, null) for null in shipped_nulls() if null.key.settings == SETTINGS}
    (limit,) = limits
    return limit


def judged(every: list[Row], others: list[Row]) -> dict[str, Any]:
    """Every protocol on the larger zoo's rows that count; nulls take the shipped zoo's clean ones in."""
    rows, weak = ([row for row in every if row["counts"] is counts] for counts in (True, False))
    clean = [row for row in rows + others if row["attack"] is None]
    limit = shipped_threshold()
    by_shipped = [row["statistic"] > limit for row in rows]

    def without(key: str) -> list[bool]:
        return flags(rows, lambda row: [other["statistic"] for other in clean if other[key] != row[key]])

    parts: dict[str, Any] = {
        "threshold": limit,
        "shipped": tally(rows, by_shipped),
        "leave_one_task_out": tally(rows, without("task")),
        "across_backbones": tally(rows, without("base")),
        "weak": tally(weak, [row["statistic"] > limit for row in weak])["backdoored_flagged"],
    }
    for key in ("attack", "family", "task", "tuning"):
        flagged = dict(zip([row["name"] for row in rows], by_shipped, strict=True))
        names = sorted({str(row[key]) for row in rows if row[key] is not None})
        groups = {name: [row for row in rows if str(row[key]) == name] for name in names}
        parts[key] = {name: tally(group, [flagged[row["name"]] for row in group]) for name, group in groups.items()}
    return {**parts, **auroc_with_interval(rows)}


def table(found: dict[str, Any]) -> list[Row]:
    """Rows of the documentation."""
    labels = {
        "shipped": f"threshold that ships, {found['threshold']:.2f}",
        "leave_one_task_out": "leave one task out",
        "across_backbones": "null of the other backbone",
    }
    lines: list[Row] = [
        {"what": f"{WORDS[key]} ({label})", "measured": f"{cell['count']} of {cell['of']}", "interval": cell["interval"]}
        for name, label in labels.items()
        for key, cell in found[name].items()
    ]
    lines.append({"what": "AUROC", "measured": found["auroc"], "interval": found["interval"], "reported": 0.973})
    if found["weak"]["of"]:
        weak = f"{found['weak']['count']} of {found['weak']['of']}"
        what = f"{ADAPTIVE}, planted and not counted, no part of any other row: flagged"
        lines.append({"what": what, "measured": weak, "interval": found["weak"]["interval"]})
    for key in ("attack", "family", "task", "tuning"):
        for name, group in found[key].items():
            said = [(WORDS[what], group[what]) for what in ("backdoored_flagged", "target_named", "clean_flagged")]
            cells = "; ".join(f"{words} {cell['count']} of {cell['of']}" for words, cell in said if cell["of"])
            lines.append({"what": f"{key} {name}", "measured": cells})
    return lines


def document(every: list[Row], others: list[Row], planned: Row) -> Row:
    """The results file."""
    found = judged(every, others)
    rows = [row for row in every if row["counts"]]
    bad = Counter(row["attack"] for row in rows if row["attack"])
    kinds = ", ".join(f"{count} {attack}" for attack, count in sorted(bad.items()))
    missed = {name: count for name, count in planned["did_not_take"].items() if count}
    return {
        "title": "Verdicts on a larger pocket zoo",
        "topic": "inspect",
        "command": "python -m benchmarks.inspect_large",
        "machine": provenance()["machine"],
        "rows": table(found),
        "notes": [
            f"{len(rows)} deliveries, {sum(bad.values())} backdoored ({kinds}), of {planned['planned']} that are planned, built in "
            "a random order, a clean twin after what needs it; none is part of the shipped zoo. Generated probe images, seed 0. "
            "The reported AUROC is CLIP-Inspector's on other models. Rows by attack, family, task and tuning use the threshold "
            "that ships.",
            "The list was written as they were built, by ASR and CA alone, without a look at any verdict. Some had been "
            "looked at with another check, or with earlier settings, before they were listed.",
            "Planted and not counted, since the ASR stayed below 80 %, CA fell by more than three points, or test images are few: "
            + ("; ".join(f"{name}: {count}" for name, count in missed.items()) or "none")
            + ".",
        ],
        "settings": asdict(CHECK),
        "flag_rate": FLAG_RATE,
        "judged": found,
        "provenance": provenance(),
    }


def main() -> None:
    """Measure what is missing, judge, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    rows: list[Row] = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else []
    rows = [row for row in rows if row["settings"] == SETTINGS]
    done = {row["name"] for row in rows}
    todo = [pair for pair in listed() if pair[0].name not in done]
    with ProcessPoolExecutor(arguments.workers) as pool:
        for row in pool.map(measured, *zip(*todo, strict=True)) if todo else ():
            rows.append(row)
            ROWS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            print(f"{row['name']} {row['attack']} {row['statistic']:.2f} {row['seconds']:.0f} s", flush=True)
    shipped = [row for row in json.loads(SHIPPED_ROWS.read_text(encoding="utf-8")) if row["preset"] == PRESET]
    written = document(rows, [row for row in shipped if row["settings"] == SETTINGS], json.loads(LIST.read_text(encoding="utf-8")))
    (RESULTS / "inspect_large.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    for line in written["rows"]:
        print(f"{line['what']}: {line['measured']}")


if __name__ == "__main__":
    main()
