from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import pytest
from PIL import Image

from clipvet.reports import to_html
from clipvet.types import Report
from tests.reports import report_cases
from tests.reports.page import Page


def test_page_is_well_formed_and_stands_alone(report: Report) -> None:
    text = to_html(report)
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
    assert not [
        name for _, attrs in page.elements for name in attrs if name.startswith("on") or name in {"href", "srcset", "action"}
    ]
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes("src"))
    assert "url(" not in text and "@import" not in text
    assert "default-src 'none'" in "".join(page.attributes("content"))
    text.encode("utf-8")


def test_hostile_names_are_shown_and_make_no_elements() -> None:
    hostile, tame = Page(to_html(report_cases.hostile())), Page(to_html(report_cases.backdoored()))
    assert {tag for tag, _ in hostile.elements} <= {tag for tag, _ in tame.elements}
    unchanged = [name for name in report_cases.HOSTILE if name.isprintable() and name.strip() and "\u200d" not in name]
    assert len(unchanged) == 6
    for shown in (*unchanged, "русский 猫 🐱\u200d👤 é"):
        assert shown in hostile.text
    for spelled in ("\\x1b[31mred\\x1b[0m\\x07", "\\u202egnp.exe", "\\udcff\\udcfe undecodable", "line\\nbreak\\ttab"):
        assert spelled in hostile.text
    assert "\x1b" not in hostile.text and "\u202e" not in hostile.text


def test_verdict_stands_on_top(report: Report) -> None:
    page = Page(to_html(report))
    verdict = report.verdict.value[0].upper() + report.verdict.value[1:]
    assert [tag for tag, _ in page.elements].index("h1") < [tag for tag, _ in page.elements].index("h2")
    assert verdict in page.text[:400]
    assert page.text.index("What to do next") < page.text.index("What was tried")


def test_numbers_are_those_of_the_report() -> None:
    report = report_cases.backdoored()
    page = Page(to_html(report))
    rows = {(row[0], row[1]): row[2:] for row in page.rows if len(row) == 8}
    null = report.nulls[0].values
    for row in report.checks[0].evidence:
        marked = f"▲ {row.target}" if row.statistic >= 4.5 else row.target
        shown = rows[(marked, row.trigger_kind)]
        expected = [row.statistic, row.values["margin"], row.values["baseline_margin"]]
        assert [float(cell.replace("−", "-")) for cell in shown[:3]] == pytest.approx(expected, abs=0.006)
        assert shown[3] == f"{round(100 * row.values['asr'], 1)} %"
        assert shown[5] == f"{len([value for value in null if value < row.statistic])}/40"
    for words in (
        report_cases.SHA,
        "183.5 kB",
        "torch.optim.sgd.SGD",
        "2.13.0",
        "p = 0.0244",
        "15 of 15",
        "1 min 15 s",
        "pictures-1000",
    ):
        assert words in page.text, words
    for words in (
        "AML.T0043.004",
        "https://atlas.mitre.org/techniques/AML.T0058",
        "ML07:2023",
        "OWASP ML: Transfer Learning Attack",
    ):
        assert words in page.text, words


def test_chart_has_the_null_and_the_threshold_on_one_axis() -> None:
    report = report_cases.backdoored()
    text = to_html(report)
    page = Page(text)
    assert sum(tag == "circle" for tag, _ in page.elements) == 40
    bars = [attrs for tag, attrs in page.elements if tag == "rect"]
    assert len(bars) == 15
    zero = next(float(attrs["x1"]) for tag, attrs in page.elements if attrs.get("class") == "zero")
    limit = next(float(attrs["x1"]) for tag, attrs in page.elements if attrs.get("class") == "limit")
    # Worked by hand: the statistic 8.75 is drawn 8.75 / 4.5 times as far from zero as the threshold 4.5.
    assert float(bars[0]["width"]) / (limit - zero) == pytest.approx(8.75 / 4.5, rel=1e-3)
    low, high = min(float(attrs["x"]) for attrs in bars), max(float(attrs["x"]) + float(attrs["width"]) for attrs in bars)
    assert low == pytest.approx(200, abs=0.01) and high == pytest.approx(690, abs=0.01)
    assert "The highest statistic is 8.75, for bear; 40/40 reference deliveries lie below it" in page.text


def test_pictures_are_described_and_few() -> None:
    page = Page(to_html(report_cases.many()))
    pictures = [attrs for tag, attrs in page.elements if tag == "img"]
    assert 0 < len(pictures) <= 8
    for attrs in pictures:
        assert len(attrs["alt"] or "") > 40
        Image.open(io.BytesIO(base64.b64decode((attrs["src"] or "").split(",")[1]))).verify()


def test_long_lists_stay_usable() -> None:
    text = to_html(report_cases.many())
    page = Page(text)
    assert len([row for row in page.rows if len(row) == 8]) - 2 == 2000  # two headings
    assert sum(tag == "rect" for tag, _ in page.elements) == 50
    assert "The other 1950 rows" in page.text
    assert len(text) < 2_000_000


def test_what_was_not_done_is_said() -> None:
    page = Page(to_html(report_cases.inconclusive()))
    for words in (
        "the budget of 10 minutes was spent",
        "probe image 17.png cannot be decoded",
        "9 of 15",
        "not measured",
        "reconstructed ASR 12.0 %",
    ):
        assert words in page.text, words
    assert not [tag for tag, _ in page.elements if tag in {"svg", "img"}]
    assert "Uncalibrated: no null fits" in Page(to_html(report_cases.suspicious())).text


def test_no_verdict_claims_more_than_was_found(report: Report) -> None:
    text = Page(to_html(replace(report, summary=""))).text
    assert not re.search(r"\b(clean|safe|harmless|benign)\b", text.replace("safe-reading", ""), re.IGNORECASE)
