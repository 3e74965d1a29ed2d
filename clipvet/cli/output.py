"""Where reports go: standard output in the chosen format, and every format to a folder."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Sequence
from pathlib import Path

from clipvet.errors import UsageError
from clipvet.types import Report

__all__ = ["Format", "Output", "folders_for", "print_console"]


class Format(enum.StrEnum):
    """What is written to standard output."""

    CONSOLE = "console"
    JSON = "json"
    SARIF = "sarif"
    HTML = "html"


def print_console(report: Report) -> None:
    """Print a report for a reader at a terminal."""
    from rich.console import Console

    from clipvet.reports import to_console

    Console(highlight=False).print(to_console(report))


def folders_for(deliveries: Sequence[Path], out: Path | None) -> list[Path | None]:
    """Return the folder of each delivery's report: ``out`` itself for one, else a folder per delivery below it."""
    if out is None:
        return [None] * len(deliveries)
    if len(deliveries) == 1:
        return [out]
    names: list[str] = []
    for delivery in deliveries:
        plain = re.sub(r"[^\w.-]+", "-", delivery.name or delivery.resolve().name).strip(".-") or "delivery"
        seen = sum(name == plain or name.startswith(f"{plain}~") for name in names)
        names.append(plain if not seen else f"{plain}~{seen + 1}")
    return [out / name for name in names]


class Output:
    """Prints each report when it is ready. Several of them are JSON Lines, or the runs of one SARIF log.

    Args:
        chosen: the format.
        several: whether more than one delivery is inspected.
        to_folder: whether every report is written to a folder too.

    Raises:
        UsageError: several pages of HTML cannot share one stream.
    """

    def __init__(self, chosen: Format, *, several: bool, to_folder: bool) -> None:
        if chosen is Format.HTML and several and not to_folder:
            raise UsageError("expected --out DIR with --format html and several deliveries: a page holds one report")
        self._format, self._several = chosen, several
        self._logs: list[str] = []

    def add(self, report: Report, folder: Path | None) -> None:
        """Write a report to its folder, if any, and to standard output."""
        from clipvet.reports import to_html, to_json, to_sarif, write_report

        if folder is not None:
            write_report(report, folder)
        match self._format:
            case Format.CONSOLE:
                print_console(report)
            case Format.JSON:
                text = to_json(report)
                print(json.dumps(json.loads(text), ensure_ascii=False) if self._several else text, flush=True)
            case Format.SARIF:
                self._logs.append(to_sarif(report))
            case Format.HTML:
                print(folder / "report.html" if self._several and folder else to_html(report), flush=True)

    def close(self) -> None:
        """Print what could not be printed report by report."""
        if not self._logs:
            return
        first, *others = self._logs
        if not others:
            print(first)
            return
        log = json.loads(first)
        log["runs"] += [run for other in others for run in json.loads(other)["runs"]]
        print(json.dumps(log, ensure_ascii=False, indent=2))
