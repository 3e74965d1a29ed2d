"""The published JSON of a comparison: pydantic models, and the JSON Schema made of them.

``python -m clipvet.reports.diff_schema`` writes the schema beside this file; a test checks that it is up to date. NaN and
infinities become ``null``: they could not be measured, or a tensor moved away from nothing but zeros.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from clipvet.reports import schema
from clipvet.reports.schema import SCHEMA_VERSION, FileModel, Model, Number, Text, ToolModel
from clipvet.types import DiffReport

__all__ = ["SCHEMA_PATH", "DiffReportModel", "json_schema", "to_json"]

SCHEMA_PATH = Path(__file__).with_name("diff.schema.json")


class DiffSideModel(Model):
    """One of the two: what it was found to be."""

    path: Text
    family: Text
    base: Text
    class_names: tuple[Text, ...]
    context_length: int | None
    files: tuple[FileModel, ...]
    notes: tuple[Text, ...]


class NameChangesModel(Model):
    """How the class names differ: ``renamed`` as (old, new), ``moved`` as (name, old place, new place)."""

    added: tuple[Text, ...]
    removed: tuple[Text, ...]
    renamed: tuple[tuple[Text, Text], ...]
    moved: tuple[tuple[Text, int, int], ...]


class PartChangeModel(Model):
    """A part of the model, with all its tensors."""

    part: Text
    tensors: int
    changed: int
    relative_l2: Number
    largest: Number


class TensorChangeModel(Model):
    """A tensor that is not the same on both sides."""

    name: Text
    part: Text
    change: Literal["added", "removed", "shape", "dtype", "values"]
    old_shape: tuple[int, ...] | None
    new_shape: tuple[int, ...] | None
    old_dtype: Text
    new_dtype: Text
    relative_l2: Number
    largest: Number


class TextMoveModel(Model):
    """The cosine between a class's old and new text feature."""

    name: Text
    cosine: Number
    was: Text


class DifferenceModel(Model):
    """Something beside the tensors that differs."""

    what: Text
    old: Text | None
    new: Text | None


class DiffReportModel(Model):
    """A clipvet comparison of two deliveries. A reader of version 1.0 can read every 1.x."""

    schema_version: str = Field(default=SCHEMA_VERSION, pattern=r"^1\.\d+$")
    kind: Literal["diff"] = "diff"
    tool: ToolModel = ToolModel()
    changed: bool
    exit_code: int | None
    old: DiffSideModel
    new: DiffSideModel
    identical: tuple[tuple[Text, Text], ...]
    names: NameChangesModel
    parts: tuple[PartChangeModel, ...]
    tensors: tuple[TensorChangeModel, ...]
    texts: tuple[TextMoveModel, ...]
    median: Number
    metadata: tuple[DifferenceModel, ...]
    notes: tuple[Text, ...]


def to_json(report: DiffReport) -> str:
    """Return the comparison as a JSON document of schema version 1.0."""
    return DiffReportModel.model_validate(report).model_dump_json(indent=2) + "\n"


def json_schema() -> str:
    """Return the JSON Schema (draft 2020-12) of what :func:`to_json` writes."""
    return schema.json_schema(DiffReportModel, "comparison")


if __name__ == "__main__":
    SCHEMA_PATH.write_text(json_schema(), encoding="utf-8")
