"""Where reports go: standard output in the chosen format, and every format to a folder."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Sequence
from pathlib import Path

from clipvet.errors import UsageError
from clipvet.types import ManyReport, Report

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


def folders_for(deliveries: Sequence[Path], out: Path | None, labels: Sequence[str] = ()) -> list[Path | None]:
    """Return the folder of each delivery's report: ``out`` itself for one, else a folder per delivery below it.

    Args:
        deliveries: as given.
        out: the folder for all reports.
        labels: what the folders are named after, one for each delivery; empty for the deliveries' own names. With labels, one
            delivery has a folder below ``out`` too.
    """
    if out is None:
        return [None] * len(deliveries)
    if len(deliveries) == 1 and not labels:
        return [out]
    names: list[str] = []
    for label in labels or [delivery.name or delivery.resolve().name for delivery in deliveries]:
        plain = re.sub(r"[^\w.-]+", "-", label).strip(".-") or "delivery"
        seen = sum(name == plain or name.startswith(f"{plain}~") for name in names)
        names.append(plain if not seen else f"{plain}~{seen + 1}")
    return [out / name for name in names]


class Output:
    """Writes each report to its folder when it is ready, and prints the reports in the order of the arguments.

    Several of them are JSON Lines, of which the last is the summary, or one SARIF log with one run.

    Args:
        chosen: the format.
        several: whether more than one delivery is inspected.
        folder: where the summary goes, the single reports' folders below it; None writes nothing.

    Raises:
        UsageError: several pages of HTML cannot share one stream.
    """

    def __init__(self, chosen: Format, *, several: bool, folder: Path | None) -> None:
        if chosen is Format.HTML and several and folder is None:
            raise UsageError("expected --out DIR with --format html and several deliveries: a page holds one report")
        self._format, self.several, self.folder = chosen, several, folder
        self._logs: list[str] = []

    def keep(self, report: Report, folder: Path | None) -> None:
        """Write a report to its folder, if it has one."""
        from clipvet.reports import write_report

        if folder is not None:
            write_report(report, folder)

    def show(self, report: Report, folder: Path | None) -> None:
        """Print a report to standard output, where its format can be printed one by one."""
        from clipvet.reports import to_html, to_json, to_sarif

        if self.several or self._format is Format.SARIF:
            self._logs.append(to_sarif(report))
        match self._format:
            case Format.CONSOLE:
                print_console(report)
            case Format.JSON:
                print(_line(to_json(report)) if self.several else to_json(report), flush=True)
            case Format.HTML:
                print(folder / "report.html" if self.several and folder else to_html(report), flush=True)

    def close(self, summary: ManyReport | None) -> None:
        """Print and write what concerns all reports.

        Args:
            summary: of several inspections; None where there was one.
        """
        if summary is not None:
            self._sum_up(summary)
        elif self._logs:
            print(self._logs[0])

    def _sum_up(self, summary: ManyReport) -> None:
        from rich.console import Console

        from clipvet.reports import many_console, many_files, many_sarif, many_schema

        if self.folder is not None:
            many_files.write_many_report(summary, self._logs, self.folder)
        match self._format:
            case Format.CONSOLE:
                Console(highlight=False).print(many_console.to_console(summary))
            case Format.JSON:
                print(_line(many_schema.to_json(summary)), flush=True)
            case Format.SARIF:
                print(many_sarif.to_sarif(summary, self._logs), flush=True)
            case Format.HTML if self.folder is not None:
                print(self.folder / "summary.html", flush=True)


def _line(document: str) -> str:
    """A JSON document on one line."""
    return json.dumps(json.loads(document), ensure_ascii=False)
