"""The published JSON report of a repair: pydantic models, and the JSON Schema made of them.

``python -m clipvet.reports.repair_schema`` writes the schema beside this file; a test checks that it is up to date. As in the
report of an inspection, NaN and infinities become ``null``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from clipvet.reports import schema
from clipvet.reports.schema import (
    SCHEMA_VERSION,
    DeliveryModel,
    FileModel,
    Model,
    Number,
    Settings,
    SkippedModel,
    Text,
    ToolModel,
    parsed,
)
from clipvet.types import RepairReport

__all__ = ["SCHEMA_PATH", "RepairReportModel", "from_json", "json_schema", "to_json"]

SCHEMA_PATH = Path(__file__).with_name("repair.schema.json")


class BeforeAfterModel(Model):
    """A share in [0, 1] of the same images before and after the repair, with 95 % intervals."""

    before: Number
    after: Number
    before_interval: tuple[Number, Number]
    after_interval: tuple[Number, Number]
    images: int


class RepairedTriggerModel(Model):
    """A reconstructed trigger, its ASR, and the accuracy on images with it (TA)."""

    target: Text
    target_index: int
    kind: Text
    statistic: Number
    asr: BeforeAfterModel
    ta: BeforeAfterModel


class RepairReportModel(Model):
    """A clipvet report on one repair. A reader of version 1.0 can read every 1.x; ``null`` numbers were not measured."""

    schema_version: str = Field(default=SCHEMA_VERSION, pattern=r"^1\.\d+$")
    kind: Literal["repair"] = "repair"
    tool: ToolModel = ToolModel()
    succeeded: bool
    largest_asr: float
    summary: Text
    exit_code: int | None
    method: Text
    delivery: DeliveryModel
    ca: BeforeAfterModel
    triggers: tuple[RepairedTriggerModel, ...]
    measured_on: Text
    tuned_on: Text
    notes: tuple[Text, ...]
    next_steps: tuple[Text, ...]
    skipped: tuple[SkippedModel, ...]
    files: tuple[FileModel, ...]
    written: tuple[FileModel, ...]
    settings: Settings
    environment: dict[Text, Text]
    started: Text
    seconds: float


def to_json(report: RepairReport) -> str:
    """Return the report as a JSON document of schema version 1.0."""
    return RepairReportModel.model_validate(report).model_dump_json(indent=2) + "\n"


def from_json(text: str | bytes) -> RepairReportModel:
    """Return the model of a JSON report; its fields have the names of :class:`clipvet.types.RepairReport`.

    Raises:
        UnreadableError: the text is not a JSON report on a repair of a 1.x schema.
    """
    return parsed(RepairReportModel, text)


def json_schema() -> str:
    """Return the JSON Schema (draft 2020-12) of what :func:`to_json` writes."""
    return schema.json_schema(RepairReportModel, "repair report")


if __name__ == "__main__":
    SCHEMA_PATH.write_text(json_schema(), encoding="utf-8")
