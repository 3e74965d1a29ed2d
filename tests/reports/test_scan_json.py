from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from clipvet.errors import UnreadableError
from clipvet.reports import scan_to_json, to_json
from clipvet.reports.scan_schema import SCHEMA_PATH, from_json, json_schema
from clipvet.types import Histogram, ScanReport
from tests.reports import report_cases, scan_cases

SCHEMA = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))


def test_published_schema_is_up_to_date() -> None:
    assert SCHEMA_PATH.read_text(encoding="utf-8") == json_schema(), "run: python -m clipvet.reports.scan_schema"


def test_every_report_validates(scan: ScanReport) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(scan_to_json(scan)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("verdict",), "clean"),
        (("kind",), "inspect"),
        (("schema_version",), "2.0"),
        (("suspects", 0, "rank"), "1"),
        (("counts", "unread"), {"no caption": None}),
    ],
)
def test_schema_refuses_a_wrong_value(path: tuple[str | int, ...], value: Any) -> None:
    document = json.loads(scan_to_json(scan_cases.suspicious()))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_round_trip_is_exact(scan: ScanReport) -> None:
    text = scan_to_json(scan)
    assert from_json(text).model_dump_json(indent=2) + "\n" == text


def test_values_are_those_of_the_report() -> None:
    report = scan_cases.suspicious()
    document = json.loads(scan_to_json(report))
    assert (document["schema_version"], document["kind"], document["verdict"]) == ("1.0", "scan", "suspicious")
    assert document["source"]["mapping"] == {"image": "jpg", "caption": "txt"}
    assert document["counts"]["unread"] == {"no caption": 97, "image cannot be decoded": 1900}
    assert document["coverage"] == {"done": 118_000, "asked": 120_000, "share": 118 / 120}
    assert document["groups"][0]["share"] == 798 / 118_000  # full precision
    assert document["histogram"] == {"edges": [0, 0.5, 1, 1.5, 2, 2.5, 3], "counts": [99_999, 15_821, 1000, 990, 0, 190]}
    assert [pair["key"] for pair in document["suspects"]] == [f"{place:09d}" for place in range(60)]
    assert document["suspects"][3]["neighbours"][0] == {"key": "000000004", "caption": "neighbour 1 of 3", "similarity": 0.98}
    # Nothing of a report is lost but the pictures.
    assert set(vars(report)) <= set(document)
    assert set(vars(report.suspects[0])) - set(document["suspects"][0]) == {"thumbnail"}


def test_numbers_that_json_lacks_become_null() -> None:
    report = replace(
        scan_cases.inconclusive(),
        settings={"a": math.nan, "b": [math.inf]},
        histogram=Histogram(edges=(0.0, math.inf), counts=(3,)),
    )
    document = json.loads(scan_to_json(report), parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    assert document["suspects"][0]["score"] is None
    assert document["suspects"][0]["scores"] == {"dao": None, "lid": None}
    assert document["threshold"] == {"value": None, "flag_rate": None, "text": "there are no scores"}
    assert document["settings"] == {"a": None, "b": [None]}
    assert document["histogram"]["edges"] == [0, None]


def test_hostile_names_survive_as_data() -> None:
    document = json.loads(scan_to_json(scan_cases.hostile()).encode("utf-8"))
    written = [name.replace("\udcff", "\\udcff").replace("\udcfe", "\\udcfe") for name in report_cases.HOSTILE]
    assert [pair["caption"] for pair in document["suspects"][:13]] == written
    assert document["source"]["paths"] == written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "document: Invalid JSON"),
        ("{}", r"verdict: Field required \(and \d+ more\)"),
        (to_json(report_cases.backdoored()), "kind: Input should be 'scan'"),
    ],
)
def test_what_is_no_report_of_a_scan_is_refused(text: str, message: str) -> None:
    with pytest.raises(UnreadableError, match=message):
        from_json(text)
