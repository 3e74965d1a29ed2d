"""A null file is read back as it was written, and refused in one sentence where it was not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import clipvet
from clipvet.errors import ClipvetError, UnreadableError, UnwritableError
from clipvet.inspection import null_file
from clipvet.inspection.calibration import judge
from clipvet.inspection.null_file import NullFile, explain_count, pack_null, read_null, write_null
from clipvet.types import CheckResult, Evidence, Null, Verdict
from tests.inspection.null_cases import BEYOND, KEY, STATISTICS, packed, packed_both, reference


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
    assert (found["format"], found["clipvet"]) == (2, clipvet.__version__)
    first = {"number": 0, "family": "vpt", "class_names": ["cat", "dog"], "seed": 100, "accuracy": 1.0, "statistic": 0.9}
    assert found["nulls"][0]["references"][0] == first
    assert [one["statistic"] for one in found["nulls"][0]["references"]] == list(STATISTICS)
    assert "4 references resolve a false-positive rate of 1/5 by counting" in found["resolves"]
    assert not list(path.parent.glob("*.part"))
    assert file.beyond is None


def test_a_second_null_holds_the_numbers_of_the_other_check(path: Path) -> None:
    write_null(path, packed_both())
    file = read_null(path)
    assert file == packed_both()
    assert file.null.values == (0.3, 0.4, 0.5, 0.9, 1.2)
    source = "3 clean tunings of pocket-0 (ivlp, vpt)"
    assert file.beyond == Null(key=BEYOND, values=(-1.0, 0.5, 2.0), source=source, check="feature-collapse")
    rows = json.loads(path.read_text())["nulls"][1]["references"]
    assert [(row["number"], row["statistic"]) for row in rows] == [(0, 2.0), (2, -1.0), (3, 0.5)]
    assert [one.number for one in file.failed] == [4]
    pseudo = packed_both(pseudo_labelled=True).beyond
    assert pseudo is not None
    assert (pseudo.pseudo_labelled, pseudo.source) == (True, f"{source}, labelled by the base itself")


@pytest.mark.parametrize(("moved", "there"), [(0, False), (1, False), (2, True)])
def test_one_reference_that_changes_the_image_tower_is_no_second_null(moved: int, there: bool) -> None:
    made = [reference(number, 1.0, beyond=float(number) if number < moved else None) for number in range(3)]
    file = pack_null(made, check="c", key=KEY, base_name="b", pseudo_labelled=False, beyond=BEYOND)
    assert (file.beyond is not None) is there
    assert len(file.null.values) == 3


def test_a_file_of_format_1_is_read(path: Path) -> None:
    """As it was written before there was a second null."""
    tuned = [
        {"number": number, "family": "vpt", "class_names": ["a", "b"], "seed": 7, "accuracy": 1.0, "statistic": value}
        for number, value in enumerate((2.0, 1.0))
    ]
    null = {
        "check": "margin-residual",
        "key": {"base": "abc", "family": "prompt", "classes": [2, 3], "settings": "margin-residual:0", "probes": "some"},
        "values": [1.0, 2.0],
        "references": tuned,
        "source": "2 clean tunings of tiny (vpt)",
        "pseudo_labelled": False,
    }
    path.write_text(json.dumps({"format": 1, "clipvet": "0.1.0", "resolves": "little", "failed": [], "nulls": [null]}))
    file = read_null(path)
    assert (file.null.values, file.beyond) == ((1.0, 2.0), None)


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


def second(document: dict[str, Any]) -> Any:
    return document["nulls"][1]


DAMAGED: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda data: data[:-9], "Invalid JSON"),
    (lambda data: b"", "Invalid JSON"),
    (lambda data: b"\x80\x04\x95\x00", "Invalid JSON"),
    (lambda data: b"[" * 100_000, "Invalid JSON"),
    (lambda data: b"[1, 2]", "Input should be an object"),
    (lambda data: b'{"nulls": []}', "format: Field required"),
    (lambda data: (files("clipvet.pocket") / "assets" / "nulls.json").read_bytes(), "format: Field required"),
    (edit(lambda d: d.update(format=3)), "expected a null of format 2, found format 3: update clipvet"),
    (edit(lambda d: d.update(format=0)), "format: Input should be 1 or 2"),
    (edit(lambda d: d.update(format="1")), "format: Input should be a valid integer"),
    (edit(lambda d: d.update(more=1)), "more: Extra inputs are not permitted"),
    (edit(lambda d: d.update(nulls=[])), "nulls: Tuple should have at least 1 item"),
    (edit(lambda d: d["nulls"].append(d["nulls"][0])), "(nulls.1: no null of feature-collapse that was measured on what the first"),
    (edit(lambda d: d["nulls"].extend(2 * [d["nulls"][0]])), "nulls: Tuple should have at most 2 items"),
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


FOREIGN = "nulls.1: no null of feature-collapse that was measured on what the first one was"
DAMAGED_SECOND: list[tuple[Callable[[bytes], bytes], str]] = [
    (edit(lambda d: d.update(format=1)), "nulls: 2 of them in a file of format 1"),
    (edit(lambda d: second(d).update(check="margin-residual")), FOREIGN),
    (edit(lambda d: second(d)["key"].update(base="abd")), FOREIGN),
    (edit(lambda d: second(d)["key"].update(probes="others")), FOREIGN),
    (edit(lambda d: second(d)["key"].update(classes=[2, 4])), FOREIGN),
    (edit(lambda d: d["nulls"].reverse()), FOREIGN),
    (edit(lambda d: second(d).pop("key")), "nulls.1.key: Field required"),
    (edit(lambda d: second(d).update(values=[1.0])), "nulls.1.values: Tuple should have at least 2 items"),
    (edit(lambda d: second(d).update(values=[-1.0, 0.5, 9.0])), "nulls.1: values that are not those of its references"),
    (edit(lambda d: second(d)["references"].pop()), "nulls.1: values that are not those of its references"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGED_SECOND)
def test_a_damaged_second_null_is_one_sentence(path: Path, damage: Callable[[bytes], bytes], said: str) -> None:
    write_null(path, packed_both())
    refused(path, damage, said)


@pytest.mark.parametrize(("damage", "said"), DAMAGED)
def test_a_damaged_foreign_or_later_file_is_one_sentence(path: Path, damage: Callable[[bytes], bytes], said: str) -> None:
    refused(path, damage, said)


def refused(path: Path, damage: Callable[[bytes], bytes], said: str) -> None:
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
    ("statistic", "verdict", "above"), [(0.4, Verdict.NO_EVIDENCE, 3), (0.9, Verdict.NO_EVIDENCE, 2), (9.0, Verdict.SUSPICIOUS, 0)]
)
def test_a_verdict_counts_the_references_above(path: Path, statistic: float, verdict: Verdict, above: int) -> None:
    row = Evidence(target="cat", statistic=statistic, values={"asr": 1.0})
    judged = judge(CheckResult(check="margin-residual", statistic=statistic, evidence=(row,)), read_null(path).null, controls=1.0)
    assert (judged.verdict, judged.p) == (verdict, (1 + above) / 5)
