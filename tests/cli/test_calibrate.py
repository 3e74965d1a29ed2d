"""``calibrate`` writes a null that ``inspect --null`` uses: the same after a stop, refused where it does not fit, said in words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import gumbel_r

from clipvet.cli import calibrate, main
from clipvet.inspection import references
from clipvet.inspection.calibration import settings_digest
from clipvet.models.base import ClipModel
from clipvet.reports.text import number
from tests.api.inspections import NAMES, Quick, deliver, ticking
from tests.cli.calibrations import calibrated, label, moments, quicken

Cli = Callable[..., int]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tiny_clip: ClipModel) -> None:
    quicken(monkeypatch, tiny_clip)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "null.json"


@pytest.fixture
def run(out: Path) -> Cli:
    """Run the command with small numbers; what is given besides comes last, and so wins."""

    def run(*more: str) -> int:
        return calibrated(out, *more)

    return run


def null_of(out: Path) -> Any:
    return json.loads(out.read_text())["nulls"][0]


def test_a_null_is_written_and_an_inspection_is_judged_by_it(
    run: Cli, out: Path, tmp_path: Path, tiny_clip: ClipModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "a null of 3 clean tunings of tiny (coop), labelled by the base itself, 10 to 12 classes each." in said
    assert "3 references resolve a false-positive rate of 1/4 by counting" in said
    assert "Fewer than 10 references do not carry a verdict of 'backdoored'" in said
    assert "No null of feature-collapse: that takes 2 references that change the image tower, as vpt does, and learned" in said
    assert len(json.loads(out.read_text())["nulls"]) == 1
    row = null_of(out)
    limit = max(1.8, gumbel_r.isf(0.02, *moments(row["values"])))  # the base's own labels lower no threshold
    low, high = row["values"][0], row["values"][-1]
    assert f"margin-residual: {number(low)} to {number(high)}; suspicious above {number(limit)}, never backdoored" in said
    settings = settings_digest(Quick.name, vars(Quick(strength=4 / 255)))
    assert row["key"] == {
        "base": "tiny",
        "family": "prompt",
        "classes": [10, 12],
        "settings": settings,
        "probes": "generated pool, 24",
    }
    assert [one["number"] for one in row["references"]] == [0, 1, 2]
    assert all(10 <= len(one["class_names"]) <= 12 and one["family"] == "coop" for one in row["references"])

    delivery = deliver(tmp_path / "prompt.safetensors", tiny_clip)
    like = ["inspect", str(delivery), "--base", "tiny", "--probe-count", "24", "--seed", "1", "--null", str(out)]
    assert main([*like, "--format", "json"]) in (0, 1, 3)
    report = json.loads(capsys.readouterr().out)
    assert report["calibrated"] is True
    assert report["thresholds"]["margin-residual"] == pytest.approx(limit)
    assert report["nulls"][0]["pseudo_labelled"] is True
    assert report["nulls"][0]["values"] == sorted(one["statistic"] for one in row["references"])
    statistic = report["checks"][0]["statistic"]
    assert report["p_value"] == pytest.approx((1 + sum(value >= statistic for value in row["values"])) / 4)


def test_an_inspection_of_another_kind_refuses_the_null(
    run: Cli, out: Path, tmp_path: Path, tiny_clip: ClipModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--references", "2") == 0
    delivery = deliver(tmp_path / "prompt.safetensors", tiny_clip)
    like = ["inspect", str(delivery), "--base", "tiny", "--seed", "1", "--null", str(out)]
    for more, said in (
        (["--probe-count", "32"], "its set of probe images is 'generated pool, 24' and not 'generated pool, 32'"),
        (["--probe-count", "24", "--preset", "paper"], "its check with its settings is 'margin-residual:"),
        (["--probe-count", "32", "--dry-run"], "its set of probe images is"),
    ):
        capsys.readouterr()
        assert main([*like, *more]) == 2
        assert said in capsys.readouterr().err
    out.write_text("{}")
    assert main(like) == 2
    assert "expected a null as clipvet calibrate writes it" in capsys.readouterr().err


def test_a_delivery_outside_the_band_is_inspected_without_the_null_and_that_is_said(
    run: Cli, out: Path, tmp_path: Path, tiny_clip: ClipModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--references", "2", "--classes", "11-12") == 0
    delivery = deliver(tmp_path / "prompt.safetensors", tiny_clip)
    capsys.readouterr()
    like = ["inspect", str(delivery), "--base", "tiny", "--probe-count", "24", "--seed", "1", "--null", str(out)]
    assert main([*like, "--format", "json"]) in (0, 1, 3)
    report = json.loads(capsys.readouterr().out)
    assert report["calibrated"] is False
    left = {one["what"]: one["why"] for one in report["skipped"]}
    assert left[f"the null of {out}"] == f"it was measured on 11 to 12 classes, and this delivery has {len(NAMES)}"


def test_an_interrupted_run_goes_on_and_ends_in_the_same_file(
    run: Cli, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    whole = out.read_bytes()
    for kept in (out.parent / "null.json.references").iterdir():
        kept.unlink()
    out.unlink()

    real, tuned = references.tune_reference, []

    def stopped(*about: Any) -> Any:
        if len(tuned) == 1:
            raise KeyboardInterrupt
        tuned.append(about)
        return real(*about)

    monkeypatch.setattr(references, "tune_reference", stopped)
    assert run() == 130
    assert "are kept in" in capsys.readouterr().err
    assert not out.exists()
    monkeypatch.setattr(references, "tune_reference", lambda *about: tuned.append(about) or real(*about))
    assert run() == 2
    assert "found 1: use them with --resume, or remove that folder" in capsys.readouterr().err
    assert run("--resume") == 0
    assert len(tuned) == 3
    assert out.read_bytes() == whole
    assert run("--resume", "--references", "4") == 0
    assert len(tuned) == 4
    assert null_of(out)["references"][:3] == json.loads(whole)["nulls"][0]["references"]
    for other in (("--seed", "2"), ("--classes", "10-11"), ("--families", "coop,vpt"), ("--probe-count", "32")):
        assert run("--resume", *other) == 2
        assert "expected the state of this very run" in capsys.readouterr().err


def test_a_budget_leaves_references_out_and_says_so(
    run: Cli, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ticking(monkeypatch, 2)
    assert run("--budget", "1m") == calibrate.UNFINISHED == 3
    assert "2 of 3 references were made, since the budget of 60 s was used up" in " ".join(capsys.readouterr().out.split())
    assert len(null_of(out)["values"]) == 2


def test_references_that_learned_nothing_are_counted_apart(
    run: Cli, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = references.tune_reference
    monkeypatch.setattr(references, "LEAST_LEARNED", 0.25)
    monkeypatch.setattr(references, "tune_reference", lambda base, draw, s: (real(base, draw, s)[0], 0.1 + 0.9 * (draw.number > 0)))
    assert run() == 0
    assert "1 further references hardly learned the labels of their images" in " ".join(capsys.readouterr().out.split())
    found = json.loads(out.read_text())
    assert [one["number"] for one in found["failed"]] == [0]
    assert len(null_of(out)["values"]) == 2
    assert run("--resume", "--references", "2") == 2
    assert "expected at least 2 references that learned the labels of their images, found 1 of 2" in capsys.readouterr().err


def test_a_dry_run_tunes_nothing(run: Cli, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(references, "tune_reference", lambda *about: pytest.fail("tuned"))
    assert run("--dry-run", "--references", "5") == 0
    said = " ".join(capsys.readouterr().out.split())
    # 5 checks of 11 classes, two refined: 2 and 1 steps of 4 images, each measured on 8 by both classifiers; and 5 tunings
    screened, refined = 11 * (2 * 4 + 8 + 8), 2 * (1 * 4 + 8 + 8)
    assert f"{5 * (screened + refined) + 5 * 300 * 32} images through the encoder" in said
    assert "tune 5 prompts on tiny without a backdoor, 10 to 12 classes each: 5 coop" in said
    assert "run margin-residual on each; probe images: generated" in said
    assert list(out.parent.iterdir()) == []


def test_a_place_that_takes_no_folder_is_one_sentence(run: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run("--out", str(tmp_path / "file" / "null.json")) == 2
    assert "Error: expected to keep finished references in" in capsys.readouterr().err


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return label(tmp_path / "labelled")


def test_references_are_tuned_on_the_images_that_are_given(
    run: Cli, out: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--labelled", str(labelled), "--classes", "2-4") == 0
    assert {name for one in null_of(out)["references"] for name in one["class_names"]} <= set(NAMES[:4])
    first = null_of(out)["values"]
    assert run("--resume", "--labelled", str(labelled), "--classes", "2-4") == 0
    out.with_name("null.json.references").rename(out.with_name("earlier"))
    (labelled / "notes.txt").write_text("no picture")
    capsys.readouterr()
    assert run("--images", str(labelled), "--class-names", ",".join(NAMES[:4]), "--classes", "2-4") == 0
    assert {name for one in null_of(out)["references"] for name in one["class_names"]} <= set(NAMES[:4])
    assert null_of(out)["values"] != first
    assert f"Not read: {labelled / 'notes.txt'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--references", "1"], "expected at least 2 references, got 1"),
        (["--classes", "10"], "expected a band of class counts such as 10-50, got '10'"),
        (["--classes", "12-10"], "expected a band of at least 2 classes such as 10-50, got 12-10"),
        (["--families", "coop,lora"], "expected prompt families out of coop, .*, got 'lora'"),
        (["--class-names", "cat,dog"], "expected at least 12 class names to draw up to 12 classes from, got 2"),
        (["--images", "a", "--labelled", "b"], "expected either images that the base labels itself or labelled ones, got both"),
        (["--labelled", "absent"], "expected a folder with one folder of images per class, found none at absent"),
        (["--images", "absent"], "expected a folder of pictures, found nothing at absent"),
        (["--probes", "absent"], "expected a folder of pictures, found nothing at absent"),
        (["--budget", "soon"], "expected a duration"),
        (["--out", "."], "expected a file for the null, found a folder at"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    run: Cli, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    monkeypatch.chdir(out.parent)
    assert run(*more) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert re.search(said, err[-1])
    assert len(err) == 1
    assert list(out.parent.iterdir()) == []
