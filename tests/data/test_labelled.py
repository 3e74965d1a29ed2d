"""A folder per class becomes images with labels, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from clipvet.data.labelled import load_labelled, plain_name
from clipvet.errors import UnreadableError, UsageError

NAMES = ("fire truck", "Cat", "t_shirt")


def fill(folder: Path, *greys: int) -> Path:
    folder.mkdir(parents=True)
    for number, grey in enumerate(greys):
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(folder / f"{number}.png")
    return folder


def greys(images: torch.Tensor) -> list[int]:
    return [round(float(image.mean()) * 255) for image in images]


def test_folders_are_matched_whatever_their_case_and_spaces(tmp_path: Path) -> None:
    fill(tmp_path / "Fire_Truck", 10, 20)
    fill(tmp_path / "cat", 30)
    fill(tmp_path / "T-shirt", 40)
    fill(tmp_path / "fire-truck", 50)  # a second folder of a class adds to it
    found = load_labelled(tmp_path, NAMES, 8, most=16, seed=0)
    assert list(zip(found.labels.tolist(), greys(found.images), strict=True)) == [(0, 10), (0, 20), (0, 50), (1, 30), (2, 40)]
    assert found.images.shape == (5, 3, 8, 8)
    assert found.skipped == ()


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "cat", 30)
    fill(tmp_path / "fire truck", 10)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    fill(tmp_path / "dog", 1)
    (tmp_path / "t shirt").mkdir()
    found = load_labelled(tmp_path, NAMES, 8, most=16, seed=0)
    assert found.labels.tolist() == [0, 1]
    named = {Path(item.what).name: item.why for item in found.skipped}
    assert "could not decode" in named["notes.txt"]
    assert named["dog"] == "no class of the delivery has this name"
    assert "found no file" in named["t shirt"]
    assert f"no image of them in {tmp_path}" in named["1 of 3 classes (t_shirt)"]
    assert len(named) == 4


def test_more_images_than_wanted_are_drawn_by_the_seed(tmp_path: Path) -> None:
    fill(tmp_path / "cat", *range(0, 250, 10))
    fill(tmp_path / "fire truck", 255)
    first, again, other = (load_labelled(tmp_path, NAMES, 8, most=4, seed=seed) for seed in (0, 0, 1))
    assert first.labels.tolist() == [0, 1, 1, 1, 1]
    assert greys(first.images) == greys(again.images) != greys(other.images)


def test_too_little_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="one folder of images per class, found none at"):
        load_labelled(tmp_path / "missing", NAMES, 8, most=4, seed=0)
    fill(tmp_path / "cat", 1)
    with pytest.raises(UsageError, match=r"at least 2 of the 3 classes in .*, found 1: name each folder as its class"):
        load_labelled(tmp_path, NAMES, 8, most=4, seed=0)
    with pytest.raises(UsageError, match="found 'a_b' and 'A b': their folders cannot be told apart"):
        load_labelled(tmp_path, ("a_b", "A b"), 8, most=4, seed=0)


@pytest.mark.parametrize(("name", "plain"), [("Fire_Truck ", "fire truck"), ("t--shirt", "t shirt"), ("STRASSE", "strasse")])
def test_a_plain_name(name: str, plain: str) -> None:
    assert plain_name(name) == plain
