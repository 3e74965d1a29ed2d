"""The published JSON summary of several inspections: pydantic models, and the JSON Schema made of them.

``python -m clipvet.reports.many_schema`` writes the schema beside this file; a test checks that it is up to date. As in the report
of one inspection, NaN and infinities become ``null``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from clipvet.reports import schema
from clipvet.reports.schema import (
    SCHEMA_VERSION,
    CoverageModel,
    Model,
    Number,
    Settings,
    SkippedModel,
    Text,
    ToolModel,
    parsed,
)
from clipvet.types import ManyReport, Verdict

__all__ = ["SCHEMA_PATH", "ManyReportModel", "from_json", "json_schema", "to_json"]

SCHEMA_PATH = Path(__file__).with_name("many.schema.json")


class ManyRowModel(Model):
    """What one delivery came to; without a verdict it was not inspected, and ``error`` says why."""

    delivery: Text
    verdict: Verdict | None
    family: Text
    base: Text
    target: Text | None
    check: Text
    statistic: Number
    threshold: Number
    p_value: Number
    calibrated: bool
    coverage: CoverageModel
    seconds: float
    exit_code: int | None
    error: Text
    page: Text


class ManyReportModel(Model):
    """A clipvet summary of several inspections. A reader of version 1.0 can read every 1.x."""

    schema_version: str = Field(default=SCHEMA_VERSION, pattern=r"^1\.\d+$")
    kind: Literal["inspect-summary"] = "inspect-summary"
    tool: ToolModel = ToolModel()
    exit_code: int | None
    coverage: CoverageModel
    rows: tuple[ManyRowModel, ...]
    passed_over: tuple[SkippedModel, ...]
    settings: Settings
    environment: dict[Text, Text]
    started: Text
    seconds: float


def to_json(report: ManyReport) -> str:
    """Return the summary as a JSON document of schema version 1.0."""
    return ManyReportModel.model_validate(report).model_dump_json(indent=2) + "\n"


def from_json(text: str | bytes) -> ManyReportModel:
    """Return the model of a JSON summary; its fields have the names of :class:`clipvet.types.ManyReport`.

    Raises:
        UnreadableError: the text is not a JSON summary of a 1.x schema.
    """
    return parsed(ManyReportModel, text)


def json_schema() -> str:
    """Return the JSON Schema (draft 2020-12) of what :func:`to_json` writes."""
    return schema.json_schema(ManyReportModel, "summary of inspections")


if __name__ == "__main__":
    SCHEMA_PATH.write_text(json_schema(), encoding="utf-8")
