"""Inspections one after the other or side by side: what is to be done, what came out, and who does it."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from clipvet.errors import ClipvetError
from clipvet.types import Report

if TYPE_CHECKING:
    from clipvet.api import InspectOptions
    from clipvet.models.base import ClipModel

__all__ = ["Do", "Inspecting", "Job", "Outcome", "Worker", "WorkerDiedError", "portable"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One delivery to inspect; ``options.work`` is its own folder for state."""

    delivery: Path
    options: InspectOptions


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A report, or the error instead of it, and how many seconds it took."""

    report: Report | None = None
    error: Exception | None = None
    seconds: float = 0.0


Do = Callable[[Job], Outcome]


class WorkerDiedError(Exception):
    """A worker is gone, and what it was doing with it; the message says how, in a few words."""


class Worker(Protocol):
    """A process that does jobs one after the other, on this machine or another."""

    def do(self, job: Job) -> Outcome:
        """Do one job.

        Raises:
            WorkerDiedError: the process died; the next call begins a new one.
        """
        ...

    def close(self) -> None:
        """End the process, whatever it is doing; may be called from another thread."""
        ...


class Inspecting:
    """Inspects deliveries one after the other. An error is an outcome like another.

    Args:
        share: whether a base that is named is loaded once and kept for the next delivery.
    """

    def __init__(self, *, share: bool) -> None:
        self._share = share
        self._base: tuple[tuple[Any, ...], ClipModel] | None = None

    def __call__(self, job: Job, progress: Progress | None = None) -> Outcome:
        """Inspect one delivery."""
        from clipvet import api

        began = time.monotonic()
        try:
            shared = {"base": self._load(job.options)} if self._share and job.options.base else {}
            report = api.inspect_model(job.delivery, job.options, progress=progress, **shared)
        except Exception as error:  # the other deliveries, and what was found in them, must not be lost
            return Outcome(error=error, seconds=time.monotonic() - began)
        return Outcome(report=report, seconds=time.monotonic() - began)

    def _load(self, options: InspectOptions) -> ClipModel:
        from clipvet.models.bases import load_base

        key = (options.base, options.device, options.quick_gelu)
        if self._base is None or self._base[0] != key:
            assert options.base is not None
            self._base = key, load_base(options.base, device=options.device, quick_gelu=options.quick_gelu)
        return self._base[1]


def portable(outcome: Outcome) -> Outcome:
    """Return an outcome that can travel between processes: not every exception can, and none takes its traceback along."""
    error = outcome.error
    if error is None:
        return outcome
    known = isinstance(error, ClipvetError)
    copy = type(error)(str(error)) if known else RuntimeError(f"{type(error).__name__}: {error}")
    copy.add_note("".join(traceback.format_exception(error)))  # for --debug
    return dataclasses.replace(outcome, error=copy)
