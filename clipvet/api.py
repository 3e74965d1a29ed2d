"""The public functions: each answers one question, from a path to a report. The command line adds nothing but words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clipvet.errors import UsageError
from clipvet.types import Report

__all__ = ["InspectOptions", "InspectPlan", "inspect_model", "plan_inspection"]

Progress = Callable[[str, int, int], None]  # stage, done, total

PRESETS = ("default", "paper")


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """What a person may state about an inspection; None means "find out" or "use the default".

    Attributes:
        base: name or path of the CLIP that the delivery builds on, from a source the user trusts.
        family: prompt family, where the file leaves it open.
        class_names: in the order of the logits, where the file does not hold them.
        position: place of the class token in a CoOp prompt: end, middle or front.
        quick_gelu: whether the base uses QuickGELU.
        probes: folder of unlabelled images; None uses the generated pool.
        probe_count: how many probe images are used at most.
        preset: ``default``, or ``paper`` for CLIP-Inspector as published.
        seed: the one seed of everything random.
        budget: seconds after which no further step is begun.
        work: folder for the state that ``resume`` picks up; None keeps none.
        resume: go on from the state in ``work``.
        device: torch device.
    """

    base: str | None = None
    family: str | None = None
    class_names: tuple[str, ...] | None = None
    position: str | None = None
    quick_gelu: bool | None = None
    probes: Path | None = None
    probe_count: int = 1000
    preset: str = "default"
    seed: int = 0
    budget: float | None = None
    work: Path | None = None
    resume: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"expected a preset out of {', '.join(PRESETS)}, got {self.preset!r}")
        if self.probe_count < 1:
            raise UsageError(f"expected at least one probe image, got {self.probe_count}")
        if self.budget is not None and self.budget <= 0:
            raise UsageError(f"expected a positive budget, got {self.budget} s")
        if self.resume and self.work is None:
            raise UsageError("expected --out with --resume: the state to go on from lies in that folder")


@dataclass(frozen=True, kw_only=True)
class InspectPlan:
    """What an inspection would do: one line per stage, encoder passes, and seconds on this machine (a short timing)."""

    stages: tuple[str, ...]
    image_passes: int
    seconds: float


def plan_inspection(delivery: Path, options: InspectOptions) -> InspectPlan:
    """Say what :func:`inspect_model` would do, without searching for anything."""
    raise NotImplementedError


def inspect_model(delivery: Path, options: InspectOptions, *, progress: Progress | None = None) -> Report:
    """Inspect a delivered CLIP: read it safely, reconstruct a trigger per class, judge against a null, and report.

    Raises:
        ClipvetError: one sentence, when the delivery cannot be read or something must be stated first.
    """
    raise NotImplementedError
