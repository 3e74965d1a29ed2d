from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from clipvet.reports import FORMATS, write_report
from clipvet.reports.images import describe_trigger, trigger_png
from clipvet.reports.taxonomy import TAXONOMY, entry
from clipvet.reports.text import bytes_text, duration, number, shorten, visible
from clipvet.types import Evidence, Report
from tests.reports import report_cases


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_formats_render_what_the_functions_render() -> None:
    report = report_cases.backdoored()
    assert list(FORMATS) == ["console", "json", "sarif", "html"]
    log = json.loads(FORMATS["sarif"](report))
    assert json.loads(FORMATS["json"](report))["verdict"] == log["runs"][0]["properties"]["verdict"]
    assert FORMATS["html"](report).startswith("<!doctype html>")
    Console(file=io.StringIO()).print(FORMATS["console"](report))


def test_rendering_is_pure(report: Report) -> None:
    for name in ("json", "sarif", "html"):
        assert FORMATS[name](report) == FORMATS[name](report)


def test_folder_holds_everything(tmp_path: Path) -> None:
    report = report_cases.backdoored()
    paths = write_report(report, tmp_path / "new" / "out")
    names = sorted(path.name for path in paths)
    assert names == sorted(path.name for path in (tmp_path / "new" / "out").iterdir())
    assert names == [
        "report.html",
        "report.json",
        "report.sarif",
        "trigger-01-bear-applied.png",
        "trigger-01-bear.png",
        "trigger-02-bear-applied.png",
        "trigger-02-bear.png",
        "trigger-03-cow-applied.png",
        "trigger-03-cow.png",
        "triggers.safetensors",
    ]
    tensors = load_file(tmp_path / "new" / "out" / "triggers.safetensors")
    # The key leads to the row of report.json, whose shapes are those of the tensors.
    rows = json.loads((tmp_path / "new" / "out" / "report.json").read_text(encoding="utf-8"))["checks"][0]["evidence"]
    assert sorted(tensors) == [f"{report_cases.CHECK}.{key}" for key in ("10.delta", "4.delta", "5.mask", "5.pattern")]
    for key, tensor in tensors.items():
        _, position, name = key.split(".")
        assert rows[int(position)]["trigger"][name]["shape"] == list(tensor.shape)
        assert torch.equal(tensor, report.checks[0].evidence[int(position)].trigger[name])


