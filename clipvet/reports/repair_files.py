"""The report of a repair in every format, written to its folder."""

from __future__ import annotations

import secrets
from pathlib import Path

from clipvet.reports import repair_html, repair_schema
from clipvet.types import RepairReport

__all__ = ["write_repair_report"]


def write_repair_report(report: RepairReport, folder: Path) -> list[Path]:
    """Write report.html and report.json beside the repaired files, each whole or not at all, and return their paths.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    contents = {"report.html": repair_html.to_html(report), "report.json": repair_schema.to_json(report)}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in contents.items():
        part = folder / f".{name}.{secrets.token_hex(8)}"
        try:
            part.write_text(content, encoding="utf-8")
            written.append(part.replace(folder / name))
        finally:
            part.unlink(missing_ok=True)
    return written
