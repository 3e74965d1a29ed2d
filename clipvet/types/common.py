"""The nouns that every question shares."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Coverage", "FileRecord", "Severity", "Skipped", "Verdict"]


class Severity(enum.IntEnum):
    """How much a finding matters to the person who would use the model."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class Verdict(enum.StrEnum):
    """What a set of findings amounts to. There is no "clean": absence of evidence is named as such."""

    NO_EVIDENCE = "no evidence"
    INCONCLUSIVE = "inconclusive"
    SUSPICIOUS = "suspicious"
    BACKDOORED = "backdoored"


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something that was not done, and why."""

    what: str
    why: str


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file that was read: its path as given, its size in bytes, its SHA-256, and how it was read."""

    path: str
    size: int
    sha256: str
    reader: str = ""
    stubbed_globals: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of what was asked was done, as counts."""

    done: int
    asked: int

    @property
    def share(self) -> float:
        """Done over asked, 1.0 where nothing was asked."""
        return self.done / self.asked if self.asked else 1.0
