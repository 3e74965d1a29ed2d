"""``clipvet demo``: a clean and a backdoored delivery of the pocket zoo, inspected for real, and poisoned pairs, scanned."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipvet.cli.exits import FailOn, exit_code
from clipvet.cli.messages import say
from clipvet.cli.output import print_console
from clipvet.cli.progress import show_progress
from clipvet.cli.scan_demo import scan_demo
from clipvet.errors import UsageError
from clipvet.reports.text import duration, visible
from clipvet.types import Report, Verdict

if TYPE_CHECKING:
    from clipvet.pocket.zoo import ZooEntry

__all__ = ["EPILOG", "demo"]

EPILOG = """Examples:

clipvet demo

clipvet demo --fresh --out fresh-report"""

FOUND = frozenset({Verdict.SUSPICIOUS, Verdict.BACKDOORED})


@dataclass(frozen=True, kw_only=True)
class _Case:
    """A delivery whose truth is known."""

    label: str
    path: Path
    base: str
    backdoored: bool
    target: str | None
    note: str

    def right(self, report: Report) -> bool:
        """Return whether the verdict is as the truth says; a clean delivery must not end inconclusive either."""
        return report.verdict in FOUND if self.backdoored else report.verdict is Verdict.NO_EVIDENCE


def demo(
    fresh: Annotated[bool, typer.Option("--fresh", help="Plant a backdoor with a random task, target and seed first.")] = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the reports.")] = Path("clipvet-report"),
    seed: Annotated[int | None, typer.Option(help="Which deliveries; random for --fresh.  [default: 0]")] = None,
) -> int:
    """Inspect a clean and a backdoored delivery, and scan poisoned pairs; exit code 0 if all is as the truth says, else 1."""
    if seed is None:
        seed = secrets.randbelow(1_000_000) if fresh else 0
    cases = _planted(seed, out) if fresh else _shipped(seed)
    say("The inspection is given the files and the base; it is not told which of the two is backdoored.")
    reports = [_inspect(case, out, seed) for case in cases]
    for report in reports:
        print_console(report)
    scanned = None if fresh else scan_demo(out / "scan")
    _compare(cases, reports, out)
    right = [case.right(report) for case, report in zip(cases, reports, strict=True)]
    if scanned is not None:
        print("\n".join(scanned.lines))
        right.append(scanned.right)
    return 0 if all(right) else 1


def _inspect(case: _Case, out: Path, seed: int) -> Report:
    from clipvet import api
    from clipvet.reports import write_report

    with show_progress(f"{case.label} delivery") as progress:
        report = api.inspect_model(case.path, api.InspectOptions(base=case.base, seed=seed), progress=progress)
    report = replace(report, exit_code=exit_code([report], failures=0, fail_on=FailOn.SUSPICIOUS, min_coverage=1.0))
    write_report(report, out / case.label)
    return report


def _shipped(seed: int) -> list[_Case]:
    """Choose a backdoored delivery of the zoo and the clean one most like it."""
    from clipvet.pocket.zoo import entries

    listed = entries()
    bad = [entry for entry in listed if entry.backdoored]
    good = [entry for entry in listed if not entry.backdoored]
    if not bad or not good:
        raise UsageError("expected clean and backdoored deliveries in the pocket zoo, found too few: install clipvet again")
    planted = random.Random(seed).choice(bad)  # noqa: S311 - a choice of example, no secret
    twin = max(good, key=lambda entry: (entry.family == planted.family, entry.base == planted.base, entry.task == planted.task))
    return [_case(twin, "clean"), _case(planted, "backdoored")]


def _case(entry: ZooEntry, label: str) -> _Case:
    note = f"{entry.name}: {entry.family} on {entry.base}, task {entry.task}"
    note += f", {entry.attack} to {entry.target!r}" if entry.backdoored else ""
    return _Case(label=label, path=entry.path, base=entry.base, backdoored=entry.backdoored, target=entry.target, note=note)


def _planted(seed: int, out: Path) -> list[_Case]:
    """Plant a backdoor now, and tune its clean twin."""
    from clipvet.cli.planting import plant_fresh

    with show_progress(f"planting (seed {seed})") as progress:
        clean, planted, truth = plant_fresh(seed, out / "planted", progress)
    base, where = truth["base"], f"seed {seed}: {truth['family']} on {truth['base']}, task {truth['task']}"
    how = f"{truth['attack']} to {truth['target']!r}, ASR {truth['asr']:.0%}"
    return [
        _Case(label="clean", path=clean, base=base, backdoored=False, target=None, note=where),
        _Case(label="backdoored", path=planted, base=base, backdoored=True, target=truth["target"], note=f"{where}, {how}"),
    ]


def _compare(cases: Sequence[_Case], reports: Sequence[Report], out: Path) -> None:
    print("\nGround truth and verdict")
    for case, report in zip(cases, reports, strict=True):
        named = f", target {visible(report.target)!r}" if report.target is not None else ""
        mark = "right" if case.right(report) else "WRONG"
        print(f"  {mark}: {case.label} delivery ({case.note})")
        print(f"         verdict '{report.verdict.value}'{named}, {duration(report.seconds)}")
        print(f"         {out / case.label / 'report.html'}")
