"""Write the nulls that ship for the pocket backbones, from the clean deliveries of the zoo.

    python -m pocket_build.nulls

Reads the measurements of ``benchmarks.inspect_zoo`` (default check, generated pool) and writes ``nulls.json`` among the assets: for
each backbone, kind of family and band of class counts the statistic of every clean delivery of the like, of both backbones.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import product
from pathlib import Path

from clipvet.inspection.calibration import BANDS, LEAST_NULL, band_of, kind_of, settings_digest
from clipvet.inspection.margin_residual import MarginResidual
from clipvet.models.bases import load_base
from pocket_build.tokenizer import ASSETS

ROWS = Path(__file__).parents[1] / "benchmarks/results/inspect_zoo_rows.json"
PROBES = "generated pool, 1000"


def main() -> None:
    """Write the nulls."""
    rows = [r for r in json.loads(ROWS.read_text(encoding="utf-8")) if r["preset"] == "default" and r["attack"] is None]
    check = MarginResidual()
    settings = settings_digest(check.name, asdict(check))
    nulls = []
    for base in ("pocket-0", "pocket-1"):
        for kind, band in product(("text", "towers"), BANDS):
            like = [row for row in rows if (kind_of(row["family"]), band_of(len(row["rows"]))) == (kind, band)]
            values = sorted(row["statistic"] for row in like)
            if len(values) < LEAST_NULL:
                print(f"{base} {kind} {band}: {len(values)} values are too few")
                continue
            key = {"base": load_base(base).sha256, "family": kind, "classes": band, "settings": settings, "probes": PROBES}
            source = f"{len(values)} clean tunings of the pocket zoo, both backbones"
            nulls.append({"check": check.name, "key": key, "values": values, "source": source})
            print(f"{base} {kind} {band}: {len(values)} values up to {values[-1]:.2f}")
    (ASSETS / "nulls.json").write_text(json.dumps({"nulls": nulls}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
