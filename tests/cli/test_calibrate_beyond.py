"""``calibrate`` writes a second null, of the check without classes, by which ``inspect --null`` judges that check too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import gumbel_r

from clipvet.api import CalibrateOptions, InspectOptions, plan_calibration
from clipvet.cli import main
from clipvet.inspection import references
from clipvet.inspection.calibration import settings_digest
from clipvet.models.base import ClipModel
from clipvet.models.saving import save_delivery
from clipvet.reports.text import number
from tests.api.inspections import NAMES, deliver
from tests.cli.calibrations import QuickCollapse, calibrated, label, moments, quicken

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tiny_clip: ClipModel) -> None:
    quicken(monkeypatch, tiny_clip)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "null.json"


@pytest.fixture
def like(tmp_path: Path) -> tuple[str, ...]:
    """Two labelled references of VPT, unless what is given besides says otherwise."""
    pictures = label(tmp_path / "labelled")
    return ("--labelled", str(pictures), "--classes", "2-4", "--families", "vpt", "--references", "2")


def inspected(delivery: Path, names: tuple[str, ...], capsys: Capture, *more: str) -> Any:
    """Inspect a delivery, and give the report."""
    capsys.readouterr()
    usual = ("--base", "tiny", "--probe-count", "24", "--seed", "1", "--format", "json")
    assert main(["inspect", str(delivery), "--classes", ",".join(names), *usual, *more]) in (0, 1, 3)
    return json.loads(capsys.readouterr().out)


def skipped(report: Any) -> dict[str, str]:
    return {one["what"]: one["why"] for one in report["skipped"]}


def shift(out: Path, by: float) -> list[float]:
    """Move the second null of a file, and give its values."""
    file = json.loads(out.read_text())
    second = file["nulls"][1]
    for one in second["references"]:
        one["statistic"] += by
    second["values"] = sorted(one["statistic"] for one in second["references"])
    out.write_text(json.dumps(file))
    return list(second["values"])


def test_a_second_null_holds_the_references_that_change_the_image_tower(out: Path, like: tuple[str, ...], capsys: Capture) -> None:
    assert calibrated(out, *like, "--families", "vpt,coop", "--references", "6") == 0
    said = " ".join(capsys.readouterr().out.split())
    first, second = json.loads(out.read_text())["nulls"]
    moved = [one["number"] for one in first["references"] if one["family"] == "vpt"]
    assert 2 <= len(moved) < 6
    assert [one["number"] for one in second["references"]] == moved
    settings = settings_digest("feature-collapse", vars(QuickCollapse(strength=4 / 255)))
    assert (second["check"], second["key"]) == ("feature-collapse", {**first["key"], "settings": settings})
    low, high = second["values"][0], second["values"][-1]
    assert f"feature-collapse: {number(low)} to {number(high)} in the {len(moved)} that change the image tower; a finding" in said
    assert f"a finding above {number(gumbel_r.isf(0.02, *moments(second['values'])))}." in said


@pytest.mark.parametrize(("by", "found"), [(-1000.0, True), (1000.0, False)])
def test_an_inspection_judges_the_check_without_classes_by_it(
    out: Path, like: tuple[str, ...], tmp_path: Path, tiny_clip: ClipModel, capsys: Capture, by: float, found: bool
) -> None:
    assert calibrated(out, *like) == 0
    values = shift(out, by)
    delivery = deliver(tmp_path / "vpt.safetensors", tiny_clip, NAMES[:3], "vpt")
    report = inspected(delivery, NAMES[:3], capsys, "--null", str(out))
    assert report["calibrated"] is True
    assert report["thresholds"]["feature-collapse"] == pytest.approx(gumbel_r.isf(0.02, *moments(values)))
    assert [one["check"] for one in report["nulls"]] == ["margin-residual", "feature-collapse"]
    assert report["nulls"][1]["values"] == values
    assert "a verdict of feature-collapse" not in skipped(report)
    severities = {one["check"]: one["severity"] for one in report["findings"]}
    assert severities.get("feature-collapse") == ("medium" if found else None)


def test_a_null_of_the_bases_own_labels_flags_nothing_and_that_is_said(
    out: Path, tmp_path: Path, tiny_clip: ClipModel, capsys: Capture
) -> None:
    assert calibrated(out, "--families", "vpt", "--classes", "2-4", "--references", "2") == 0
    said = capsys.readouterr().out
    assert "flags nothing: the base's own labels move a tower too little for that; --labelled lifts this." in said
    values = shift(out, -1000.0)
    delivery = deliver(tmp_path / "vpt.safetensors", tiny_clip, NAMES[:3], "vpt")
    report = inspected(delivery, NAMES[:3], capsys, "--null", str(out))
    assert report["nulls"][1]["values"] == values
    assert report["calibrated"] is True
    assert "feature-collapse" not in {*report["thresholds"], *(one["check"] for one in report["findings"])}
    assert skipped(report)["a verdict of feature-collapse"].startswith("its null holds tunings on the base's own labels")


def test_a_file_of_one_null_leaves_the_check_unjudged(
    out: Path, like: tuple[str, ...], tmp_path: Path, tiny_clip: ClipModel, capsys: Capture
) -> None:
    """As it was written before there was a second one."""
    assert calibrated(out, *like) == 0
    file = json.loads(out.read_text())
    out.write_text(json.dumps({**file, "format": 1, "nulls": file["nulls"][:1]}))
    delivery = deliver(tmp_path / "vpt.safetensors", tiny_clip, NAMES[:3], "vpt")
    report = inspected(delivery, NAMES[:3], capsys, "--null", str(out))
    assert (report["calibrated"], [one["check"] for one in report["nulls"]]) == (True, ["margin-residual"])
    assert "feature-collapse" not in report["thresholds"]
    assert skipped(report)["a verdict of feature-collapse"].startswith("no null was measured on the like of this inspection")


def test_a_reference_is_measured_as_an_inspection_measures_it(
    out: Path, like: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    real, tuned = references.tune_reference, []

    def kept(*about: Any) -> Any:
        tuned.append(real(*about))
        return tuned[-1]

    monkeypatch.setattr(references, "tune_reference", kept)
    assert calibrated(out, *like) == 0
    first, _ = tuned[0]
    save_delivery(tmp_path / "reference.safetensors", first)
    report = inspected(tmp_path / "reference.safetensors", first.class_names, capsys)
    numbers = [null["references"][0]["statistic"] for null in json.loads(out.read_text())["nulls"]]
    assert [one["statistic"] for one in report["checks"]] == pytest.approx(numbers, rel=1e-3, abs=1e-3)


def test_other_presets_have_one_null() -> None:
    def stages(preset: str) -> str:
        like = InspectOptions(base="tiny", preset=preset, probe_count=24)
        return " ".join(plan_calibration(like, CalibrateOptions(families=("vpt",), classes=(2, 4), references=2)).stages)

    assert "feature-collapse on the 2 that change the image tower" in stages("default")
    for preset in ("paper", "neural-cleanse", "pixel-backdoor"):
        assert "feature-collapse" not in stages(preset)


def test_a_dry_run_counts_the_check_without_classes(out: Path, capsys: Capture) -> None:
    def passes(family: str) -> int:
        capsys.readouterr()
        assert calibrated(out, "--dry-run", "--references", "5", "--families", family) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert ("feature-collapse on the 5 that change the image tower" in said) is (family == "vpt")
        return int(re.findall(r"(\d+) images through the encoder", said)[0])

    # 2 steps of 4 images and twice 8 to measure on; a tuning of VPT takes 300 steps of 24, one of CoOp of 32
    assert passes("vpt") - passes("coop") == 5 * (2 * 4 + 2 * 8) + 5 * 300 * (24 - 32)
