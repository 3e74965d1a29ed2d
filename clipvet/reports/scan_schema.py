"""The published JSON report of a scan: pydantic models, and the JSON Schema made of them.

``python -m clipvet.reports.scan_schema`` writes the schema beside this file; a test checks that it is up to date. As in the report
of an inspection, NaN and infinities become ``null``. Pictures are left out: they are in the gallery.
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
    Numbers,
    Settings,
    SkippedModel,
    Text,
    ToolModel,
    parsed,
)
from clipvet.types import ScanReport, Verdict

__all__ = ["SCHEMA_PATH", "ScanReportModel", "from_json", "json_schema", "to_json"]

SCHEMA_PATH = Path(__file__).with_name("scan.schema.json")


class NeighbourModel(Model):
    """A pair that lies near a suspect."""

    key: Text
    caption: Text
    similarity: Number


class SuspectPairModel(Model):
    """One of the pairs with the highest scores; rank 1 is the worst. A higher score is more suspicious."""

    rank: int
    key: Text
    shard: Text
    uid: Text
    caption: Text
    score: Number
    scores: Numbers
    group: int | None
    neighbours: tuple[NeighbourModel, ...]


class SuspectGroupModel(Model):
    """Flagged pairs that are alike. ``keys`` names a few of ``size`` members; ``share`` is that of all pairs in [0, 1]."""

    number: int
    size: int
    share: Number
    caption: Text
    mean_score: Number
    keys: tuple[Text, ...]
    likeness: Text
    note: Text


class ScanSourceModel(Model):
    """What was scanned, and which column or member plays which role."""

    kind: Text
    paths: tuple[Text, ...]
    mapping: dict[Text, Text]
    notes: tuple[Text, ...]


class ModelRecordModel(Model):
    """A model that made features, with the SHA-256 and the size in bytes of its weights."""

    name: Text
    sha256: Text
    size: int


class ReferenceSetModel(Model):
    """What scores are measured against: ``size`` pairs, of which ``k`` neighbours count."""

    text: Text
    size: int
    k: int


class ScanCountsModel(Model):
    """Pairs by what became of them; ``unread`` counts by kind, ``examples`` names a few of each kind."""

    pairs: int
    scored: int
    flagged: int
    not_scored: int
    unread: dict[Text, int]
    examples: dict[Text, tuple[Text, ...]]


class ThresholdModel(Model):
    """The score from which a pair is flagged, and why."""

    value: Number
    flag_rate: Number
    text: Text


class HistogramModel(Model):
    """How many finite scores lie in each bin; ``edges`` are one more than ``counts``."""

    edges: tuple[Number, ...]
    counts: tuple[int, ...]


class ScanReportModel(Model):
    """A clipvet report on one scan. A reader of version 1.0 can read every 1.x; ``null`` numbers were not measured."""

    schema_version: str = Field(default=SCHEMA_VERSION, pattern=r"^1\.\d+$")
    kind: Literal["scan"] = "scan"
    tool: ToolModel = ToolModel()
    verdict: Verdict
    summary: Text
    exit_code: int | None
    source: ScanSourceModel
    model: ModelRecordModel | None
    trusted_model: ModelRecordModel | None = None  # reports of before there was one are read too
    scorer: Text
    scorers: tuple[Text, ...]
    reference: ReferenceSetModel | None
    counts: ScanCountsModel
    coverage: CoverageModel
    threshold: ThresholdModel | None
    histogram: HistogramModel | None
    warnings: tuple[Text, ...]
    groups: tuple[SuspectGroupModel, ...]
    suspects: tuple[SuspectPairModel, ...]
    next_steps: tuple[Text, ...]
    skipped: tuple[SkippedModel, ...]
    errors: tuple[Text, ...]
    written: tuple[Text, ...]
    settings: Settings
    environment: dict[Text, Text]
    started: Text
    seconds: float


def to_json(report: ScanReport) -> str:
    """Return the report as a JSON document of schema version 1.0."""
    return ScanReportModel.model_validate(report).model_dump_json(indent=2) + "\n"


def from_json(text: str | bytes) -> ScanReportModel:
    """Return the model of a JSON report; its fields have the names of :class:`clipvet.types.ScanReport`.

    Raises:
        UnreadableError: the text is not a JSON report on a scan of a 1.x schema.
    """
    return parsed(ScanReportModel, text)


def json_schema() -> str:
    """Return the JSON Schema (draft 2020-12) of what :func:`to_json` writes."""
    return schema.json_schema(ScanReportModel, "scan report")


if __name__ == "__main__":
    SCHEMA_PATH.write_text(json_schema(), encoding="utf-8")
