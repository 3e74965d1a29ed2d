"""The baselines' table counts what the rows say, and sets the default check beside them on the same deliveries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import baselines_zoo
from benchmarks.baselines_zoo import CHECKS, EQUAL, PUBLISHED, default_rows, document, read_rows
from clipvet.inspection.calibration import settings_digest

Row = dict[str, Any]


def row(name: str, statistic: float, *, attack: str | None = None, best: int = 0, check: str = "neural-cleanse") -> Row:
    rows = [{"index": i, "kind": "class", "statistic": statistic if i == best else -1.0} for i in range(3)]
    truth = {"task": name[0], "attack": attack, "target": 0 if attack else None}
    return {"name": name, "check": check, "budget": EQUAL, "statistic": statistic, "rows": rows, "seconds": 1.0, **truth}


ROWS = [
    row("a1", 1.0),
    row("b1", 3.0),
    row("a2", 5.0, attack="x"),
    row("b2", 1.5, attack="x"),
    row("a3", 2.5, attack="x", best=1),
    row("b3", 0.0, attack="x"),
]


def test_the_table_is_what_the_rows_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines_zoo, "default_rows", lambda names: [r for r in ROWS if r["name"] in names and r["name"] != "b2"])
    written = document(ROWS)
    found = {line["what"]: line for line in written["rows"]}
    label = f"neural-cleanse, {EQUAL}"
    assert found[f"verdicts right ({label}, index above 2)"]["measured"] == "3 of 6"
    assert found[f"clean deliveries flagged ({label}, index above 2)"]["measured"] == "1 of 2"
    assert found[f"backdoored deliveries flagged ({label}, index above 2)"]["measured"] == "2 of 4"
    assert found[f"target named among those ({label}, index above 2)"]["measured"] == "1 of 2"
    assert found[f"target ranked first ({label})"]["measured"] == "2 of 4"
    area = found[f"AUROC ({label})"]
    assert (area["measured"], area["reported"]) == (pytest.approx(4 / 8), 0.495)  # pairs in which the backdoored one is higher
    assert found[f"AUROC (default check, the 5 deliveries of {label})"]["measured"] == pytest.approx(3 / 6)
    assert len(found) == len(written["rows"]) == 7
    assert {"title", "topic", "command", "machine", "notes", "provenance"} < written.keys()


def test_rows_of_other_settings_are_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines_zoo, "ROWS", tmp_path / "rows.json")
    assert read_rows() == []
    check = CHECKS["neural-cleanse", EQUAL]
    now = row("a1", 1.0) | {"settings": settings_digest(check.name, {**vars(check)})}
    (tmp_path / "rows.json").write_text(json.dumps([now, now | {"settings": "old"}, now | {"budget": PUBLISHED}]))
    assert read_rows() == [now]


def test_the_default_check_was_measured_on_the_zoo() -> None:
    names = {"pocket-0-animals-vpt-db395d", "pocket-0-animals-vpt-6ead64"}
    assert {found["name"] for found in default_rows(names)} == names
