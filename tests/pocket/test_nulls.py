"""The null that ships is made of the margins that were measured on the clean deliveries of the zoo, and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipvet.inspection import MarginResidual
from clipvet.inspection.calibration import fits, settings_digest, shipped_nulls
from clipvet.models.bases import load_base
from clipvet.pocket.zoo import entries

ROOT = Path(__file__).parents[2]
ROWS: list[dict[str, Any]] = json.loads((ROOT / "benchmarks/results/inspect_zoo_rows.json").read_text(encoding="utf-8"))
DEFAULT = {row["name"]: row for row in ROWS if row["preset"] == "default"}
CHECK = MarginResidual()
SETTINGS = settings_digest(CHECK.name, vars(CHECK))


def statistic(row: dict[str, Any]) -> float:
    """Margin minus the untuned prompt's, less the lower middle one, over the spread; the largest of the delivery's classes."""
    left = np.array([one["margin"] - one["baseline_margin"] for one in row["rows"]])
    low = (len(left) - 1) // 2
    centred = left - np.sort(left)[low]
    spread = max(1.4826 * np.sort(np.abs(centred))[low], CHECK.floor)
    return float(max(value for value, one in zip(centred, row["rows"], strict=True) if one["kind"] == "class") / spread)


def test_the_shipped_null_is_that_of_the_clean_deliveries() -> None:
    clean = [entry for entry in entries() if not entry.backdoored]
    expected = sorted(statistic(DEFAULT[entry.name]) for entry in clean)
    nulls = [null for null in shipped_nulls() if null.check == CHECK.name]
    assert {null.key.base for null in nulls} == {load_base(name).sha256 for name in ("pocket-0", "pocket-1")}
    for null in nulls:
        assert null.values == pytest.approx(expected, abs=1e-4)
        like: dict[str, Any] = {"base": null.key.base, "family": "coop", "settings": SETTINGS, "probes": "generated pool, 1000"}
        counts = [sum(one["kind"] == "class" for one in DEFAULT[entry.name]["rows"]) for entry in clean]
        assert all(fits(null.key, n_classes=count, **like) for count in counts)
        assert not any(fits(null.key, n_classes=count, **like) for count in (min(counts) - 1, max(counts) + 1))


def test_no_delivery_is_a_reference_for_itself() -> None:
    listed = json.loads((ROOT / "clipvet/pocket/assets/zoo/zoo.json").read_text(encoding="utf-8"))["deliveries"]
    digests = {row["name"]: row["sha256"] for row in listed}
    for entry in entries():
        left = [null.values for null in shipped_nulls(without=[digests[entry.name]]) if null.check == CHECK.name]
        assert all(len(values) == 40 - (not entry.backdoored) for values in left)
        assert all(statistic(DEFAULT[entry.name]) != pytest.approx(value, abs=1e-6) for values in left for value in values)
