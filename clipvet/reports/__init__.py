"""Render the report of an inspection or of a scan for the console, as JSON, SARIF or one HTML page: pure functions.

The renderers are imported when they are called: the command line offers the formats long before it has a report.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipvet.types import Report, ScanReport

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "FORMATS",
    "SCAN_FORMATS",
    "scan_to_console",
    "scan_to_gallery",
    "scan_to_html",
    "scan_to_json",
    "scan_to_sarif",
    "to_console",
    "to_html",
    "to_json",
    "to_sarif",
    "write_report",
    "write_scan_report",
]


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


def scan_to_console(report: ScanReport) -> RenderableType:
    """Return a rich renderable: what was flagged, warnings, suspicious groups, the worst pairs, what was not read."""
    from clipvet.reports import scan_console

    return scan_console.to_console(report)


def scan_to_json(report: ScanReport) -> str:
    """Return a JSON document of the published schema (clipvet/reports/scan.schema.json); pictures are left out."""
    from clipvet.reports import scan_schema

    return scan_schema.to_json(report)


def scan_to_sarif(report: ScanReport) -> str:
    """Return a SARIF 2.1.0 log: the scan and each suspicious group is one result."""
    from clipvet.reports import scan_sarif

    return scan_sarif.to_sarif(report)


def scan_to_html(report: ScanReport) -> str:
    """Return one self-contained HTML page that needs no network and no script."""
    from clipvet.reports import scan_html

    return scan_html.to_html(report)


def scan_to_gallery(report: ScanReport) -> str:
    """Return one self-contained HTML page of the worst pairs with their pictures, on which to decide what to drop."""
    from clipvet.reports import gallery

    return gallery.to_gallery(report)


def write_scan_report(report: ScanReport, folder: Path) -> list[Path]:
    """Write every format and the gallery to a folder; see :func:`clipvet.reports.files.write_scan_report`."""
    from clipvet.reports import files

    return files.write_scan_report(report, folder)


FORMATS: dict[str, Callable[[Report], Any]] = {"console": to_console, "json": to_json, "sarif": to_sarif, "html": to_html}
SCAN_FORMATS: dict[str, Callable[[ScanReport], Any]] = {
    "console": scan_to_console,
    "json": scan_to_json,
    "sarif": scan_to_sarif,
    "html": scan_to_html,
}
