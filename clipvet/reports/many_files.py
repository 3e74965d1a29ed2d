"""The summary of several inspections, written to a folder beside the folders of the single reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipvet.reports import many_html, many_sarif, many_schema
from clipvet.reports.files import write_whole
from clipvet.types import ManyReport

__all__ = ["write_many_report"]


def write_many_report(report: ManyReport, logs: Sequence[str], folder: Path) -> list[Path]:
    """Write summary.html, summary.json and summary.sarif, and return their paths; each appears whole or not at all.

    Args:
        report: the summary; its ``page`` addresses are relative to the folder.
        logs: SARIF logs of the single reports.
        folder: made where it is missing.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    contents = {
        "summary.html": many_html.to_html(report),
        "summary.json": many_schema.to_json(report),
        "summary.sarif": many_sarif.to_sarif(report, logs),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return [write_whole(folder / name, text.encode()) for name, text in contents.items()]
