"""The command that compares two deliveries: its formats, its exit codes, its errors."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from clipvet.cli import main
from clipvet.reports.diff_schema import SCHEMA_PATH

ZOO = Path(__file__).parents[2] / "clipvet" / "pocket" / "assets" / "zoo"
OLD = ZOO / "pocket-0-signs-coop-9de01a.safetensors"


@pytest.fixture
def touched(tmp_path: Path) -> Path:
    """The delivery with one number of its context moved, and without metadata."""
    tensors = load_file(OLD)
    tensors["ctx"][3, 0, 0] += 1
    save_file(tensors, tmp_path / "touched.safetensors")
    return tmp_path / "touched.safetensors"


def test_the_same_is_0_and_merely_different_too(touched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(OLD), str(OLD)]) == 0
    assert "Nothing differs" in capsys.readouterr().out
    assert main(["diff", str(OLD), str(touched)]) == 0
    assert main(["diff", str(OLD), str(OLD), "--fail-on", "changed"]) == 0


@pytest.mark.parametrize("output", ["console", "json"])
def test_fail_on_changed_is_1(touched: Path, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(OLD), str(touched), "--fail-on", "changed", "--format", output]) == 1
    assert capsys.readouterr().err == ""


def test_json_names_the_class_that_moved(touched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with safe_open(OLD, "pt") as file:
        names = json.loads(file.metadata()["class_names"])
    (tmp_path / "names.txt").write_text("\n".join(names))
    options = ["--base", "pocket-0", "--classes", str(tmp_path / "names.txt"), "--format", "json"]
    assert main(["diff", str(OLD), str(touched), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, json.loads(SCHEMA_PATH.read_text(encoding="utf-8")))
    (change,) = found["tensors"]
    assert (change["name"], change["change"], change["largest"]) == ("ctx", "values", pytest.approx(1.0))
    assert found["texts"][0]["name"] == names[3]
    assert found["texts"][0]["cosine"] < 0.999 < found["median"]
    assert {row["what"] for row in found["metadata"]} >= {"family", "class_names"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.pt", str(OLD)], "missing.pt: there is no such file or folder"),
        ([str(OLD)], "Missing argument"),
        ([str(OLD), str(OLD), "--base", "nothing"], "no file or name 'nothing'"),
        ([str(OLD), str(OLD), "--fail-on", "found"], "'found' is not"),
        ([str(OLD), str(OLD), "--format", "sarif"], "'sarif' is not one of 'console', 'json'"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", *arguments]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
