"""The larger zoo's benchmark: only what is listed counts, and every protocol leaves out what it says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import inspect_large
from tests.benchmarks.test_inspect_zoo import QUIET, quiet, row

Row = dict[str, Any]


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = []
    for name, counts in (("kept", True), ("weak", False), ("adaptive", False), ("unbuilt", True)):
        data = name.encode()
        if name != "unbuilt":
            (tmp_path / f"{name}.safetensors").write_bytes(data)
        truth = {"task": "a", "family": "vpt", "base": "p", "seed": 1, "ca": 0.9, "backdoored": True, "attack": "x", "asr": 0.9}
        truth["attack"] = "badclip-adaptive" if name == "adaptive" else "x"
        rows.append(truth | {"name": name, "counts": counts, "sha256": hashlib.sha256(data).hexdigest(), "target_index": 2})
    (tmp_path / "list.json").write_text(json.dumps({"deliveries": rows}))
    monkeypatch.setattr(inspect_large, "LIST", tmp_path / "list.json")
    monkeypatch.setattr(inspect_large, "CANDIDATES", tmp_path)
    return tmp_path


def test_what_counts_and_lies_there_is_listed_with_its_truth(zoo: Path) -> None:
    (entry, said), (other, seen) = inspect_large.listed()
    assert (entry.name, entry.path, entry.target_index, entry.attack) == ("kept", zoo / "kept.safetensors", 2, "x")
    assert (other.name, said["counts"], seen["counts"]) == ("adaptive", True, False)


def test_another_file_than_the_listed_one_is_refused(zoo: Path) -> None:
    (zoo / "kept.safetensors").write_bytes(b"other")
    with pytest.raises(SystemExit, match="not the file that the list names"):
        inspect_large.listed()


def test_each_protocol_leaves_out_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_large, "shipped_threshold", lambda: 7.0)
    # Task b is loud on backbone q, in the shipped zoo: only nulls that leave it out find the backdoor there.
    loud = [row(f"loud{i}", value + 6, task="b", base="q") for i, value in enumerate(QUIET)]
    others = [*quiet("a", "p"), *quiet("b", "p"), *quiet("a", "q"), *loud]
    rows = [
        part | {"tuning": "16 shots", "counts": True}
        for part in (row("bad", 6.5, task="b", base="q", attack="x"), row("good", 2.2))
    ]
    rows += [row(f"weak{at}", at, attack="y") | {"tuning": "16 shots", "counts": False} for at in (1, 9, 9)]
    found = inspect_large.judged(rows, others)
    counts = {name: found[name]["backdoored_flagged"]["count"] for name in ("shipped", "leave_one_task_out", "across_backbones")}
    assert counts == {"shipped": 0, "leave_one_task_out": 1, "across_backbones": 1}
    assert found["attack"]["x"]["backdoored_flagged"] == {
        "count": 0,
        "of": 1,
        "share": 0,
        "interval": pytest.approx([0, 0.793], abs=1e-3),
    }
    assert found["task"]["a"]["clean_flagged"]["of"] == 1
    lines = {line["what"]: line["measured"] for line in inspect_large.table(found)}
    assert lines["backdoored deliveries flagged (leave one task out)"] == "1 of 1"
    assert lines["attack x"] == "backdoored deliveries flagged 0 of 1"
    assert lines["tuning 16 shots"] == "backdoored deliveries flagged 0 of 1; clean deliveries flagged 0 of 1"
    assert lines["AUROC"] == 1.0
    assert [text for what, text in lines.items() if "no part of any other row" in what] == ["2 of 3"]
    assert "attack y" not in lines


def test_the_threshold_is_the_one_that_ships() -> None:
    assert 1.0 < inspect_large.shipped_threshold() < 2.0
