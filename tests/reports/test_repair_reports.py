"""A repair's report says the same in every format, and nothing that a delivery names can act on a reader's screen."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

from clipvet.errors import UnreadableError
from clipvet.reports.repair_console import to_console
from clipvet.reports.repair_files import write_repair_report
from clipvet.reports.repair_html import to_html
from clipvet.reports.repair_schema import SCHEMA_PATH, from_json, json_schema, to_json
from clipvet.types import RepairReport
from tests.reports import repair_cases


def console(report: RepairReport, width: int = 100) -> str:
    screen = io.StringIO()
    Console(file=screen, width=width, highlight=False).print(to_console(report))
    return screen.getvalue()


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.partition("<body>")[2]))


def test_every_format_has_the_numbers_before_and_after() -> None:
    report = repair_cases.repaired()
    for text in (console(report, 160), words(to_html(report))):
        for said in ("97.9% [95.9%, 99.9%]", "96.9%", "93.8%", "2.1%", "94.8%", "96 images of held-out", "384 images of images"):
            assert said in text, said
        assert "statistic 7.50" in text
        assert text.count("statistic") == 1  # of the other trigger it was not measured
        assert "Nobody but the attacker knows the planted trigger" in text
        assert report.written[0].sha256 in text
        assert "exit code 0" in text.lower().replace("exit code 0 (", "exit code 0 ")
    document = json.loads(to_json(report))
    assert document["triggers"][0]["asr"]["after"] == pytest.approx(0.0208)
    assert document["triggers"][1]["statistic"] is None
    assert (document["kind"], document["schema_version"], document["succeeded"]) == ("repair", "1.0", True)


def test_the_outcome_comes_first() -> None:
    assert "REPAIRED" in console(repair_cases.repaired()).splitlines()[1]
    assert "NOT REPAIRED" in console(repair_cases.not_repaired()).splitlines()[1]
    assert "Not repaired" in to_html(repair_cases.not_repaired())


def test_eighty_columns_are_enough() -> None:
    assert max(map(len, console(repair_cases.repaired(), 80).splitlines())) <= 80


def test_hostile_names_are_shown_and_not_obeyed() -> None:
    report = repair_cases.hostile()
    shown, page = console(report), to_html(report)
    assert "\x1b" not in shown
    assert "\u202e" not in shown + page
    assert "<script" not in page.lower().replace("&lt;script", "")


def test_the_published_schema_is_up_to_date_and_holds() -> None:
    assert SCHEMA_PATH.read_text(encoding="utf-8") == json_schema()
    document = to_json(repair_cases.repaired())
    jsonschema.Draft202012Validator(json.loads(json_schema())).validate(json.loads(document))
    again = from_json(document)
    assert (again.ca.after, again.written[0].path) == (pytest.approx(0.9688), "out/repaired.safetensors")
    assert again.triggers[1].statistic is None
    assert math.isnan(repair_cases.repaired().triggers[1].statistic)


def test_what_is_no_such_report_is_one_sentence() -> None:
    with pytest.raises(UnreadableError, match=r"schema version 1\.x, but"):
        from_json("{}")


def test_the_folder_holds_both_files(tmp_path: Path) -> None:
    report = repair_cases.repaired()
    paths = write_repair_report(report, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["report.html", "report.json"]
    assert [path.read_text(encoding="utf-8") for path in paths] == [to_html(report), to_json(report)]
