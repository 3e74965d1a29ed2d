"""``bench`` shows results files, ``doctor`` says what is missing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from clipvet.cli import bench, doctor, main
from clipvet.cli.bench import cell, read_tables
from clipvet.errors import UnreadableError

TABLE: dict[str, Any] = {
    "title": "Verdicts on the zoo",
    "topic": "inspect",
    "command": "python -m benchmarks.zoo",
    "rows": [
        {"what": "right", "measured": 0.9333, "interval": [0.86, 0.97], "reported": 0.94, "source": "Table 2"},
        {"what": "time", "measured": 12.5, "unit": "s"},
    ],
    "notes": ["measured on pocket"],
}


def test_bench_prints_measured_beside_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    (tmp_path / "zoo.json").write_text(json.dumps(TABLE))
    (tmp_path / "raw.json").write_text("[1, 2]")
    (tmp_path / "scan.json").write_text(json.dumps(TABLE | {"topic": "scan", "title": "Another question"}))
    assert main(["bench", "inspect"]) == 0
    text = capsys.readouterr().out
    for part in ("Verdicts on the zoo (zoo.json)", "0.9333 [0.86, 0.97]", "0.94", "Table 2", "12.5 s", "measured on pocket"):
        assert part in text
    assert "Another question" not in text


def test_bench_outside_a_checkout_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "none")
    assert main(["bench", "inspect"]) == 2
    assert "found none: run the scripts in benchmarks/" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["{", '{"rows": [{"what": "x"}]}', '{"rows": 3}', '{"rows": [[]]}', '{"rows": [], "notes": "one text"}']
)
def test_a_damaged_results_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "zoo.json").write_text(text)
    with pytest.raises(UnreadableError, match=r"zoo\.json: expected a results file"):
        read_tables(tmp_path)


def test_cells() -> None:
    assert cell(None, "s") == "–"
    assert cell(3, "s") == "3 s"
    assert cell(0.123456, "") == "0.1235"
    assert cell("yes", "", None) == "yes"


def test_the_results_of_this_repository_can_be_read() -> None:
    read_tables(bench.RESULTS)


def test_doctor_finds_changed_and_missing_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "ASSETS", tmp_path)
    for name in ("tasks.json", "pictures.zip"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "clean-0.safetensors").write_text("x")
    for name in ("pocket-0", "pocket-1"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
        (tmp_path / f"{name}.json").write_text(json.dumps({"sha256": hashlib.sha256(name.encode()).hexdigest()}))
    assert main(["doctor"]) == 0
    assert "BAD" not in capsys.readouterr().out
    (tmp_path / "pocket-1.safetensors").write_bytes(b"changed")
    (tmp_path / "pictures.zip").unlink()
    assert main(["doctor"]) == 2
    bad = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("BAD")]
    assert bad == ["BAD pocket pocket-1.safetensors", "BAD pocket pictures.zip"]


def test_doctor_names_a_missing_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "nosuchpackage"))
    assert main(["doctor"]) == 2
    assert "BAD nosuchpackage: missing" in capsys.readouterr().out
