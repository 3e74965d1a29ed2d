from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from clipvet.reports import scan_to_sarif
from clipvet.types import ScanReport, Threshold, Verdict
from tests.reports import scan_cases
from tests.reports.test_report_sarif import SCHEMA, empty_members


def run_of(report: ScanReport) -> dict[str, Any]:
    log = json.loads(scan_to_sarif(report))
    assert len(log["runs"]) == 1
    return log["runs"][0]


def test_every_log_is_valid_and_says_nothing_empty(scan: ScanReport) -> None:
    log = json.loads(scan_to_sarif(scan), parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.FormatChecker()).validate(log)
    assert empty_members(log) == []
    scan_to_sarif(scan).encode("utf-8")


def test_one_result_for_the_scan_and_one_for_each_group_but_none_for_a_pair() -> None:
    report = scan_cases.suspicious()
    assert (len(report.suspects), len(report.groups)) == (60, 2)
    run = run_of(report)
    results = run["results"]
    assert [result["ruleId"] for result in results] == ["verdict/suspicious", *["suspicious-group/medium"] * 2]
    assert [result["level"] for result in results] == ["error", "warning", "warning"]
    assert results[1]["message"]["text"].startswith(f"Suspicious group: {scan_cases.CAKE}\n798 pairs, 0.676 % of the data")
    assert "118,000 of 120,000 pairs scored and ranked by dao." in results[0]["message"]["text"]
    rules = run["tool"]["driver"]["rules"]
    assert [rules[result["ruleIndex"]]["id"] for result in results] == [result["ruleId"] for result in results]
    assert {"AML.T0020", "AML.T0019", "ML02:2023"} <= set(rules[0]["properties"]["tags"])
    assert run["automationDetails"]["id"] == "clipvet/scan/data/cc3m/%7B00000..00011%7D.tar/"
    assert run["properties"] == {"verdict": "suspicious", "scorer": "dao", "pairs": 120000, "scored": 118000, "flagged": 1180}


def test_no_evidence_is_a_pass_and_names_no_attack() -> None:
    run = run_of(scan_cases.no_evidence())
    assert [(result["kind"], result["level"]) for result in run["results"]] == [("pass", "none")]
    assert run["tool"]["driver"]["rules"][0]["properties"]["tags"] == ["security", "backdoor"]
    assert run["invocations"][0]["executionSuccessful"] is True


def test_what_was_left_out_is_notified() -> None:
    invocation = run_of(scan_cases.suspicious())["invocations"][0]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 1)
    notes = [(note["level"], note["message"]["text"]) for note in invocation["toolExecutionNotifications"]]
    assert notes == [
        ("warning", "Coverage: 118000 of 120000."),
        ("warning", "k = 16 does not exceed the 20 poisoned pairs that a rate of 0.1 % puts into the reference."),
        ("warning", "Not read: image cannot be decoded: 1,900"),
        ("warning", "Not read: no caption: 97"),
        ("note", "Skipped: 3 pairs: the scorer returned no number"),
    ]
    failed = run_of(scan_cases.inconclusive())
    assert failed["invocations"][0]["executionSuccessful"] is False
    assert failed["results"][0]["kind"] == "fail"
    whole = replace(scan_cases.no_evidence(), verdict=Verdict.INCONCLUSIVE)
    assert run_of(whole)["invocations"][0]["executionSuccessful"] is False


def test_fingerprints_stay_while_numbers_and_order_change() -> None:
    first = scan_cases.suspicious()
    moved = tuple(
        replace(group, number=3 - group.number, size=group.size + 7, share=0.5, mean_score=9.0, keys=("x",))
        for group in reversed(first.groups)
    )
    second = replace(first, groups=moved, counts=replace(first.counts, flagged=9), started="2027-01-01T00:00:00Z")
    prints = [
        [result["partialFingerprints"]["clipvetFinding/v1"] for result in run_of(report)["results"]] for report in (first, second)
    ]
    assert prints[0] == [prints[1][0], prints[1][2], prints[1][1]]
    assert len(set(prints[0])) == 3


def test_groups_with_one_caption_have_fingerprints_of_their_own() -> None:
    report = scan_cases.suspicious()
    results = run_of(replace(report, groups=(report.groups[0],) * 3))["results"]
    assert len({result["partialFingerprints"]["clipvetFinding/v1"] for result in results}) == 4


def test_a_missing_threshold_is_said() -> None:
    for threshold in (None, Threshold(value=math.nan, flag_rate=math.nan, text="x")):
        text = run_of(replace(scan_cases.suspicious(), threshold=threshold))["results"][0]["message"]["text"]
        assert "No threshold was set: pairs are ranked, none is flagged." in text
