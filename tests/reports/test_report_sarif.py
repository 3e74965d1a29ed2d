from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from clipvet.reports import to_sarif
from clipvet.types import Evidence, Report, Severity, Verdict
from tests.reports import report_cases

SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8"))


def run_of(report: Report) -> dict[str, Any]:
    log = json.loads(to_sarif(report))
    assert len(log["runs"]) == 1
    return log["runs"][0]


def empty_members(value: Any, path: str = "") -> list[str]:
    children = value.items() if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else ()
    found = [f"{path}/{key}" for key, child in children if child in (None, "", [], {}) and child is not False]
    return found + [name for key, child in children for name in empty_members(child, f"{path}/{key}")]


def test_every_log_is_valid_and_says_nothing_empty(report: Report) -> None:
    log = json.loads(to_sarif(report))
    jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.FormatChecker()).validate(log)
    assert empty_members(log) == []
    to_sarif(report).encode("utf-8")


def test_the_schema_would_notice() -> None:
    log = json.loads(to_sarif(report_cases.backdoored()))
    log["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(jsonschema.ValidationError, match="fatal"):
        jsonschema.Draft4Validator(SCHEMA).validate(log)
    assert empty_members({"a": [{"b": ""}], "c": 0, "d": False}) == ["/a/0/b"]


def test_one_result_for_the_verdict_and_one_for_each_finding() -> None:
    run = run_of(report_cases.backdoored())
    assert [result["ruleId"] for result in run["results"]] == ["verdict/backdoored", "clip-inspector/critical", "safe-reading/low"]
    rules = run["tool"]["driver"]["rules"]
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == [result["ruleId"] for result in run["results"]]
    assert [rule["properties"]["security-severity"] for rule in rules] == ["9.5", "9.5", "2.0"]
    assert [result["level"] for result in run["results"]] == ["error", "error", "note"]
    assert {"AML.T0018.000", "AML.T0058", "AML.T0043.004", "ML06:2023", "ML07:2023", "ML10:2023"} <= set(
        rules[0]["properties"]["tags"]
    )
    assert "https://atlas.mitre.org/techniques/AML.T0018.000" in rules[1]["help"]["text"]
    uris = {result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in run["results"]}
    assert uris == {"deliveries/acme/cocoop_run"}
    assert run["artifacts"][0]["hashes"] == {"sha-256": report_cases.SHA}
    assert run["artifacts"][0]["length"] == 183456
    assert run["automationDetails"]["id"] == "clipvet/inspect/deliveries/acme/cocoop_run/"


@pytest.mark.parametrize(
    ("case", "kind", "level"),
    [
        ("no evidence", "pass", "none"),
        ("inconclusive", "fail", "warning"),
        ("suspicious", "fail", "error"),
        ("backdoored", "fail", "error"),
    ],
)
def test_level_of_each_verdict(case: str, kind: str, level: str) -> None:
    result = run_of(report_cases.CASES[case]())["results"][0]
    assert (result["kind"], result["level"]) == (kind, level)
    assert result["ruleId"] == f"verdict/{case.replace(' ', '-')}"


def test_fingerprints_stay_while_the_numbers_move() -> None:
    first = report_cases.backdoored()
    finding = first.findings[0]
    finding = replace(finding, title="12 of 40 images (30.5 %) reach bear")
    first = replace(first, findings=(finding, first.findings[1]))
    moved = replace(
        finding,
        title="13 of 40 images (32.5 %) reach bear",
        message="An additive trigger within 8/255 moves 97.1 % of the probe images to bear.",
        evidence=(replace(finding.evidence[0], statistic=7.9),),
    )
    second = replace(first, findings=(moved, first.findings[1]), p_value=0.03, seconds=3.0, started="2027-01-01T00:00:00Z")
    prints = [[result["partialFingerprints"] for result in run_of(report)["results"]] for report in (first, second)]
    assert prints[0] == prints[1]
    other = replace(first, findings=(replace(finding, evidence=(Evidence(target="dog"),)), first.findings[1]))
    assert run_of(other)["results"][1]["partialFingerprints"] != prints[0][1]


def test_equal_findings_have_fingerprints_of_their_own() -> None:
    report = report_cases.backdoored()
    prints = [
        result["partialFingerprints"]["primaryLocationLineHash"]
        for result in run_of(replace(report, findings=report.findings * 2))["results"]
    ]
    assert len(set(prints)) == 5


def test_execution_is_successful_only_where_all_was_done() -> None:
    assert run_of(report_cases.backdoored())["invocations"][0]["executionSuccessful"] is True
    assert run_of(report_cases.no_evidence())["invocations"][0]["executionSuccessful"] is True
    report = report_cases.no_evidence()
    assert run_of(replace(report, errors=("broken",)))["invocations"][0]["executionSuccessful"] is False
    assert run_of(replace(report, coverage=replace(report.coverage, done=3)))["invocations"][0]["executionSuccessful"] is False
    unsure = replace(report, verdict=Verdict.INCONCLUSIVE)
    assert run_of(unsure)["invocations"][0]["executionSuccessful"] is False
    invocation = run_of(report_cases.inconclusive())["invocations"][0]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 3)
    texts = [note["message"]["text"] for note in invocation["toolExecutionNotifications"]]
    assert texts[:2] == ["probe image 17.png cannot be decoded", "Coverage: 9 of 15."]
    assert "Skipped: blend triggers: the budget of 10 minutes was spent" in texts


def test_paths_become_uri_references() -> None:
    report = report_cases.backdoored()
    for path, uri in [("/data/a b.pt", "file:///data/a%20b.pt"), ("a/ü\udcff.pt", "a/%C3%BC%FF.pt"), ("a?b#c", "a%3Fb%23c")]:
        found = run_of(replace(report, delivery=replace(report.delivery, path=path)))["results"][0]
        assert found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_severities_of_one_check_are_rules_of_their_own() -> None:
    report = report_cases.backdoored()
    twin = replace(report.findings[0], severity=Severity.INFO, atlas=(), owasp=())
    rules = run_of(replace(report, findings=(report.findings[0], twin)))["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["verdict/backdoored", "clip-inspector/critical", "clip-inspector/info"]
