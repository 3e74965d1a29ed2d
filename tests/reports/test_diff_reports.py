"""A comparison on the console and as JSON, with hostile names in it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import jsonschema
import pytest
from rich.console import Console

from clipvet.reports import diff_console, diff_schema
from clipvet.types import Difference, DiffReport, DiffSide, FileRecord, NameChanges, PartChange, TensorChange, TextMove
from tests.reports.report_cases import HOSTILE, SHA

FILE = FileRecord(path="a/\udcff.pt", size=1234, sha256=SHA, reader="torch zip")
SIDE = DiffSide(
    path="a/\x1b[2J", family="coop", base="pocket-0", class_names=HOSTILE, context_length=4, files=(FILE,), notes=HOSTILE
)
REPORT = DiffReport(
    old=SIDE,
    new=replace(SIDE, family="", class_names=(), base="", context_length=None),
    changed=True,
    identical=(("a", "b"),),
    names=NameChanges(added=HOSTILE, removed=HOSTILE, renamed=(("a", "b"),), moved=(("c", 1, 2),)),
    parts=(PartChange(part="prompt", tensors=3, changed=2, relative_l2=0.125, largest=math.nan),),
    tensors=(
        TensorChange(name="ctx", part="prompt", change="values", relative_l2=0.125, largest=0.5),
        TensorChange(
            name="x" * 90, part="other", change="shape", old_shape=(), new_shape=(2, 3), old_dtype="int8", new_dtype="half"
        ),
        TensorChange(name="new", part="other", change="added", new_shape=(2,), new_dtype="float32"),
    ),
    texts=tuple(TextMove(name=name, cosine=-0.5, was="dog") for name in HOSTILE),
    median=0.75,
    metadata=tuple(Difference(what=name, old=None, new=name) for name in HOSTILE),
    notes=HOSTILE,
    exit_code=1,
)


def shown(report: DiffReport) -> str:
    console = Console(width=80, force_terminal=False, highlight=False)
    with console.capture() as capture:
        console.print(diff_console.to_console(report))
    return capture.get()


def test_published_schema_is_up_to_date() -> None:
    assert diff_schema.SCHEMA_PATH.read_text(encoding="utf-8") == diff_schema.json_schema(), (
        "run: python -m clipvet.reports.diff_schema"
    )


def test_json_validates_and_says_all() -> None:
    document = json.loads(diff_schema.to_json(REPORT), parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    jsonschema.validate(document, json.loads(diff_schema.SCHEMA_PATH.read_text(encoding="utf-8")))
    assert set(vars(REPORT)) <= set(document)
    assert document["parts"][0] == {"part": "prompt", "tensors": 3, "changed": 2, "relative_l2": 0.125, "largest": None}
    assert document["texts"][0]["cosine"] == -0.5


def test_the_console_fits_80_columns_and_shows_no_control_character() -> None:
    text = shown(REPORT)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text and "\u202e" not in text
    for part in ("renamed: a → b", "reordered: c (1 → 2)", "int8 scalar → half 2×3", "added, float32 2", "0.7500", "-0.5000"):
        assert part in text


def test_what_does_not_differ_is_short() -> None:
    text = shown(DiffReport(old=SIDE, new=SIDE, changed=False))
    assert "Nothing differs" in text
    assert "Parts" not in text
