"""Everything a report comes as, written to one folder."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from clipvet.reports import scan_html, scan_sarif, scan_schema, view
from clipvet.reports.gallery import to_gallery
from clipvet.reports.html import to_html
from clipvet.reports.images import arrays, trigger_png
from clipvet.reports.sarif import to_sarif
from clipvet.reports.schema import to_json
from clipvet.reports.text import writable
from clipvet.types import Report, ScanReport

__all__ = ["IMAGE_LIMIT", "SCAN_FILES", "write_report", "write_scan_report", "write_whole"]

IMAGE_LIMIT = 6  # targets whose trigger is written as a picture; the tensors of all are in triggers.safetensors

SCAN_FILES: dict[str, Callable[[ScanReport], str]] = {
    "report.html": scan_html.to_html,
    "gallery.html": to_gallery,
    "report.json": scan_schema.to_json,
    "report.sarif": scan_sarif.to_sarif,
}

_PICTURE = re.compile(r"trigger-\d\d-[a-z0-9-]+\.png")
_TENSORS = ("delta", "mask", "pattern")  # the trigger itself; the pictures show it on samples


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.html, report.json, report.sarif, trigger-*.png and triggers.safetensors, and return their paths.

    Each file appears whole or not at all. Trigger files that an earlier report left in the folder and this one does not write
    are removed, so that no picture is taken for this report's. A tensor's name is ``<check>.<position of the row>.<name>``.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    contents: dict[str, bytes] = {
        "report.html": to_html(report).encode(),
        "report.json": to_json(report).encode(),
        "report.sarif": to_sarif(report).encode(),
        **_pictures(report),
        **_tensors(report),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in contents and (_PICTURE.fullmatch(path.name) or path.name == "triggers.safetensors"):
            path.unlink()
    return [write_whole(folder / name, content) for name, content in contents.items()]


def write_scan_report(report: ScanReport, folder: Path) -> list[Path]:
    """Write report.html, gallery.html, report.json and report.sarif, and return their paths.

    Each file appears whole or not at all; none is touched before all are rendered. The report that is written lists these files
    behind those that it lists already.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    paths = [folder / name for name in SCAN_FILES]
    listed = replace(report, written=tuple(dict.fromkeys([*report.written, *map(str, paths)])))
    contents = [render(listed).encode() for render in SCAN_FILES.values()]
    folder.mkdir(parents=True, exist_ok=True)
    return [write_whole(path, content) for path, content in zip(paths, contents, strict=True)]


def _pictures(report: Report) -> dict[str, bytes]:
    pictures = {}
    for place, (_, _, row) in enumerate(view.shown_rows(report)[:IMAGE_LIMIT], 1):
        slug = re.sub(r"[^a-z0-9]+", "-", row.target.lower())[:40].strip("-") or "target"
        for name, content in trigger_png(row).items():
            pictures[f"trigger-{place:02d}-{slug}{'' if name == 'trigger' else f'-{name}'}.png"] = content
    return pictures


def _tensors(report: Report) -> dict[str, bytes]:
    tensors = {}
    names = {}
    for check, position, row in view.shown_rows(report):
        for name, array in arrays(row.trigger).items():
            if name in _TENSORS:
                tensors[f"{check}.{position}.{name}"] = np.ascontiguousarray(array)
                names[f"{check}.{position}"] = writable(row.target)
    return {"triggers.safetensors": save(tensors, metadata=names)} if tensors else {}


def write_whole(path: Path, content: bytes) -> Path:
    """Write beside the target and rename, which replaces the file in one step; a link under the name is not followed."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with part.open("xb") as file:
            file.write(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
