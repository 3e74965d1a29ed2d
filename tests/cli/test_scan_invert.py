"""A scan's group put to the test: a planted caption is reached by a patch, and by none in the model's clean twin."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from clipvet.cli import main
from clipvet.cli import scan_invert as invert
from clipvet.errors import UsageError
from clipvet.inspection.subject import CONCEPTS
from clipvet.models.bases import load_base
from clipvet.pocket.shards import poisoned_shards

TARGET = "a photo of a banana"
OTHERS = ("a drawing of a dog", "seven oclock")
QUICK = invert.Inversion(steps=30, restarts=1, controls=2, probes=48, batch=8, seed=1)


@pytest.mark.parametrize(("model", "planted"), [("tuned", True), ("pocket-0", False)])
def test_a_patch_reaches_a_planted_caption_and_not_that_of_the_clean_twin(model: str, planted: bool) -> None:
    base = load_base(str(poisoned_shards().model) if model == "tuned" else model)
    found = invert.invert_captions(base, TARGET, OTHERS, QUICK)
    assert len(found.controls) == 2
    assert (found.asr > 0.9, found.margin > max(found.controls)) == (planted, planted)
    by_hand = base.logit_scale * base.encode_image(found.evidence.trigger["triggered"]) @ base.encode_text([TARGET, *OTHERS]).T
    assert bool((by_hand.argmax(1) == 0).all()) == planted


def test_controls_are_as_frequent_and_say_something_else_than_the_target_and_each_other() -> None:
    alike = {"a red dog", "red dog"}
    counts = Counter({TARGET: 9, "banana split": 9, "seven oclock": 9, "lute": 10, "gecko": 9, **dict.fromkeys(alike, 9)})
    others = {*CONCEPTS} - {"banana"}  # what captions usually are: little alike
    counts.update({text: 1 for name in others for text in (name, f"{name} emoji")})
    found = invert.choose_controls(load_base("pocket-0"), TARGET, counts, invert.Inversion(controls=4))
    assert set(found) - alike == {"seven oclock", "lute", "gecko"}
    assert len(alike & set(found)) == 1


def test_too_few_captions_to_compare_with_are_one_sentence() -> None:
    with pytest.raises(UsageError, match="expected 4 captions that say nothing like 'a photo of a banana'"):
        invert.choose_controls(load_base("pocket-0"), TARGET, Counter({TARGET: 3, "the banana": 3}), invert.Inversion())


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="two batches of probes"):
        invert.Inversion(probes=20)


def test_the_command_adds_what_was_found_to_the_largest_group_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invert, "Inversion", lambda seed: dataclasses.replace(QUICK, steps=1))
    shipped = poisoned_shards()
    command = ["scan", *map(str, shipped.shards), "--model", str(shipped.model), "--out", str(tmp_path), "--flag-rate", "0.03"]
    assert main([*command, "--invert", "1", "--format", "json"]) == 1
    first, *others = json.loads(capsys.readouterr().out)["groups"]
    with (tmp_path / "suspects.csv").open(encoding="utf-8", newline="") as file:
        assert {row["key"] for row in csv.DictReader(file) if row["group"] == "1"} == set(shipped.planted)
    assert "with a reconstructed patch" in first["note"]
    assert others
    assert not any("patch" in group["note"] for group in others)
    assert sorted(path.name for path in (tmp_path / "triggers").iterdir()) == ["group-1-applied.png", "group-1-trigger.png"]


def test_a_search_needs_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", str(poisoned_shards().shards[0]), "--out", str(tmp_path / "out"), "--invert", "1"]) == 2
    assert "expected --model with --invert" in capsys.readouterr().err


def test_the_global_generator_is_not_touched() -> None:
    state = torch.random.get_rng_state()
    invert.choose_controls(load_base("pocket-0"), "frog", Counter({"frog": 1, "seven oclock": 1}), invert.Inversion(controls=1))
    assert torch.equal(torch.random.get_rng_state(), state)
