"""Write the nulls that ship for the pocket backbones, from the clean deliveries of the zoo.

    python -m pocket_build.nulls

Reads the measurements of ``benchmarks.inspect_zoo`` (default check, generated pool) and writes ``nulls.json`` among the assets: for
each backbone the statistic of every clean delivery, of both backbones and all families.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from clipvet.cli.planting import BASES
from clipvet.inspection.calibration import kind_of, settings_digest
from clipvet.inspection.margin_residual import MarginResidual
from clipvet.models.bases import load_base
from clipvet.pocket.zoo import entries
from pocket_build.tokenizer import ASSETS

ROWS = Path(__file__).parents[1] / "benchmarks/results/inspect_zoo_rows.json"
PROBES = "generated pool, 1000"


def main() -> None:
    """Write the nulls.

    Raises:
        SystemExit: rows are missing, or were measured with other settings.
    """
    check = MarginResidual()
    settings = settings_digest(check.name, asdict(check))
    measured = {r["name"]: r for r in json.loads(ROWS.read_text(encoding="utf-8")) if r["settings"] == settings}
    clean = [entry for entry in entries() if not entry.backdoored]
    missing = [entry.name for entry in clean if entry.name not in measured]
    if missing:
        raise SystemExit(f"expected rows of all clean deliveries, {len(missing)} are missing: run python -m benchmarks.inspect_zoo")
    digests = {entry.name: hashlib.sha256(entry.path.read_bytes()).hexdigest() for entry in clean}
    rows = sorted((measured[entry.name] for entry in clean), key=lambda row: row["statistic"])
    counts = [sum(one["kind"] == "class" for one in row["rows"]) for row in rows]
    null = {
        "check": check.name,
        "values": [row["statistic"] for row in rows],
        "references": [digests[row["name"]] for row in rows],
        "source": f"{len(rows)} clean tunings of the pocket zoo, both backbones, all families",
    }
    like = {"family": kind_of("coop"), "classes": (min(counts), max(counts)), "settings": settings, "probes": PROBES}
    nulls = [{**null, "key": {"base": load_base(base).sha256, **like}} for base in BASES]
    print(f"{len(rows)} values up to {rows[-1]['statistic']:.2f}, {min(counts)} to {max(counts)} classes")
    (ASSETS / "nulls.json").write_text(json.dumps({"nulls": nulls}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
