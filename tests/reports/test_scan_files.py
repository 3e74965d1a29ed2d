from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from clipvet.reports import SCAN_FORMATS, write_scan_report
from clipvet.types import ScanReport
from tests.reports import scan_cases
from tests.reports.page import Page

NAMES = ["report.html", "gallery.html", "report.json", "report.sarif"]


def test_formats_render_one_report() -> None:
    report = scan_cases.suspicious()
    assert list(SCAN_FORMATS) == ["console", "json", "sarif", "html"]
    log = json.loads(SCAN_FORMATS["sarif"](report))
    assert json.loads(SCAN_FORMATS["json"](report))["verdict"] == log["runs"][0]["properties"]["verdict"]
    assert SCAN_FORMATS["html"](report).startswith("<!doctype html>")
    Console(file=io.StringIO()).print(SCAN_FORMATS["console"](report))


def test_rendering_is_pure(scan: ScanReport) -> None:
    for name in ("json", "sarif", "html"):
        assert SCAN_FORMATS[name](scan) == SCAN_FORMATS[name](scan)


def test_folder_holds_every_format_and_the_report_lists_them(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    report = replace(scan_cases.suspicious(), written=("out/drop.txt", str(folder / "report.html")))
    paths = write_scan_report(report, folder)
    assert [path.name for path in paths] == NAMES
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert document["written"] == ["out/drop.txt", *(str(folder / name) for name in NAMES)]
    assert Page((folder / "report.html").read_text(encoding="utf-8")).attributes("href") == ["gallery.html"]
    assert report.written == ("out/drop.txt", str(folder / "report.html"))


def test_a_failed_write_leaves_the_earlier_files_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scan_report(scan_cases.no_evidence(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def refuse(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_scan_report(scan_cases.suspicious(), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_hostile_names_stay_in_the_files(tmp_path: Path) -> None:
    write_scan_report(scan_cases.hostile(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_importing_brings_no_torch_and_no_renderer() -> None:
    code = (
        "import sys; import clipvet.reports; "
        "heavy = {'torch', 'jinja2', 'pydantic', 'rich', 'numpy'} & set(sys.modules); assert not heavy, heavy; "
        "import clipvet.reports.files, clipvet.reports.scan_console; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
