"""The published JSON report: pydantic models, and the JSON Schema made of them.

``python -m clipvet.reports.schema`` writes the schema beside this file; a test checks that it is up to date. Numbers keep
their full precision. NaN and infinities have no JSON form and become ``null``, which reads "not measured".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

import clipvet
from clipvet.errors import UnreadableError
from clipvet.reports.text import writable
from clipvet.types import Report, Severity, Verdict

__all__ = [
    "SCHEMA_PATH",
    "SCHEMA_VERSION",
    "CoverageModel",
    "Model",
    "Number",
    "Numbers",
    "ReportModel",
    "Settings",
    "SkippedModel",
    "Text",
    "ToolModel",
    "from_json",
    "json_schema",
    "parsed",
    "to_json",
]

SCHEMA_VERSION = "1.0"
SCHEMA_PATH = Path(__file__).with_name("report.schema.json")


def _finite(value: Any) -> Any:
    if hasattr(value, "item"):  # a scalar of numpy or torch
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> Any:
    return writable(value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """Return the value in JSON's own types; anything foreign (a path, a dtype) as its text."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if getattr(value, "ndim", None) == 0:
        return _finite(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return _finite(float(value))
    if isinstance(value, Mapping):
        return {writable(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=str)
    return writable(str(value))


def _severity(value: Any) -> Any:
    return value.name.lower() if isinstance(value, Severity) else value


def _tensors(value: Any) -> Any:
    """Return shape and dtype of each tensor; what is read back from JSON already has this form."""
    if not isinstance(value, Mapping):
        return value
    return {writable(name): _tensor(item) for name, item in value.items()}


def _tensor(item: Any) -> Any:
    if not hasattr(item, "shape") or not hasattr(item, "dtype"):
        return item
    return {"shape": list(item.shape), "dtype": str(item.dtype).removeprefix("torch.")}


Document = TypeVar("Document", bound=BaseModel)

Number = Annotated[float | None, BeforeValidator(_finite)]
Text = Annotated[str, BeforeValidator(_text)]
Numbers = dict[Text, Number]
Settings = Annotated[dict[str, Any], BeforeValidator(_plain)]
SeverityName = Annotated[Literal["info", "low", "medium", "high", "critical"], BeforeValidator(_severity)]


class Model(BaseModel):
    """A part of a document; what this version does not know is ignored on reading, since a later 1.x may add some."""

    model_config = ConfigDict(frozen=True, from_attributes=True, extra="ignore")


class TensorModel(Model):
    """A tensor of a trigger. Its values are in triggers.safetensors, under ``<check>.<position of the row>.<name>``."""

    shape: tuple[int, ...]
    dtype: str


class EvidenceModel(Model):
    """What a check measured for one target; a higher statistic is more suspicious."""

    target: Text
    target_kind: Text
    target_index: int | None
    trigger_kind: Text
    statistic: Number
    values: Numbers
    trigger: Annotated[dict[str, TensorModel] | None, BeforeValidator(_tensors)]


class FindingModel(Model):
    """What a check found, how much it matters, and what to do about it."""

    check: Text
    severity: SeverityName
    title: Text
    message: Text
    next_step: Text
    evidence: tuple[EvidenceModel, ...]
    atlas: tuple[Text, ...]
    owasp: tuple[Text, ...]


class SkippedModel(Model):
    """Something that was not done, and why."""

    what: Text
    why: Text


class CheckModel(Model):
    """What one check measured: its statistic is the highest over all targets."""

    check: Text
    statistic: Number
    evidence: tuple[EvidenceModel, ...]
    findings: tuple[FindingModel, ...]
    skipped: tuple[SkippedModel, ...]
    control: Numbers
    settings: Settings
    cost: Numbers


class NullKeyModel(Model):
    """What a null was measured on."""

    base: Text
    family: Text
    classes: tuple[int, int]
    settings: Text
    probes: Text


class NullModel(Model):
    """The statistic over reference deliveries with nothing planted; ``check`` names the check, empty for all."""

    key: NullKeyModel
    values: tuple[Number, ...]
    source: Text
    check: Text
    pseudo_labelled: bool = False


class CoverageModel(Model):
    """How much of what was asked was done."""

    done: int
    asked: int
    share: float


class DeliveryModel(Model):
    """What the delivery was found to be."""

    path: Text
    family: Text
    base: Text
    class_names: tuple[Text, ...]
    class_names_source: Text
    quick_gelu: bool
    notes: tuple[Text, ...]


class FileModel(Model):
    """A file that was read, with its size in bytes, its SHA-256, and what its pickle asked for and did not get."""

    path: Text
    size: int
    sha256: str
    reader: Text
    stubbed_globals: tuple[Text, ...]


class ToolModel(Model):
    """The tool that wrote the report."""

    name: Literal["clipvet"] = "clipvet"
    version: str = clipvet.__version__


class ReportModel(Model):
    """A clipvet report on one delivery. A reader of version 1.0 can read every 1.x; ``null`` numbers were not measured."""

    schema_version: str = Field(default=SCHEMA_VERSION, pattern=r"^1\.\d+$")
    kind: Literal["inspect"] = "inspect"
    tool: ToolModel = ToolModel()
    verdict: Verdict
    target: Text | None
    summary: Text
    calibrated: bool
    p_value: Number
    thresholds: Numbers
    exit_code: int | None
    coverage: CoverageModel
    delivery: DeliveryModel
    findings: tuple[FindingModel, ...]
    next_steps: tuple[Text, ...]
    skipped: tuple[SkippedModel, ...]
    errors: tuple[Text, ...]
    files: tuple[FileModel, ...]
    checks: tuple[CheckModel, ...]
    nulls: tuple[NullModel, ...]
    settings: Settings
    environment: dict[Text, Text]
    started: Text
    seconds: float


def to_json(report: Report) -> str:
    """Return the report as a JSON document of schema version 1.0."""
    return ReportModel.model_validate(report).model_dump_json(indent=2) + "\n"


def from_json(text: str | bytes) -> ReportModel:
    """Return the model of a JSON report; its fields have the names of :class:`clipvet.types.Report`.

    Raises:
        UnreadableError: the text is not a JSON report of a 1.x schema.
    """
    return parsed(ReportModel, text)


def parsed(model: type[Document], text: str | bytes) -> Document:
    """Return a document of a published schema, checked.

    Raises:
        UnreadableError: the text is not such a document.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "document"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        fault = f"{place}: {first['msg']}{more}"
        message = f"expected a clipvet JSON report of schema version 1.x, but {fault}; write it again with --format json"
        raise UnreadableError(message) from error


def json_schema(model: type[BaseModel] = ReportModel, title: str = "report") -> str:
    """Return the JSON Schema (draft 2020-12) of the documents of a model: those of :func:`to_json`, unless another is named."""
    schema = model.model_json_schema(mode="serialization")
    header = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"clipvet {title} {SCHEMA_VERSION}"}
    return json.dumps({**header, **{key: value for key, value in schema.items() if key != "title"}}, indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA_PATH.write_text(json_schema(), encoding="utf-8")
