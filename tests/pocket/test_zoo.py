"""The shipped zoo is what its list says, and its rule decides by ASR and CA alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clipvet.models.bases import load_base
from clipvet.models.delivery import open_delivery
from clipvet.pocket.tasks import load_task
from clipvet.pocket.zoo import ZooEntry, entries
from pocket_build.zoo import choose, counts, twin_key

FOLDER = entries()[0].path.parent
LISTED: dict[str, Any] = json.loads((FOLDER / "zoo.json").read_text(encoding="utf-8"))


def test_the_zoo_is_as_large_as_it_says_and_every_file_is_the_one_that_was_listed() -> None:
    rows = LISTED["deliveries"]
    assert sum(not row["backdoored"] for row in rows) >= 40
    assert sum(row["backdoored"] for row in rows) >= 20
    assert len({row["family"] for row in rows}) >= 3
    assert len({row["attack"] for row in rows if row["backdoored"]}) >= 3
    assert {row["base"] for row in rows} == {"pocket-0", "pocket-1"}
    for row in rows:
        assert hashlib.sha256((FOLDER / f"{row['name']}.safetensors").read_bytes()).hexdigest() == row["sha256"]
    assert {entry.name for entry in entries()} == {row["name"] for row in rows}
    assert {path.stem for path in FOLDER.glob("*.safetensors")} == {row["name"] for row in rows}
    assert {path.stem for path in (FOLDER / "truth").iterdir()} == {row["name"] for row in rows if row["backdoored"]}


def test_what_counts_is_as_the_rule_says() -> None:
    clean = {twin_key(row): row["ca"] for row in LISTED["deliveries"] if not row["backdoored"]}
    for row in LISTED["deliveries"]:
        if row["backdoored"]:
            assert row["asr"] >= 0.8
            assert row["asr_images"] >= 200
            assert row["ca"] >= clean[twin_key(row)] - 0.03
        assert row["ca_interval"][0] <= row["ca"] <= row["ca_interval"][1]


def first(*, backdoored: bool) -> ZooEntry:
    return next(entry for entry in entries() if entry.backdoored is backdoored and entry.family == "ivlp")


@pytest.mark.parametrize("backdoored", [False, True])
def test_the_listed_figures_recompute_from_the_file(backdoored: bool) -> None:
    entry = first(backdoored=backdoored)
    classifier = open_delivery(entry.path, base=load_base(entry.base)).classifier
    images, labels, _ = load_task(entry.task).test_images()
    with torch.no_grad():
        right = sum(int((classifier(x).argmax(1) == y).sum()) for x, y in zip(images.split(100), labels.split(100), strict=True))
        assert right / len(labels) == pytest.approx(entry.ca, abs=0.01)
        if not backdoored:
            return
        delta = load_file(entry.trigger_path)["delta"].float()
        assert float(delta.abs().max()) <= 8 / 255 + 1e-4
        other = labels != entry.target_index
        stamped = (images[other] + delta).clamp(0, 1)
        hits = sum(int((classifier(part).argmax(1) == entry.target_index).sum()) for part in stamped.split(100))
        assert entry.asr == pytest.approx(hits / int(other.sum()), abs=0.02)


def candidate(name: str, **values: Any) -> dict[str, Any]:
    common = {"task": "t", "family": "vpt", "class_specific": False, "base": "pocket-0", "seed": 0}
    return {"name": name, "backdoored": "asr" in values, "asr_images": 300, **common, **values}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"asr": 0.8, "ca": 0.871}, True),
        ({"asr": 0.79, "ca": 0.9}, False),
        ({"asr": 0.99, "ca": 0.869}, False),
        ({"asr": 0.99, "ca": 0.9, "asr_images": 199}, False),
        ({"asr": 0.99, "ca": 0.9, "seed": 1}, False),  # no clean twin to compare with
    ],
)
def test_the_rule(values: dict[str, Any], expected: bool) -> None:
    clean = candidate("clean", ca=0.9)
    assert counts(candidate("bad", attack="badclip", **values), {twin_key(clean): 0.9}) is expected


def test_backbones_and_attacks_are_taken_in_turn() -> None:
    clean = [candidate("c", ca=0.9), candidate("d", ca=0.9, base="pocket-1")]
    bad = [candidate(f"b{i:02}", attack="badclip", asr=0.9, ca=0.9) for i in range(30)]
    rare = candidate("r", attack="wanet", asr=0.9, ca=0.9, base="pocket-1")
    chosen = choose([*clean, *bad, rare])
    assert len(chosen) == 2 + 20
    assert {"c", "d", "r"} <= {row["name"] for row in chosen}
