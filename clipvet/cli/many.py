"""The run of ``clipvet inspect``: one delivery or many, here or on a cluster, each with its report, and a summary of them all."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

from clipvet.cli.exits import FailOn, exit_code
from clipvet.cli.given import Given
from clipvet.cli.jobs import Inspecting, Job, Outcome
from clipvet.cli.messages import say, say_error
from clipvet.cli.output import Output, folders_for
from clipvet.cli.progress import PlainLines, show_progress
from clipvet.errors import ClipvetError, UsageError
from clipvet.reports.text import visible
from clipvet.types import Coverage, ManyReport, ManyRow, Report

if TYPE_CHECKING:
    from clipvet.api import InspectOptions

__all__ = ["ENGINES", "Run"]

Outcomes = Generator[tuple[int, Outcome], None, None]

ENGINES = ("local", "ray")
INTERRUPTED = 130


@dataclass(kw_only=True)
class Run:
    """One call of the command: its settings, and what it has so far.

    Args:
        options: what all inspections share; ``work`` is the folder for everything.
        fail_on: the lowest verdict that counts as found.
        min_coverage: share of an inspection's work that must have been done.
        engine: one of `ENGINES`.
        workers: processes at most.
        debug: show tracebacks.

    Raises:
        UsageError: the engine is none of them.
    """

    options: InspectOptions
    fail_on: FailOn
    min_coverage: float
    engine: str = "local"
    workers: int = 1
    debug: bool = False
    reports: list[Report] = field(default_factory=list, init=False)
    rows: dict[int, ManyRow] = field(default_factory=dict, init=False)
    waiting: dict[int, Report | None] = field(default_factory=dict, init=False)
    shown: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError(f"expected an engine out of {', '.join(ENGINES)}, got {self.engine!r}")

    def all(self, given: Given, output: Output) -> int:
        """Inspect all deliveries and return the exit code; an error with one is said, and the others go on."""
        began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        folders = folders_for(given.paths, output.folder, given.labels)
        jobs = [
            Job(delivery=path, options=dataclasses.replace(self.options, work=None if folder is None else folder / "state"))
            for path, folder in zip(given.paths, folders, strict=True)
        ]
        interrupted = False
        try:
            with closing(self._outcomes(jobs)) as found:
                for place, outcome in found:
                    self._take(place, jobs[place], outcome, folders[place], output)
                    self._show(folders, output)
        except KeyboardInterrupt:
            interrupted = True
            say(_interrupted(self.options))
        finally:
            if interrupted or self.rows:
                self._show(folders, output, gaps=True)
                code = INTERRUPTED if interrupted else self.code(self.reports, sum(bool(row.error) for row in self.rows.values()))
                output.close(self._summary(given, code, started, time.monotonic() - began) if output.several else None)
        return code

    def code(self, reports: Sequence[Report], failures: int) -> int:
        """Return the exit code of some reports."""
        return exit_code(reports, failures=failures, fail_on=self.fail_on, min_coverage=self.min_coverage)

    def _outcomes(self, jobs: Sequence[Job]) -> Outcomes:
        if self.engine == "ray":
            return self._on_ray(jobs)
        return self._side_by_side(jobs) if min(self.workers, len(jobs)) > 1 else self._one_by_one(jobs)

    def _one_by_one(self, jobs: Sequence[Job]) -> Outcomes:
        inspecting = Inspecting(share=len(jobs) > 1)
        for place, job in enumerate(jobs):
            with show_progress(str(job.delivery)) as progress:
                outcome = inspecting(job, progress)
            yield place, outcome

    def _side_by_side(self, jobs: Sequence[Job]) -> Outcomes:
        import torch

        from clipvet.cli.workers import LocalWorker, outcomes

        workers = min(self.workers, len(jobs))
        threads = max(1, torch.get_num_threads() // workers)
        inspecting = Inspecting(share=True)
        with closing(outcomes(jobs, lambda: LocalWorker(inspecting, threads), workers)) as found:
            yield from _counted(found, len(jobs))

    def _on_ray(self, jobs: Sequence[Job]) -> Outcomes:
        from clipvet.cli.on_ray import RayWorker
        from clipvet.cli.workers import outcomes
        from clipvet.scan.on_ray import cluster, import_ray

        ray, inspecting, device = import_ray(), Inspecting(share=True), self.options.device
        with (
            cluster(ray, self.workers),
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            closing(outcomes(jobs, lambda: RayWorker(ray, inspecting, device), self.workers)) as found,
        ):
            yield from _aside(_counted(found, len(jobs)), nowhere)

    def _take(self, place: int, job: Job, outcome: Outcome, folder: Path | None, output: Output) -> None:
        """Keep an outcome: its report in its folder, its row for the summary, and what the exit code needs."""
        from clipvet.reports.many_view import row_of

        name, report, error = str(job.delivery), outcome.report, outcome.error
        row = ManyRow(delivery=name, seconds=outcome.seconds)
        if report is not None:
            report = dataclasses.replace(report, exit_code=self.code([report], 0))
            self.reports.append(dataclasses.replace(report, checks=(), findings=()))  # tensors are heavy
            try:
                output.keep(report, folder)
            except Exception as failure:  # the other deliveries, and what was found in them, must not be lost
                error = failure
            page = (
                f"{folder.relative_to(output.folder).as_posix()}/report.html"
                if folder is not None and output.folder is not None
                else ""
            )
            row = row_of(report, delivery=name, page="" if error else page, seconds=outcome.seconds)
        if error is not None:
            say_error(error, about=name, debug=self.debug)
            row = dataclasses.replace(row, error=_sentence(error))
        self.rows[place], self.waiting[place] = row, report

    def _show(self, folders: Sequence[Path | None], output: Output, *, gaps: bool = False) -> None:
        """Print reports in the order of the arguments: those before the first that is missing, or all that there are."""
        while self.shown in self.waiting or (gaps and self.waiting):
            report = self.waiting.pop(self.shown, None)
            if report is not None:
                output.show(report, folders[self.shown])
            self.shown += 1

    def _summary(self, given: Given, code: int, started: str, seconds: float) -> ManyReport:
        missing = "not inspected: the run was interrupted"
        rows = tuple(self.rows.get(place, ManyRow(delivery=str(path), error=missing)) for place, path in enumerate(given.paths))
        settings = {name: str(value) for name, value in vars(self.options).items() if value is not None}
        return ManyReport(
            rows=rows,
            passed_over=given.passed_over,
            coverage=Coverage(done=sum(row.verdict is not None for row in rows), asked=len(rows)),
            exit_code=code,
            settings=settings | {"engine": self.engine, "workers": str(self.workers)},
            environment=self.reports[0].environment if self.reports else {},
            started=started,
            seconds=seconds,
        )


def _counted(found: Outcomes, total: int) -> Outcomes:
    """Say how many are done. Lines, not a bar: reports are printed meanwhile."""
    progress = PlainLines("inspect")
    progress("deliveries", 0, total)
    for done, item in enumerate(found, 1):
        yield item
        progress("deliveries", done, total)


def _aside(found: Outcomes, nowhere: IO[str]) -> Outcomes:
    """Keep standard output for reports while others print: Ray says there what befalls its machines."""
    ours = sys.stdout
    with redirect_stdout(nowhere):
        for item in found:
            with redirect_stdout(ours):
                yield item


def _sentence(error: Exception) -> str:
    if isinstance(error, ClipvetError):
        return str(error)
    return f"clipvet failed in a way that it should not have ({type(error).__name__}: {error})"


def _interrupted(options: InspectOptions) -> str:
    if options.work is None:
        return "Nothing was kept: with --out DIR, a run leaves what is done, and --resume goes on from there."
    return f"What is done is kept in {visible(str(options.work))}: run the same command with --resume to go on."