def test_writing_again_leaves_no_picture_of_the_earlier_report(tmp_path: Path) -> None:
    write_report(report_cases.backdoored(), tmp_path)
    (tmp_path / "trigger-notes.txt").write_text("mine")
    write_report(report_cases.inconclusive(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.sarif", "trigger-notes.txt"]


def test_a_failed_write_leaves_the_earlier_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(report_cases.inconclusive(), tmp_path)
    before = (tmp_path / "report.html").read_bytes()

    def refuse(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_report(report_cases.backdoored(), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_hostile_names_stay_in_the_folder(tmp_path: Path) -> None:
    names = ("../../../etc/passwd", "a/b", "\udcff", "CON", ".", "x" * 5000)
    report = report_cases.backdoored(names)
    paths = write_report(report, tmp_path / "out")
    assert {path.parent for path in paths} == {tmp_path / "out"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_additive_trigger_is_amplified_about_grey() -> None:
    delta = torch.zeros(3, 64, 64)
    delta[0, :, :32] = 0.02
    delta[1, :, 32:] = -0.01
    row = Evidence(target="x", trigger={"delta": delta})
    picture = pixels(trigger_png(row)["trigger"])
    assert picture.shape == (256, 256, 3)
    # red + 0.5 * 0.02 / 0.02 = 1; green - 0.5 * 0.01 / 0.02 = 0.25; untouched channels 0.5 = 127.5
    assert picture[0, 0].tolist() == [255, 128, 128]
    assert picture[0, 255].tolist() == [128, 64, 128]
    assert describe_trigger(row) == "An additive change of at most 5.1/255; shown amplified 25 times."


def test_pattern_is_shown_through_its_mask() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[:, :2, :4] = 0.2
    row = Evidence(target="x", trigger={"mask": mask, "pattern": torch.ones(3, 8, 8)})
    picture = pixels(trigger_png(row)["trigger"])
    assert picture.shape == (256, 256, 3)
    assert (picture[:64, :128] == 255).all() and (picture[64:] == 128).all()
    assert describe_trigger(row) == "A pattern over 12.5 % of the picture, with a strength of at most 0.20; shown opaque."


@pytest.mark.parametrize(("side", "tile"), [(64, 128), (128, 128), (224, 160)])
def test_samples_stand_above_their_triggered_twins(side: int, tile: int) -> None:
    samples = torch.zeros(9, 3, side, side)
    row = Evidence(target="x", trigger={"samples": samples, "triggered": samples + 1.5})
    pictures = trigger_png(row)
    assert list(pictures) == ["applied"]
    sheet = pixels(pictures["applied"])
    assert sheet.shape == (2 * tile + 4, 6 * tile + 20, 3)
    assert (sheet[:tile, :tile] == 0).all() and (sheet[-tile:, :tile] == 255).all()


def test_empty_zero_and_undefined_triggers() -> None:
    assert trigger_png(Evidence(target="x")) == {}
    assert describe_trigger(Evidence(target="x")) == ""
    assert trigger_png(Evidence(target="x", trigger={"samples": torch.zeros(0, 3, 8, 8)})) == {}
    for value in (0.0, float("nan")):
        row = Evidence(target="x", trigger={"delta": torch.full((3, 8, 8), value)})
        assert (pixels(trigger_png(row)["trigger"]) == 128).all()
        assert describe_trigger(row) == "An additive change of at most 0.0/255."


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected delta of shape \(3, h, w\), got \(1, 3, 8, 8\)"):
        trigger_png(Evidence(target="x", trigger={"delta": torch.zeros(1, 3, 8, 8)}))


def test_readable_text() -> None:
    assert [number(value) for value in (8.754, 0.0244, 0.0, -1.5, 48000.0, 1e-7, None, float("inf"))] == [
        "8.75", "0.0244", "0.00", "−1.50", "48,000", "1e-07", "not measured", "∞",
    ]  # fmt: skip
    assert [bytes_text(size) for size in (0, 999, 183456, 7_000_000, 2 * 10**9)] == ["0 B", "999 B", "183.5 kB", "7.0 MB", "2.0 GB"]
    assert [duration(seconds) for seconds in (0.25, 75.25, 3725)] == ["0.2 s", "1 min 15 s", "1 h 2 min"]
    assert visible("a\x00\x1b\n\u2028\u200bb\ue000") == "a\\x00\\x1b\\n\\u2028\\u200bb\\ue000"
    assert visible("👩‍💻 é ñ 漢") == "👩‍💻 é ñ 漢"
    assert shorten("abcdefghijklmnop", 10) == "abcdef…nop"
    assert shorten("漢字かな交じり文の名前", 10) == "漢字か…前"
    assert shorten("  ", 10) == '"  "'


def test_taxonomy_names_every_id_and_passes_unknown_ones() -> None:
    assert all(item.id == key and item.name and item.url.startswith("https://") for key, item in TAXONOMY.items())
    assert {"AML.T0018.000", "AML.T0058", "AML.T0043.004", "ML06:2023", "ML07:2023", "ML10:2023"} <= set(TAXONOMY)
    assert entry("XX.1").name == ""


def test_importing_brings_no_torch_and_no_renderer() -> None:
    code = (
        "import sys; import clipvet.reports; "
        "heavy = {'torch', 'jinja2', 'pydantic', 'rich', 'numpy'} & set(sys.modules); assert not heavy, heavy; "
        "import clipvet.reports.files, clipvet.reports.console; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_long_lists_render_in_seconds() -> None:
    report = replace(report_cases.many(300), nulls=(report_cases.null(2000),))
    assert FORMATS["html"](report).count("<circle") == 2000
