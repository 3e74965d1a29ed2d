from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from clipvet.reports import scan_to_html
from clipvet.reports.histogram import histogram_of
from clipvet.types import Histogram, ScanReport, Threshold
from tests.reports import report_cases, scan_cases
from tests.reports.page import Page


def test_page_is_well_formed_and_stands_alone(scan: ScanReport) -> None:
    text = scan_to_html(replace(scan, written=("out/gallery.html",)))
    page = Page(text)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on") or name in {"srcset", "action"}]
    assert page.attributes("href") == ["gallery.html"]
    assert all(re.match(r"data:image/(png|jpeg|webp);base64,", source) for source in page.attributes("src"))
    assert "url(" not in text and "@import" not in text
    assert "default-src 'none'" in "".join(page.attributes("content"))
    text.encode("utf-8")


def test_hostile_names_are_shown_and_make_no_elements() -> None:
    hostile, tame = Page(scan_to_html(scan_cases.hostile())), Page(scan_to_html(scan_cases.suspicious()))
    assert {tag for tag, _ in hostile.elements} <= {tag for tag, _ in tame.elements}
    for shown in (
        *report_cases.HOSTILE[:4],
        "\\x1b[31mred\\x1b[0m\\x07",
        "\\u202egnp.exe",
        "line\\nbreak\\ttab",
        "]]></script><!--",
    ):
        assert shown in hostile.text, shown
    assert not [char for char in hostile.text if char < " " or char == "\u202e"]


def test_everything_a_reader_needs_is_there() -> None:
    page = Page(scan_to_html(scan_cases.suspicious()))
    for words in (
        "1,180 of 118,000 pairs flagged; 2 groups",
        "Not read 1,997",  # 97 + 1,900
        "Coverage 118,000 of 120,000",
        "k = 16 does not exceed the 20 poisoned pairs",
        "image cannot be decoded : 1,900 00002.tar: 000020007: truncated after 1,024 bytes",
        "Group 1: birthday cake with candles",
        "798 pairs, 0.676 % of the data; mean score 2.25.",
        "Threshold 1.50, flag rate 1 %",
        report_cases.SHA,
        "7.3 MB",
        "has no _stats.json",
        "image from jpg",
        "AML.T0020",
        "1 h 2 min",
        "out/scores/00000.parquet",
    ):
        assert words in page.text, words
    assert "Group" not in Page(scan_to_html(scan_cases.no_evidence())).text


def test_table_has_the_worst_fifty_by_rank() -> None:
    report = scan_cases.suspicious()
    page = Page(scan_to_html(replace(report, suspects=report.suspects[::-1])))
    assert page.rows[0] == ["rank", "dao", "k-distance", "group", "key", "shard", "caption"]
    assert len(page.rows) == 51
    for row, pair in zip(page.rows[1:], report.suspects, strict=False):
        group = [] if pair.group is None else [str(pair.group)]
        assert row[:1] + row[3:] == [str(pair.rank), *group, pair.caption]
        assert [float(cell) for cell in row[1:3]] == pytest.approx([pair.score, pair.scores["k-distance"]], abs=0.006)
    assert "000000049" in page.text and "000000050" not in page.text


def test_group_shows_pictures_of_its_worst_members_alone() -> None:
    report = scan_cases.suspicious()
    members = [pair for pair in report.suspects if pair.group is not None]
    page = Page(scan_to_html(report))
    alts = [attrs["alt"] for tag, attrs in page.elements if tag == "img"]
    expected = [f"Picture of {pair.key}" for number in (1, 2) for pair in [one for one in members if one.group == number][:8]]
    assert alts == expected


def test_gallery_is_linked_only_where_it_was_written() -> None:
    report = scan_cases.suspicious()
    assert "Open the gallery" not in Page(scan_to_html(report)).text
    assert "Open the gallery" in Page(scan_to_html(replace(report, written=("a/b/gallery.html",)))).text


