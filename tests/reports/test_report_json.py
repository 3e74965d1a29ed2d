from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from clipvet.errors import UnreadableError
from clipvet.reports import to_json
from clipvet.reports.schema import SCHEMA_PATH, ReportModel, from_json, json_schema
from clipvet.types import Report
from tests.reports import report_cases


def test_published_schema_is_up_to_date() -> None:
    assert SCHEMA_PATH.read_text(encoding="utf-8") == json_schema(), "run: python -m clipvet.reports.schema"


def test_every_report_validates(report: Report) -> None:
    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(to_json(report)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("verdict",), "clean"),
        (("p_value",), "0.02"),
        (("findings", 0, "severity"), 4),
        (("schema_version",), "2.0"),
        (("files", 0, "size"), None),
    ],
)
def test_schema_refuses_a_wrong_value(path: tuple[str | int, ...], value: Any) -> None:
    document = json.loads(to_json(report_cases.backdoored()))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.loads(SCHEMA_PATH.read_text(encoding="utf-8")))


def test_round_trip_is_exact(report: Report) -> None:
    text = to_json(report)
    assert from_json(text).model_dump_json(indent=2) + "\n" == text


def test_values_are_those_of_the_report() -> None:
    report = report_cases.backdoored()
    document = json.loads(to_json(report))
    assert document["schema_version"] == "1.0"
    assert document["verdict"] == "backdoored"
    assert document["p_value"] == 1 / 41  # full precision
    assert document["checks"][0]["evidence"][4]["values"]["margin"] == report.checks[0].evidence[4].values["margin"]
    assert document["checks"][0]["evidence"][4]["trigger"]["delta"] == {"shape": [3, 64, 64], "dtype": "float32"}
    assert document["findings"][0]["severity"] == "critical"
    assert document["files"][0]["sha256"] == report_cases.SHA
    assert document["coverage"] == {"done": 15, "asked": 15, "share": 1.0}
    assert document["settings"]["nested"] == {"a": [1, 2.5, None]}
    # Nothing of a report is lost but the tensors' values.
    assert set(vars(report)) <= set(document)


def test_numbers_that_json_lacks_become_null() -> None:
    report = replace(
        report_cases.inconclusive(), settings={"a": math.nan, "b": [math.inf], "c": {"d": -math.inf}, "e": np.float32("nan")}
    )
    text = to_json(report)
    assert ReportModel.model_validate(report).checks[0].statistic is None
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    assert document["checks"][0]["statistic"] is None
    assert document["checks"][0]["evidence"][0]["values"] == {"asr": None, "margin": None}
    assert document["settings"] == {"a": None, "b": [None], "c": {"d": None}, "e": None}


def test_foreign_settings_become_text() -> None:
    report = replace(
        report_cases.backdoored(),
        settings={"path": Path("a/b"), "set": {"y", "x"}, "number": np.float32(0.5), "yes": True, 3: "key"},
    )
    assert json.loads(to_json(report))["settings"] == {"path": "a/b", "set": ["x", "y"], "number": 0.5, "yes": True, "3": "key"}


def test_hostile_names_survive_as_data() -> None:
    document = json.loads(to_json(report_cases.hostile()).encode("utf-8"))
    written = [name.replace("\udcff", "\\udcff").replace("\udcfe", "\\udcfe") for name in report_cases.HOSTILE]
    assert document["delivery"]["class_names"] == written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "document: Invalid JSON"),
        ("{}", r"verdict: Field required \(and \d+ more\)"),
        ('{"schema_version": "2.0"}', "schema_version: String should match pattern"),
    ],
)
def test_what_is_no_report_is_refused(text: str, message: str) -> None:
    with pytest.raises(UnreadableError, match=message):
        from_json(text)


def test_a_later_minor_version_is_read() -> None:
    document = json.loads(to_json(report_cases.backdoored()))
    document |= {"schema_version": "1.7", "something_new": 1}
    assert from_json(json.dumps(document)).verdict == "backdoored"
