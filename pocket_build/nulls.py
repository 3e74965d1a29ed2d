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


def rows_of(check: MarginResidual | FeatureCollapse, file: str) -> list[Row]:
    """Measurements of clean deliveries with the check's present settings, by rising statistic."""
    settings = settings_digest(check.name, asdict(check))
    rows = json.loads((RESULTS / f"{file}_rows.json").read_text(encoding="utf-8"))
    clean = [row for row in rows if row["settings"] == settings and row["attack"] is None]
    return sorted(clean, key=lambda row: float(row["statistic"]))


def require(rows: list[Row], clean: list[ZooEntry], file: str) -> None:
    """Refuse to write a null without all of the zoo's own deliveries.

    Raises:
        SystemExit: rows are missing, or were measured with other settings.
    """
    missing = {entry.name for entry in clean} - {row["name"] for row in rows}
    if missing:
        raise SystemExit(f"expected rows of all clean deliveries, {len(missing)} are missing: run python -m benchmarks.{file}")


def nulls_of(check: MarginResidual | FeatureCollapse, rows: list[Row], source: str) -> list[Row]:
    """One null per backbone: the values, whose they are, and what they were measured on."""
    digests = {entry.name: hashlib.sha256(entry.path.read_bytes()).hexdigest() for entry in entries()}
    counts = [len(load_task(row["task"]).class_names) for row in rows]
    null = {
        "check": check.name,
        "values": [row["statistic"] for row in rows],
        "references": [row.get("sha256") or digests[row["name"]] for row in rows],
        "source": f"{len(rows)} clean tunings of {source}",
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
    first, second = rows_of(residual, "inspect_zoo"), rows_of(collapse, "outside_zoo")
    require(first, clean, "inspect_zoo")
    require(second, moved, "outside_zoo")
    nulls = nulls_of(residual, first, "the pocket zoo, both backbones, all families")
    nulls += nulls_of(collapse, second, "pocket tasks, the zoo's among them, both backbones, families that change the image tower")
    (ASSETS / "nulls.json").write_text(json.dumps({"nulls": nulls}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
