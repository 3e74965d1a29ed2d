"""Progress on standard error: a bar with an estimate on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from clipvet.cli.messages import say
from clipvet.reports.text import duration, visible

__all__ = ["PlainLines", "show_progress"]

Progress = Callable[[str, int, int], None]

EVERY = 10.0  # seconds between two plain lines of one stage


@contextmanager
def show_progress(label: str) -> Iterator[Progress]:
    """Show how far one piece of work is, until the block ends; yields a function of (stage, done, total)."""
    if not sys.stderr.isatty():
        yield PlainLines(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {}

        def move(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(visible(f"{label}: {stage}"), total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield move


class PlainLines:
    """One line when a stage begins, when it ends, and every ten seconds between.

    Args:
        label: what is being worked on.
        clock: seconds that never run backwards.
    """

    def __init__(self, label: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._label, self._clock = visible(label), clock
        self._stage = ""
        self._began = self._spoke = 0.0
        self._first = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Print a line where one is due."""
        now = self._clock()
        if stage != self._stage:
            self._stage, self._began, self._first = stage, now, done
        elif done < total and now - self._spoke < EVERY:
            return
        self._spoke = now
        say(f"{self._label}: {visible(stage)} {done}/{total}{self._left(now, done, total)}")

    def _left(self, now: float, done: int, total: int) -> str:
        if done <= self._first or done >= total:
            return ""
        return f", about {duration((now - self._began) / (done - self._first) * (total - done))} left"
