"""The summary of several inspections in every format, with hostile names among them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from clipvet.errors import UnreadableError
from clipvet.reports import many_console, many_html, many_sarif, many_schema, to_sarif
from clipvet.reports.many_files import write_many_report
from clipvet.reports.many_view import counts, row_of, shared_folder
from clipvet.types import Coverage, ManyReport, ManyRow, Report, Skipped
from tests.reports import report_cases
from tests.reports.page import Page

SARIF = json.loads((Path(__file__).parents[1] / "data" / "sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8"))
REPORTS = [make() for make in report_cases.CASES.values()]


def row(report: Report) -> ManyRow:
    return row_of(report, delivery=report.delivery.path, page="a b#/report.html", seconds=2.0)


def many(*reports: Report, **changed: Any) -> ManyReport:
    rows = (*map(row, reports), ManyRow(delivery="[b]cut\x1b[2J.pt", error="[b]cut\x1b[2J.pt: it is <b>cut off</b>", seconds=0.5))
    coverage = Coverage(done=len(reports), asked=len(rows))
    passed = (Skipped(what="<i>notes.txt", why="its name is not that of a checkpoint"),)
    return replace(ManyReport(rows=rows, passed_over=passed, coverage=coverage, exit_code=1, started="2026-11-21"), **changed)


def shown(report: ManyReport, width: int = 80) -> str:
    console = Console(width=width, force_terminal=False, highlight=False)
    with console.capture() as capture:
        console.print(many_console.to_console(report))
    return capture.get()


def test_published_schema_is_up_to_date() -> None:
    assert many_schema.SCHEMA_PATH.read_text(encoding="utf-8") == many_schema.json_schema(), (
        "run: python -m clipvet.reports.many_schema"
    )


def test_json_validates_and_reads_back() -> None:
    text = many_schema.to_json(many(*REPORTS))
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    jsonschema.validate(document, json.loads(many_schema.SCHEMA_PATH.read_text(encoding="utf-8")))
    assert many_schema.from_json(text).model_dump_json(indent=2) + "\n" == text
    with pytest.raises(UnreadableError, match=r"exit_code: Field required \(and 7 more\)"):
        many_schema.from_json("{}")


def test_a_row_says_what_its_report_says() -> None:
    report = report_cases.backdoored()
    found = row(report)
    assert (found.verdict, found.target, found.family, found.base) == (report.verdict, "bear", "CoCoOp", "pocket-1")
    assert (found.check, found.statistic, found.threshold) == ("clip-inspector", 8.75, 4.5)
    assert (found.p_value, found.calibrated, found.exit_code, found.seconds) == (1 / 41, True, 1, 2.0)
    unsure = row(report_cases.inconclusive())
    assert unsure.statistic is not None and math.isnan(unsure.statistic)
    assert unsure.error == "probe image 17.png cannot be decoded"
    bare = row(replace(report, checks=(), thresholds={}))
    assert (bare.check, bare.statistic, bare.threshold) == ("", None, None)


@pytest.mark.parametrize(
    ("paths", "folder"),
    [
        (("in/a.pt", "in/b/c.pt"), "in/"),
        (("/in/a/x.pt", "/in/a/y.pt"), "/in/a/"),
        (("in/a.pt", "out/b.pt"), ""),
        (("/in/a.pt", "b.pt"), ""),
        (("a.pt", "b.pt"), ""),
        (("in/a.pt",), ""),
    ],
)
def test_the_folder_of_all_is_said_once(paths: tuple[str, ...], folder: str) -> None:
    report = many(rows=tuple(ManyRow(delivery=path, error="cut off") for path in paths))
    assert shared_folder(report) == folder
    text = shown(report)
    assert ("all in" in text) is bool(folder)
    lines = text.split("Errors")[0].splitlines()
    assert all(any(line.strip().startswith(path.removeprefix(folder)) for line in lines) for path in paths)


def test_verdicts_are_counted_the_gravest_first() -> None:
    reports = [report_cases.no_evidence(), report_cases.backdoored(), report_cases.no_evidence(), report_cases.suspicious()]
    assert list(counts(many(*reports)).items()) == [("backdoored", 1), ("suspicious", 1), ("no evidence", 2), ("not inspected", 1)]


def test_the_console_fits_80_columns_and_shows_no_control_character() -> None:
    text = shown(many(*REPORTS))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "6 deliveries: 2 backdoored, 1 suspicious, 1 inconclusive, 1 no evidence, 1 not inspected." in " ".join(text.split())
    assert "8.75 / 4.50" in text and "uncalibrated" in text
    assert "[b]cut\\x1b[2J.pt: it is <b>cut off</b>" in text


def test_the_page_is_well_formed_and_stands_alone() -> None:
    text = many_html.to_html(many(*REPORTS))
    page = Page(text)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "img", "b", "i"}
    assert page.attributes("href") == ["a%20b%23/report.html"] * len(REPORTS)
    assert "default-src 'none'" in "".join(page.attributes("content"))
    assert "8.75 / 4.50" in page.text and "\x1b" not in text
    text.encode("utf-8")


def test_sarif_is_one_valid_run_with_the_results_of_all() -> None:
    report = many(*REPORTS)
    logs = [to_sarif(single) for single in REPORTS]
    log = json.loads(many_sarif.to_sarif(report, logs))
    jsonschema.Draft4Validator(SARIF, format_checker=jsonschema.FormatChecker()).validate(log)
    (run,) = log["runs"]
    wanted = [result for text in logs for result in json.loads(text)["runs"][0]["results"]]
    assert [result["ruleId"] for result in run["results"]] == [result["ruleId"] for result in wanted]
    rules = run["tool"]["driver"]["rules"]
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == [result["ruleId"] for result in run["results"]]
    assert len({rule["id"] for rule in rules}) == len(rules)
    prints = [result["partialFingerprints"] for result in run["results"]]
    assert prints == [result["partialFingerprints"] for result in wanted]


@pytest.mark.parametrize(("missing", "sure"), [(False, True), (True, True), (False, False)])
def test_a_run_is_successful_only_where_every_delivery_was_inspected(missing: bool, sure: bool) -> None:
    single = report_cases.no_evidence() if sure else report_cases.inconclusive()
    report = many(single)
    report = report if missing else replace(report, rows=report.rows[:1], coverage=Coverage(done=1, asked=1))
    (invocation,) = json.loads(many_sarif.to_sarif(report, [to_sarif(single)]))["runs"][0]["invocations"]
    assert invocation["executionSuccessful"] is (sure and not missing)
    errors = [note["message"]["text"] for note in invocation["toolExecutionNotifications"] if note["level"] == "error"]
    assert any("it is <b>cut off</b>" in text for text in errors) is missing


def test_every_format_is_written(tmp_path: Path) -> None:
    paths = write_many_report(many(), [], tmp_path / "new")
    assert [path.name for path in paths] == ["summary.html", "summary.json", "summary.sarif"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["summary.html", "summary.json", "summary.sarif"]
