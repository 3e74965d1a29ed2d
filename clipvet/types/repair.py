"""The nouns of a repair: what it was given, what it cost, and the report on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clipvet.types.common import FileRecord, Skipped
from clipvet.types.inspection import DeliveryInfo

__all__ = ["BeforeAfter", "RepairReport", "RepairedTrigger"]


@dataclass(frozen=True, kw_only=True)
class BeforeAfter:
    """A share in [0, 1] of the same ``images`` before and after a repair, each with its 95 % interval; NaN where there are none."""

    before: float
    after: float
    before_interval: tuple[float, float]
    after_interval: tuple[float, float]
    images: int


@dataclass(frozen=True, kw_only=True)
class RepairedTrigger:
    """One reconstructed trigger that took part in a repair, and what it does to images before and after.

    ``asr`` is the share of images of other classes that it turns into ``target``, ``ta`` the accuracy on images with it.
    """

    target: str
    target_index: int
    kind: str
    statistic: float
    asr: BeforeAfter
    ta: BeforeAfter


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """Everything a reader needs to decide about a repaired delivery: rendered by ``clipvet.reports`` and by nothing else.

    ``succeeded`` says whether the ASR of all triggers of the first one's target is at most ``largest_asr`` after the repair.
    ``triggers`` begin with the most suspicious one; nobody knows the planted one, so all of them are reconstructed.
    ``measured_on`` says in words which images the numbers are from, ``files`` are those that were read, ``written`` the repaired
    ones. ``exit_code`` is what the command line ends with, where a command line made the report.
    """

    delivery: DeliveryInfo
    method: str
    succeeded: bool
    largest_asr: float
    summary: str
    ca: BeforeAfter
    triggers: tuple[RepairedTrigger, ...]
    measured_on: str
    tuned_on: str
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    files: tuple[FileRecord, ...] = ()
    written: tuple[FileRecord, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    next_steps: tuple[str, ...] = ()
    started: str = ""
    seconds: float = 0.0
    exit_code: int | None = None