def test_histogram_has_scores_and_the_threshold_on_one_axis() -> None:
    page = Page(scan_to_html(scan_cases.suspicious()))
    bars = [attrs for tag, attrs in page.elements if tag == "rect"]
    assert len(bars) == 5  # of six bins, one is empty
    # Worked by hand: the plot reaches from x = 60 to 740 for scores 0 to 3, and from y = 214 up to 26 for 0 to 99,999 pairs.
    assert [float(bar["x"]) for bar in bars] == pytest.approx([60 + 680 * start / 3 for start in (0, 0.5, 1, 1.5, 2.5)], abs=0.01)
    heights = [188 * math.log10(1 + count) / 5 for count in (99_999, 15_821, 1000, 990, 190)]
    assert [float(bar["height"]) for bar in bars] == pytest.approx(heights, abs=0.01)
    assert [float(bar["y"]) + float(bar["height"]) for bar in bars] == pytest.approx([214] * 5, abs=0.01)
    limit = next(attrs for _, attrs in page.elements if attrs.get("class") == "limit")
    assert float(limit["x1"]) == pytest.approx(400)  # 1.5 is the middle
    assert [attrs.get("class") for tag, attrs in page.elements if tag == "g"] == [None, None, None, "above", "above"]
    assert "118,000 scores from 0.00 to 3.00; 1,180 reach the threshold of 1.50." in page.text
    assert "990 pairs from 1.50 to 2.00" in page.text


@pytest.mark.parametrize(
    ("edges", "counts"),
    [
        ((0.0, 1.0), (0,)),
        ((0.0, 1.0), ()),
        ((), ()),
        ((0.0, 0.0, 1.0), (1, 1)),
        ((1.0, 0.0), (1,)),
        ((0.0, math.inf), (1,)),
        ((0.0, math.nan), (1,)),
        ((-1e308, 0.0, 1e308), (1, 1)),
        ((0.0, 1.0, 2.0), (5, -1)),
    ],
)
def test_a_histogram_that_cannot_be_drawn_is_left_out(edges: tuple[float, ...], counts: tuple[int, ...]) -> None:
    report = replace(scan_cases.suspicious(), histogram=Histogram(edges=edges, counts=counts))
    assert not [tag for tag, _ in Page(scan_to_html(report)).elements if tag == "svg"]


def test_threshold_beyond_all_scores_is_drawn_inside() -> None:
    report = scan_cases.suspicious()
    for value, x, anchor in ((5.0, 740, "end"), (-1.0, 60, "start")):
        chart = histogram_of(replace(report, threshold=Threshold(value=value, flag_rate=0.01, text="")))
        assert chart is not None and (chart.threshold, chart.anchor) == (x, anchor)
    chart = histogram_of(replace(report, threshold=None))
    assert chart is not None and chart.threshold is None and not any(column.above for column in chart.columns)


def test_what_was_not_done_is_said() -> None:
    page = Page(scan_to_html(scan_cases.inconclusive()))
    for words in ("00001.tar ends in the middle of a member", "0 of 12", "not measured", "no caption : 10", "No threshold was set"):
        assert words in page.text, words
    assert not [tag for tag, _ in page.elements if tag == "svg"]


def test_long_lists_of_paths_are_cut() -> None:
    report = scan_cases.suspicious()
    paths = tuple(f"shard-{place}.tar" for place in range(1500))
    written = tuple(f"scores-{place}.parquet" for place in range(1500))
    page = Page(scan_to_html(replace(report, source=replace(report.source, paths=paths), written=written)))
    assert "shard-19.tar and 1,480 more" in page.text and "shard-20.tar" not in page.text
    assert "shard-0.tar and 1,499 more" in page.text
    assert "scores-19.parquet and 1,480 more" in page.text and "scores-20.parquet" not in page.text


def test_a_scorer_without_neighbours_has_no_k() -> None:
    report = scan_cases.suspicious()
    page = Page(scan_to_html(replace(report, reference=replace(report.reference, k=0))))
    assert "a random sample of the scanned pairs; 20,000 pairs." in page.text


def test_no_verdict_claims_more_than_was_found(scan: ScanReport) -> None:
    assert not re.search(r"\b(clean|safe|harmless|benign)\b", Page(scan_to_html(scan)).text, re.IGNORECASE)
