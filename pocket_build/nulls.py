"""Write the nulls that ship for the pocket backbones, from the clean deliveries of the zoo.

    python -m pocket_build.nulls

Reads the measurements of ``benchmarks.inspect_zoo`` (default check, generated pool) and of ``benchmarks.outside_zoo`` (the check
that knows no classes), and writes ``nulls.json`` among the assets: for each backbone and check the statistic of every clean
delivery that the check was run on, of both backbones and all families.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipvet.cli.planting import BASES
from clipvet.inspection.calibration import kind_of, settings_digest
from clipvet.inspection.feature_collapse import FeatureCollapse
from clipvet.inspection.margin_residual import MarginResidual
from clipvet.models.bases import load_base
from clipvet.models.families import FAMILIES
from clipvet.pocket.tasks import load_task
from clipvet.pocket.zoo import ZooEntry, entries
from pocket_build.tokenizer import ASSETS

RESULTS = Path(__file__).parents[1] / "benchmarks/results"
PROBES = "generated pool, 1000"
Row = dict[str, Any]


def rows_of(check: MarginResidual | FeatureCollapse, file: str, clean: list[ZooEntry]) -> list[Row]:
    """Measurements of clean deliveries with the check's present settings, by rising statistic.

    Raises:
        SystemExit: rows are missing, or were measured with other settings.
    """
    settings = settings_digest(check.name, asdict(check))
    rows = json.loads((RESULTS / f"{file}_rows.json").read_text(encoding="utf-8"))
    measured = {row["name"]: row for row in rows if row["settings"] == settings}
    missing = [entry.name for entry in clean if entry.name not in measured]
    if missing:
        raise SystemExit(f"expected rows of all clean deliveries, {len(missing)} are missing: run python -m benchmarks.{file}")
    return sorted((measured[entry.name] for entry in clean), key=lambda row: float(row["statistic"]))


def nulls_of(check: MarginResidual | FeatureCollapse, rows: list[Row], families: str) -> list[Row]:
    """One null per backbone: the values, whose they are, and what they were measured on."""
    by_name = {entry.name: entry for entry in entries()}
    files = [by_name[row["name"]].path for row in rows]
    counts = [len(load_task(row["task"]).class_names) for row in rows]
    null = {
        "check": check.name,
        "values": [row["statistic"] for row in rows],
        "references": [hashlib.sha256(file.read_bytes()).hexdigest() for file in files],
        "source": f"{len(rows)} clean tunings of the pocket zoo, both backbones, {families}",
    }
    print(f"{check.name}: {len(rows)} values up to {rows[-1]['statistic']:.2f}, {min(counts)} to {max(counts)} classes")
    settings = settings_digest(check.name, asdict(check))
    like = {"family": kind_of("coop"), "classes": (min(counts), max(counts)), "settings": settings, "probes": PROBES}
    return [{**null, "key": {"base": load_base(base).sha256, **like}} for base in BASES]


def main() -> None:
    """Write the nulls."""
    clean = [entry for entry in entries() if not entry.backdoored]
    moved = [entry for entry in clean if FAMILIES[entry.family].changes_image_tower]
    residual, collapse = MarginResidual(), FeatureCollapse()
    nulls = nulls_of(residual, rows_of(residual, "inspect_zoo", clean), "all families")
    nulls += nulls_of(collapse, rows_of(collapse, "outside_zoo", moved), "families that change the image tower")
    (ASSETS / "nulls.json").write_text(json.dumps({"nulls": nulls}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
