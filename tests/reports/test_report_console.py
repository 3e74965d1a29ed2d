from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from clipvet.reports import to_console, view
from clipvet.types import CheckResult, Evidence, Report
from tests.reports import report_cases


def text_of(report: Report, width: int = 80, **options: object) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(to_console(report))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 60, 120])
def test_lines_fit_and_carry_no_control_characters(report: Report, width: int) -> None:
    text = text_of(report, width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert not [char for char in text if char < " " and char != "\n"]
    assert "\u202e" not in text and "\u200b" not in text


def test_verdict_comes_first_and_needs_no_colour(report: Report) -> None:
    lines = text_of(report).splitlines()
    assert f"VERDICT: {report.verdict.value.upper()}" in lines[1]
    coloured = text_of(report, force_terminal=True, color_system="truecolor")
    assert "\x1b[" in coloured


def test_numbers_of_the_strongest_target() -> None:
    lines = text_of(report_cases.backdoored()).splitlines()
    row = next(line for line in lines if line.strip().startswith("» bear"))
    assert row.split() == ["»", "bear", "additive", "8.75", "12.88", "1.08", "98.5", "%", "40/40"]
    assert sum(line.strip().startswith("»") for line in lines) == 2  # the row and the line that explains the mark
    # wolf: 1.3 * sin(1.7 * 12) = 1.297; the lowest references are 1.147 and 1.169
    assert "1.30" in next(line for line in lines if line.strip().startswith("wolf"))


def test_everything_a_reader_needs_is_there() -> None:
    report = report_cases.backdoored()
    text = " ".join(text_of(report).split())
    for words in (
        "p = 0.0244; 40 reference deliveries",
        "clip-inspector: 15 targets searched; trigger kinds additive, patch",
        "[critical] A trigger moves probe images to bear",
        "Next: Look at the reconstructed trigger",
        "AML.T0018.000",
        "ML10:2023",
        "whole-model comparison: CoCoOp files hold no image tower",
        f"sha256 {report_cases.SHA}",
        "named but not run: torch.optim.sgd.SGD",
        "exit code 1: a verdict at or above the --fail-on level",
        "7 more in the JSON and HTML reports.",
    ):
        assert words in text, words


def test_uncalibrated_and_unmeasured_are_said() -> None:
    assert "Uncalibrated: no null fits this delivery" in " ".join(text_of(report_cases.suspicious()).split())
    text = text_of(report_cases.inconclusive())
    assert "Not measured for any of 15 targets." in text
    assert "the budget of 10 minutes was spent" in text
    bare = replace(report_cases.no_evidence(), checks=())
    assert "No check ran." in text_of(bare)


def test_markup_in_names_is_text() -> None:
    assert "[bold red]markup[/bold red]" in text_of(report_cases.hostile())


def test_no_verdict_claims_more_than_was_found(report: Report) -> None:
    words = text_of(replace(report, summary="")).lower()
    assert "is clean" not in words and "safe to" not in words


def test_a_check_that_knows_no_classes_says_so_and_leaves_the_first_check_its_own_null() -> None:
    report = report_cases.backdoored()
    beside = CheckResult(
        check="feature-collapse",
        statistic=12.88,
        evidence=(Evidence(target="cat", target_kind="feature", trigger_kind="additive", statistic=12.88),),
    )
    main = replace(report.nulls[0], check=report.checks[0].check)
    other = replace(report.nulls[0], check=beside.check)
    shown = text_of(replace(report, checks=(*report.checks, beside), nulls=(main, other)))
    assert "feature-collapse: one place in feature space searched, whatever its class; trigger kinds additive" in " ".join(
        shown.split()
    )
    assert f"{len(main.values)} reference deliveries with nothing planted" in " ".join(shown.split())


def test_triggers_are_shown_check_by_check_whatever_the_units_of_their_statistics() -> None:
    report = report_cases.backdoored()
    shown = view.shown_rows(report)
    trigger = shown[0][2].trigger
    beside = CheckResult(
        check="feature-collapse",
        statistic=900.0,
        evidence=(Evidence(target="cat", target_kind="feature", statistic=900.0, trigger=trigger),),
    )
    both = view.shown_rows(replace(report, checks=(*report.checks, beside)))
    assert [name for name, _, _ in both] == [name for name, _, _ in shown] + ["feature-collapse"]
