"""Render a report for the console, as JSON, SARIF or one HTML page: pure functions.

The renderers are imported when they are called: the command line offers the formats long before it has a report.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipvet.types import Report

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["FORMATS", "to_console", "to_html", "to_json", "to_sarif", "write_report"]


def to_console(report: Report) -> RenderableType:
    """Return a rich renderable: verdict, most suspicious targets, findings, what was skipped, files with hashes."""
    from clipvet.reports import console

    return console.to_console(report)


def to_json(report: Report) -> str:
    """Return a JSON document of the published schema (clipvet/reports/report.schema.json)."""
    from clipvet.reports import schema

    return schema.to_json(report)


def to_sarif(report: Report) -> str:
    """Return a SARIF 2.1.0 log: the verdict and each finding is one result."""
    from clipvet.reports import sarif

    return sarif.to_sarif(report)


def to_html(report: Report) -> str:
    """Return one self-contained HTML page that needs no network."""
    from clipvet.reports import html

    return html.to_html(report)


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write every format, the trigger pictures and tensors to a folder; see :func:`clipvet.reports.files.write_report`."""
    from clipvet.reports import files

    return files.write_report(report, folder)


FORMATS: dict[str, Callable[[Report], Any]] = {"console": to_console, "json": to_json, "sarif": to_sarif, "html": to_html}
