"""The demo's second part: pairs that ship, some of them poisoned, scanned with the model that was tuned on them."""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from clipvet.cli.exits import scan_exit_code
from clipvet.cli.progress import show_progress
from clipvet.reports.text import duration

__all__ = ["ScanDemo", "scan_demo"]

FLAG_RATE = 0.03


@dataclass(frozen=True, kw_only=True)
class ScanDemo:
    """How the scan ended: whether it was right, and the lines that compare it with the truth."""

    right: bool
    lines: tuple[str, ...]


def scan_demo(out: Path) -> ScanDemo:
    """Scan the poisoned pairs that ship; right is a suspicious verdict whose largest group holds planted pairs alone."""
    from rich.console import Console

    from clipvet.pocket.shards import poisoned_shards
    from clipvet.reports import scan_to_console, write_scan_report
    from clipvet.scan.options import ScanOptions
    from clipvet.scan.run import scan_pairs

    shipped = poisoned_shards()
    options = ScanOptions(out=out, model=str(shipped.model), flag_rate=FLAG_RATE)
    with show_progress("poisoned pairs") as progress:
        report = scan_pairs([str(path) for path in shipped.shards], options, progress=progress)
    report = dataclasses.replace(report, exit_code=scan_exit_code(report, min_coverage=1.0))
    write_scan_report(report, out)
    Console(highlight=False).print(scan_to_console(report))
    with (out / "suspects.csv").open(encoding="utf-8", newline="") as file:
        flagged = list(csv.DictReader(file))
    found = [row for row in flagged if row["key"] in shipped.planted]
    group = {row["key"] for row in flagged if row["group"] == "1"}
    right = bool(group) and group <= shipped.planted
    of = f"{len(found)} of the {len(shipped.planted)} poisoned among {report.counts.scored:,} pairs"
    mates = f"{len(group & shipped.planted)} of them and {len(group - shipped.planted)} others"
    lines = (
        f"  {'right' if right else 'WRONG'}: {of} are among the {len(flagged)} flagged; the largest group holds {mates}",
        f"         verdict '{report.verdict.value}', {duration(report.seconds)}",
        f"         {out / 'report.html'}, {out / 'gallery.html'}",
    )
    return ScanDemo(right=right, lines=lines)
