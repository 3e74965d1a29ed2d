from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace

import pytest
from PIL import Image

from clipvet.reports import scan_to_gallery
from clipvet.reports.thumbnails import data_uri
from clipvet.types import ScanReport
from tests.reports import report_cases, scan_cases
from tests.reports.page import Page


def data_of(page: Page) -> dict[str, object]:
    return json.loads(page.scripts[0])


def test_page_is_well_formed_and_stands_alone(scan: ScanReport) -> None:
    text = scan_to_gallery(scan)
    page = Page(text)
    assert not {tag for tag, _ in page.elements} & {"link", "iframe", "object", "embed", "base", "form", "a"}
    assert not [
        name for _, attrs in page.elements for name in attrs if name.startswith("on") or name in {"href", "srcset", "action"}
    ]
    assert all(re.match(r"data:image/(png|jpeg|webp);base64,", source) for source in page.attributes("src"))
    assert "url(" not in text and "@import" not in text
    text.encode("utf-8")


def test_only_the_fixed_script_may_run(scan: ScanReport) -> None:
    page = Page(scan_to_gallery(scan))
    assert [attrs.get("type") for tag, attrs in page.elements if tag == "script"] == ["application/json", "module"]
    policy = next(attrs["content"] for _, attrs in page.elements if attrs.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
    assert page.scripts[1] == Page(scan_to_gallery(scan_cases.suspicious())).scripts[1]


def test_script_makes_no_elements_from_data_and_finds_what_it_names() -> None:
    page = Page(scan_to_gallery(scan_cases.suspicious()))
    script = page.scripts[1]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|fetch|XMLHttp|import", script)
    ids = set(re.findall(r'(?:getElementById|byId)\("(\w+)"\)', script))
    assert ids == {"data", "filter", "download", "counter", "notice", "nothing"} <= set(page.attributes("id"))


def test_hostile_names_are_shown_and_make_no_elements() -> None:
    text = scan_to_gallery(scan_cases.hostile())
    hostile, tame = Page(text), Page(scan_to_gallery(scan_cases.suspicious()))
    assert {tag for tag, _ in hostile.elements} <= {tag for tag, _ in tame.elements}
    for shown in (
        *report_cases.HOSTILE[:4],
        "\\x1b[31mred\\x1b[0m\\x07",
        "\\u202egnp.exe",
        "line\\nbreak\\ttab",
        "]]></script><!--",
    ):
        assert shown in hostile.text, shown
    assert not [char for char in text if (char < " " and char != "\n") or char == "\u202e"]
    assert not [tag for tag, _ in hostile.elements if tag == "img"]  # what claims to be a picture is none


def test_exact_names_reach_the_script_and_cannot_end_it() -> None:
    page = Page(scan_to_gallery(scan_cases.hostile()))
    assert not set("<>&'") & set(page.scripts[0]) and page.scripts[0].isascii()
    places = [int(place) for place in page.attributes("data-place")]
    assert places == list(range(60))
    found = {(pair["key"], pair["shard"], pair["uid"]) for pair in data_of(page)["pairs"]}
    written = [name.replace("\udcff", "\\udcff").replace("\udcfe", "\\udcfe") for name in report_cases.HOSTILE]
    assert found == {(f"{name}{place}", name, name) for place, name in zip(range(60), written * 5, strict=False)}


def test_pairs_stand_in_their_groups_by_rank() -> None:
    report = scan_cases.suspicious()
    page = Page(scan_to_gallery(replace(report, suspects=report.suspects[::-1])))
    expected = [pair.key for group in (1, 2, None) for pair in report.suspects if pair.group == group]
    assert [pair["key"] for pair in data_of(page)["pairs"]] == expected
    labels = [attrs["aria-label"] for tag, attrs in page.elements if tag == "article"]
    assert [label.split(":")[0] for label in labels] == [f"Rank {int(key) + 1}" for key in expected]
    assert "Group 1: birthday cake with candles" in page.text and "Pairs of no group" in page.text
    assert "20 of its 798 pairs are on this page; a decision is about these alone." in page.text
    assert "20 of its 20 pairs" not in page.text


def test_a_group_that_the_report_lacks_is_none() -> None:
    report = scan_cases.suspicious()
    page = Page(scan_to_gallery(replace(report, groups=report.groups[1:])))
    assert "Group 1" not in page.text and len(data_of(page)["pairs"]) == 60


def test_thumbnails_are_the_bytes_of_the_pairs_and_their_neighbours() -> None:
    report = scan_cases.suspicious()
    page = Page(scan_to_gallery(report))
    by_alt = {attrs["alt"]: [] for tag, attrs in page.elements if tag == "img"}
    for tag, attrs in page.elements:
        if tag == "img":
            by_alt[attrs["alt"]].append(attrs["src"])
    assert sum(map(len, by_alt.values())) == 60 * 3  # each with two neighbours
    for pair in report.suspects:
        sources = by_alt[f"Picture of {pair.key}"]
        assert pair.thumbnail in [base64.b64decode(source.split(",")[1]) for source in sources]
    for sources in by_alt.values():
        for source in sources:
            kind, content = re.fullmatch(r"data:image/(\w+);base64,(.+)", source).groups()
            assert Image.open(io.BytesIO(base64.b64decode(content))).format.lower() == kind
    assert "neighbour 2 of 59" in page.text


@pytest.mark.parametrize("content", [None, b"", b"<svg onload=alert(1)>", b"GIF89a", b"RIFF1234WAVE", b"\x89PNG"])
def test_what_is_no_png_jpeg_or_webp_is_not_shown(content: bytes | None) -> None:
    assert data_uri(content) == ""


def test_every_control_has_a_name_and_every_pair_both_buttons() -> None:
    page = Page(scan_to_gallery(scan_cases.suspicious()))
    buttons = [attrs for tag, attrs in page.elements if tag == "button"]
    assert all(attrs["type"] == "button" for attrs in buttons)
    decide = [attrs["data-decide"] for attrs in buttons if "data-decide" in attrs]
    assert decide == ["keep", "drop"] * (60 + 3)  # pairs, and three sections
    assert sum(attrs.get("aria-pressed") == "false" for attrs in buttons) == 120
    assert next(attrs for _, attrs in page.elements if attrs.get("id") == "counter")["role"] == "status"
    assert all(attrs["tabindex"] == "0" for tag, attrs in page.elements if tag == "article")


def test_state_is_kept_by_scan() -> None:
    report = scan_cases.suspicious()
    ids = [
        data_of(Page(scan_to_gallery(one)))["scan"]
        for one in (
            report,
            replace(report, suspects=report.suspects[:5], seconds=1.0),
            replace(report, started="2027-01-01T00:00:00Z"),
            replace(report, scorer="lid"),
            replace(report, source=replace(report.source, paths=("other",))),
        )
    ]
    assert ids[0] == ids[1] and len(set(ids)) == 4
    assert re.fullmatch(r"[0-9a-f]{16}", ids[0])


def test_no_suspects_make_a_page_that_says_so() -> None:
    page = Page(scan_to_gallery(replace(scan_cases.suspicious(), suspects=())))
    assert "No pair is listed." in page.text
