from __future__ import annotations

import html
import io
import json
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from clipvet.reports import scan_to_console, scan_to_html, scan_to_json, scan_to_sarif
from clipvet.reports.scan_schema import from_json
from clipvet.types import ModelRecord, ScanReport
from tests.reports import scan_cases


def text_of(report: ScanReport, width: int = 80, **options: object) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(scan_to_console(report))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 60, 120])
def test_lines_fit_and_carry_no_control_characters(scan: ScanReport, width: int) -> None:
    text = text_of(scan, width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert not [char for char in text if char < " " and char != "\n"]
    assert "\u202e" not in text and "\u200b" not in text


def test_verdict_comes_first_and_needs_no_colour(scan: ScanReport) -> None:
    assert f"VERDICT: {scan.verdict.value.upper()}" in text_of(scan).splitlines()[1]
    assert "\x1b[" in text_of(scan, force_terminal=True, color_system="truecolor")


def test_everything_a_reader_needs_is_there() -> None:
    text = " ".join(text_of(scan_cases.suspicious()).split())
    for words in (
        "1,180 of 118,000 pairs flagged; 2 groups",
        "! k = 16 does not exceed the 20 poisoned pairs",
        "118,000 of 120,000 pairs scored and ranked by dao.",
        "For comparison only: k-distance.",
        "Reference: a random sample of the scanned pairs; 20,000 pairs, k = 16.",
        "Features: made by pocket-0.",
        "Threshold 1.50, flag rate 1 %: at most a share of 0.01 of all pairs is flagged, because the threshold is that quantile.",
        # 798 / 118,000 = 0.6763 %
        "1. birthday cake with candles 798 pairs, 0.676 % of the data; mean score 2.25.",
        "Alike: every word of the caption; all say just this.",
        "image cannot be decoded: 1,900 (00002.tar: 000020007: truncated after 1,024 bytes)",
        "no caption: 97",
        "3 pairs: the scorer returned no number",
        "out/drop.txt",
        "coverage 118,000 of 120,000; 3 read but not scored; 1 h 2 min; exit code 1",
    ):
        assert words in text, words
    assert text.index("image cannot be decoded") < text.index("no caption: 97")


def test_a_trusted_model_is_named_with_what_it_is_for() -> None:
    report = replace(scan_cases.suspicious(), trusted_model=ModelRecord(name="pocket-1", sha256="ab"))
    line = "Trusted model: pocket-1; clip-gap is high where it finds image and caption less alike than the model above does."
    assert line in " ".join(text_of(report).split())
    assert line in html.unescape(scan_to_html(report))
    assert line in json.loads(scan_to_sarif(report))["runs"][0]["results"][0]["message"]["text"]
    found = json.loads(scan_to_json(report))
    assert (found["model"]["name"], found["trusted_model"]["name"]) == ("pocket-0", "pocket-1")
    assert "Trusted model" not in text_of(scan_cases.suspicious())


def test_reports_of_before_there_were_trusted_models_are_read() -> None:
    document = json.loads(scan_to_json(scan_cases.suspicious()))
    del document["trusted_model"]
    assert from_json(json.dumps(document)).trusted_model is None


def test_worst_pairs_stand_in_the_order_of_their_ranks() -> None:
    report = scan_cases.suspicious()
    lines = text_of(replace(report, suspects=report.suspects[::-1])).splitlines()
    start = next(place for place, line in enumerate(lines) if "Worst pairs by dao" in line) + 3
    rows = [line.split() for line in lines[start : start + 8]]
    assert rows[0] == ["1", "3.00", "1", "000000000", *scan_cases.CAKE.split()]
    assert rows[2] == ["3", "2.96", "000000002", *scan_cases.CAKE.split()]  # of no group
    assert [row[0] for row in rows] == [str(rank) for rank in range(1, 9)]
    assert "52 more in the JSON and HTML reports." in lines[start + 8]


def test_what_could_not_be_done_is_said() -> None:
    text = " ".join(text_of(scan_cases.inconclusive()).split())
    for words in (
        "0 of 12 pairs scored",
        "No threshold was set",
        "not measured",
        "00001.tar ends in the middle",
        "no caption: 10",
        "2 read but not scored",
        "exit code 3",
    ):
        assert words in text, words


def test_long_lists_are_cut_and_the_rest_is_counted() -> None:
    text = text_of(replace(scan_cases.suspicious(), groups=scan_cases.groups() * 6, written=("out/drop.txt",) * 1500))
    assert text.count("of the data") == 8 and "4 more in the JSON and HTML reports." in text
    assert text.count("out/drop.txt") == 8 and "1,492 more in the JSON and HTML reports." in text


def test_markup_in_names_is_text() -> None:
    assert "[bold red]markup" in text_of(scan_cases.hostile())


def test_no_verdict_claims_more_than_was_found(scan: ScanReport) -> None:
    words = text_of(scan).lower()
    assert "clean" not in words and "safe" not in words
