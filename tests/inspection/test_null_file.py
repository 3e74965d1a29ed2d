"""A null file is read back as it was written, refused in one sentence where it was not, and used where it was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import clipvet
from clipvet.errors import ClipvetError, UnreadableError, UnwritableError, UsageError
from clipvet.inspection import null_file
from clipvet.inspection.calibration import judge
from clipvet.inspection.null_file import NullFile, choose_null, explain_count, null_for, pack_null, read_null, write_null
from clipvet.inspection.references import Draw, Reference
from clipvet.types import CheckResult, Evidence, Null, NullKey, Verdict

KEY = NullKey(base="abc", family="prompt", classes=(2, 3), settings="margin-residual:0", probes="generated pool, 1000")
LIKE = NullKey(base="abc", family="coop", classes=(3, 3), settings=KEY.settings, probes=KEY.probes)
STATISTICS = (0.9, 0.3, 1.2, 0.5)


def reference(number: int, statistic: float, accuracy: float = 1.0, family: str = "vpt") -> Reference:
    draw = Draw(number=number, family=family, class_names=("cat", "dog"), seed=number + 100)
    return Reference(draw=draw, statistic=statistic, accuracy=accuracy)


def packed(*more: Reference) -> NullFile:
    made = [reference(number, value, family="coop" if number else "vpt") for number, value in enumerate(STATISTICS)]
    return pack_null([*made, *more], check="margin-residual", key=KEY, base_name="pocket-0", pseudo_labelled=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "null.json"
    write_null(path, packed())
    return path


def test_a_null_is_read_back(path: Path) -> None:
    file = read_null(path)
    assert file == packed()
    assert file.null == Null(
        key=KEY, values=(0.3, 0.5, 0.9, 1.2), source="4 clean tunings of pocket-0 (coop, vpt)", check="margin-residual"
    )
    found = json.loads(path.read_text())
    assert (found["format"], found["clipvet"]) == (1, clipvet.__version__)
    first = {"number": 0, "family": "vpt", "class_names": ["cat", "dog"], "seed": 100, "accuracy": 1.0, "statistic": 0.9}
    assert found["nulls"][0]["references"][0] == first
    assert [one["statistic"] for one in found["nulls"][0]["references"]] == list(STATISTICS)
    assert "4 references resolve a false-positive rate of 1/5 by counting" in found["resolves"]
    assert not list(path.parent.glob("*.part"))


def test_it_is_laid_out_as_the_file_that_ships(path: Path) -> None:
    shipped = json.loads((files("clipvet.pocket") / "assets" / "nulls.json").read_text())["nulls"][0]
    (own,) = json.loads(path.read_text())["nulls"]
    assert own.keys() == shipped.keys() | {"pseudo_labelled"}
    assert own["key"].keys() == shipped["key"].keys()


def test_what_did_not_learn_is_kept_apart() -> None:
    file = packed(reference(4, 9.0, accuracy=0.5), reference(5, math.nan))
    assert file.null.values == (0.3, 0.5, 0.9, 1.2)
    assert [(one.number, one.statistic) for one in file.failed] == [(4, 9.0), (5, None)]
    assert NullFile.model_validate_json(file.model_dump_json()) == file


def test_one_reference_that_learned_is_no_null() -> None:
    with pytest.raises(ClipvetError, match=r"expected at least 2 references that learned the labels .*, found 1 of 2: make more"):
        pack_null([reference(0, 1.0), reference(1, 1.0, accuracy=0.5)], check="c", key=KEY, base_name="b", pseudo_labelled=True)


@pytest.mark.parametrize(("count", "said"), [(9, True), (10, False), (99, False)])
def test_what_references_resolve_is_said(count: int, said: bool) -> None:
    text = explain_count(count)
    assert f"{count} references resolve a false-positive rate of 1/{count + 1} by counting" in text
    assert "1/50 (suspicious) and 1/500 (backdoored) are read off a fitted Gumbel distribution, which extrapolates" in text
    assert ("Fewer than 10 references do not carry a verdict of 'backdoored'." in text) is said


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edited(data: bytes) -> bytes:
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return edited


def own(document: dict[str, Any]) -> Any:
    return document["nulls"][0]


DAMAGED: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda data: data[:-9], "Invalid JSON"),
    (lambda data: b"", "Invalid JSON"),
    (lambda data: b"\x80\x04\x95\x00", "Invalid JSON"),
    (lambda data: b"[" * 100_000, "Invalid JSON"),
    (lambda data: b"[1, 2]", "Input should be an object"),
    (lambda data: b'{"nulls": []}', "format: Field required"),
    (lambda data: (files("clipvet.pocket") / "assets" / "nulls.json").read_bytes(), "format: Field required"),
    (edit(lambda d: d.update(format=2)), "expected a null of format 1, found format 2: update clipvet"),
    (edit(lambda d: d.update(format=0)), "format: Input should be 1"),
    (edit(lambda d: d.update(format="1")), "format: Input should be a valid integer"),
    (edit(lambda d: d.update(more=1)), "more: Extra inputs are not permitted"),
    (edit(lambda d: d.update(nulls=[])), "nulls: Tuple should have at least 1 item"),
    (edit(lambda d: d["nulls"].append(d["nulls"][0])), "nulls: Tuple should have at most 1 item"),
    (edit(lambda d: own(d).pop("values")), "nulls.0.values: Field required"),
    (edit(lambda d: own(d).update(values=[1.0])), "at least 2 items"),
    (edit(lambda d: own(d).update(values=[0.3, 0.5, 0.9, 9.0])), "nulls.0: values that are not those of its references"),
    (edit(lambda d: own(d)["references"][0].update(statistic=None)), "values that are not those of its references"),
    (edit(lambda d: own(d)["references"].pop()), "values that are not those of its references"),
    (edit(lambda d: own(d).update(values=[math.nan] * 4)), "Input should be a finite number"),
    (edit(lambda d: own(d)["key"].update(classes=[2])), "nulls.0.key.classes.1: Field required"),
    (edit(lambda d: own(d)["key"].update(base="")), "nulls.0.key.base: String should have at least 1 character"),
    (edit(lambda d: own(d)["key"].update(family="whole")), "nulls.0.key.family: Input should be 'prompt'"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGED)
def test_a_damaged_foreign_or_later_file_is_one_sentence(path: Path, damage: Callable[[bytes], bytes], said: str) -> None:
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UnreadableError) as caught:
        read_null(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: expected a null")
    assert said in text
    assert "\n" not in text


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreadableError, match=r"could not read it .*No such file"):
        read_null(tmp_path / "absent.json")
    with pytest.raises(UnreadableError, match=r"could not read it .*directory"):
        read_null(tmp_path)
    (tmp_path / "large.json").write_bytes(b" " * 100)
    monkeypatch.setattr(null_file, "LARGEST_FILE", 99)
    with pytest.raises(UnreadableError, match="expected a null of at most 99 bytes"):
        read_null(tmp_path / "large.json")


def test_a_place_that_takes_no_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableError, match=r"expected to write the null to .*: make room, or choose another --out"):
        write_null(tmp_path / "file" / "null.json", packed())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"base": "abd"}, "its base is 'abc' and not 'abd': inspect"),
        ({"settings": "paper:1"}, "its check with its settings is 'margin-residual:0' and not 'paper:1': inspect"),
        ({"probes": "images of a, 7"}, "its set of probe images is 'generated pool, 1000' and not 'images of a, 7': inspect"),
        ({"base": "abd", "probes": "x"}, "its base is 'abc' and not 'abd', its set of probe images is"),
    ],
)
def test_a_null_that_was_measured_otherwise_is_refused(path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        null_for(path, NullKey(**{**vars(LIKE), **changed}))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, ""),
        ({"family": "maple"}, ""),
        ({"classes": (2, 2)}, ""),
        ({"classes": (4, 4)}, "it was measured on 2 to 3 classes, and this delivery has 4"),
        ({"classes": (1, 1)}, "it was measured on 2 to 3 classes, and this delivery has 1"),
        ({"family": "whole"}, "it was measured on tuned prompts, and this is a whole model"),
    ],
)
def test_a_delivery_that_it_says_nothing_about_is_not_judged_by_it(path: Path, changed: dict[str, Any], why: str) -> None:
    null, said = null_for(path, NullKey(**{**vars(LIKE), **changed}))
    assert said == why
    assert null == (None if why else packed().null)


def test_the_own_null_goes_before_those_that_ship(path: Path) -> None:
    shipped = Null(key=NullKey(**{**vars(KEY), "classes": (3, 9)}), values=(5.0, 6.0))
    chosen = choose_null(LIKE, own=path, shipped=[shipped], enough_names=True)
    assert chosen == (packed().null, ())
    assert choose_null(LIKE, own=None, shipped=[shipped], enough_names=True) == (shipped, ())
    assert choose_null(NullKey(**{**vars(LIKE), "base": "x"}), own=None, shipped=[shipped], enough_names=True) == (None, ())
    many = NullKey(**{**vars(LIKE), "classes": (4, 4)})
    null, (left,) = choose_null(many, own=path, shipped=[shipped], enough_names=True)
    assert null == shipped
    assert (left.what, left.why) == (f"the null of {path}", "it was measured on 2 to 3 classes, and this delivery has 4")


def test_few_names_without_company_have_no_null(path: Path) -> None:
    shipped = Null(key=NullKey(**{**vars(KEY), "classes": (3, 9)}), values=(5.0, 6.0))
    assert choose_null(LIKE, own=None, shipped=[shipped], enough_names=False) == (None, ())
    null, (left,) = choose_null(LIKE, own=path, shipped=[shipped], enough_names=False)
    assert null is None
    assert left.why == "no names could be put beside the few that this delivery has"


@pytest.mark.parametrize(
    ("statistic", "verdict", "above"), [(0.4, Verdict.NO_EVIDENCE, 3), (0.9, Verdict.NO_EVIDENCE, 2), (9.0, Verdict.SUSPICIOUS, 0)]
)
def test_a_verdict_counts_the_references_above(path: Path, statistic: float, verdict: Verdict, above: int) -> None:
    row = Evidence(target="cat", statistic=statistic, values={"asr": 1.0})
    judged = judge(CheckResult(check="margin-residual", statistic=statistic, evidence=(row,)), read_null(path).null, controls=1.0)
    assert (judged.verdict, judged.p) == (verdict, (1 + above) / 5)
