"""Pictures of one colour and pictures under several captions: what no score sees is found without a model."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from clipvet.scan import oddities
from clipvet.scan.oddities import look_at
from clipvet.scan.options import ScanOptions
from clipvet.scan.run import scan_pairs
from clipvet.types import ScanReport

from .conftest import MakeTars


def scan(paths: list[Path], out: Path, **given: object) -> ScanReport:
    settings = {"model": "pocket-0", "k": 4, "reference": 50, "flag_rate": 0.1, "gallery": 2, **given}
    return scan_pairs([str(path) for path in paths], ScanOptions(out=out, **settings))


def listed(out: Path) -> list[dict[str, str]]:
    with (out / "oddities.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def pictures_that_repeat(make_tars: MakeTars, pictures: list[tuple[Tensor, str]]) -> list[Path]:
    """Pairs 3 to 5 share a picture under two captions, 6 and 7 under one in two cases, 30 is blank."""

    def change(at: int, image: Tensor, caption: str) -> tuple[Tensor, str]:
        if at in (3, 4, 45):
            return pictures[3][0], "first" if at < 45 else "second"
        if at in (6, 7):
            return pictures[6][0], ("Same", "same ")[at - 6]
        return (torch.full_like(image, 1.0), caption) if at == 30 else (image, caption)

    return make_tars(change=change)


@pytest.mark.parametrize("at_once", [1 << 22, 7])  # all in one go, and in nine
def test_a_planted_blank_and_copies_are_listed_and_said(
    pictures_that_repeat: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(oddities, "AT_ONCE", at_once)
    report = scan(pictures_that_repeat, tmp_path / "out")
    rows = listed(tmp_path / "out")
    assert [(row["kind"], row["key"], row["pairs"], row["captions"]) for row in rows] == [
        ("one colour", "000030", "1", "1"),
        ("several captions", "000003", "3", "2"),
        ("several captions", "000004", "3", "2"),
        ("several captions", "000045", "3", "2"),
    ]
    assert len({row["picture"] for row in rows}) == 2
    said = [text for text in report.warnings if "oddities.csv" in text]
    assert said[0].startswith("1 picture is of one colour")
    assert said[1].startswith("1 picture stands by several captions, in 3 pairs")
    assert str(tmp_path / "out" / "oddities.csv") in report.written


def test_the_untouched_twin_has_none_and_an_earlier_list_goes(make_tars: MakeTars, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "oddities.csv").write_text("of an earlier scan", encoding="utf-8")
    report = scan(make_tars(), tmp_path / "out")
    assert not (tmp_path / "out" / "oddities.csv").exists()
    assert not any("oddities.csv" in text for text in report.warnings)


def test_ready_features_hold_no_pictures_to_look_at(pictures_that_repeat: list[Path], tmp_path: Path) -> None:
    scan(pictures_that_repeat, tmp_path / "out")
    report = scan([tmp_path / "out" / "features"], tmp_path / "again", model=None)
    assert not any("oddities.csv" in text for text in report.warnings)


def test_one_colour_is_judged_by_channel() -> None:
    grey = np.array([0.299, 0.587, 0.114])  # weights of luminance: two colours of one brightness are two colours
    picture = torch.full((3, 8, 8), 0.5)
    picture[0, :, :4] += 0.2
    picture[1, :, :4] -= float(0.2 * grey[0] / grey[1])
    assert look_at(picture)[1] is False
    noise = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 7 / 255
    assert look_at(0.5 + noise)[1] is True


def test_a_number_is_that_of_the_pixels() -> None:
    one = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    other = one.clone()
    other[0, 0, 0] = 1 - other[0, 0, 0]
    assert look_at(one)[0] == look_at(one.clone())[0] != look_at(other)[0]
    assert look_at(one)[0] != look_at(one.transpose(1, 2))[0]
