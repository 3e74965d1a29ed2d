"""The nouns of a scan: which pairs of a data set stand out, and the report on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clipvet.types.common import Coverage, Skipped, Verdict

__all__ = [
    "Histogram",
    "ModelRecord",
    "Neighbour",
    "ReferenceSet",
    "ScanCounts",
    "ScanReport",
    "ScanSource",
    "SuspectGroup",
    "SuspectPair",
    "Threshold",
]


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A pair that lies near a suspect: the cosine similarity of the two, and a small picture of it."""

    key: str
    caption: str
    similarity: float
    thumbnail: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class SuspectPair:
    """One of the pairs with the highest scores.

    ``rank`` 1 is the worst pair of the scan. ``score`` is that of the scan's scorer, ``scores`` holds those of all scorers by
    name. ``group`` is the number of the :class:`SuspectGroup` that the pair belongs to. ``thumbnail`` is a small picture as the
    bytes of a WebP, PNG or JPEG file.
    """

    key: str
    shard: str
    caption: str
    score: float
    rank: int
    uid: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    group: int | None = None
    thumbnail: bytes | None = None
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SuspectGroup:
    """Flagged pairs that are alike: what a trigger with one target leaves behind, but ordinary copies do so too.

    ``size`` counts all members, ``share`` is that part of all pairs in [0, 1], and ``keys`` names a few of them. ``caption`` is
    the common one, ``likeness`` says in words what makes the members alike, ``note`` what speaks for or against an attack.
    """

    number: int
    size: int
    caption: str
    share: float
    mean_score: float
    keys: tuple[str, ...] = ()
    likeness: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ScanSource:
    """What was scanned: the format in words, the paths as given, role -> column or member that plays it, notes on the data."""

    kind: str
    paths: tuple[str, ...]
    mapping: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The model that made the features: its name, and the SHA-256 and size in bytes of its weights."""

    name: str
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class ReferenceSet:
    """What scores are measured against: pairs from where, in words, how many, and how many neighbours count (0: it has none)."""

    text: str
    size: int
    k: int


@dataclass(frozen=True, kw_only=True)
class ScanCounts:
    """Pairs by what became of them.

    ``pairs`` is all that the source holds: ``scored``, plus ``not_scored`` (read, but the score is NaN), plus the sum of
    ``unread``, which counts by kind. ``examples`` names a few of each kind, as text. ``flagged`` counts the pairs at or above the
    threshold.
    """

    pairs: int
    scored: int
    flagged: int
    not_scored: int = 0
    unread: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The score from which a pair is flagged, the largest share of untouched pairs that it flags, and why, in one sentence."""

    value: float
    flag_rate: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many finite scores lie in each bin; ``edges`` are one more than ``counts`` and rise."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ScanReport:
    """Everything a reader needs to decide which pairs to drop: rendered by ``clipvet.reports`` and by nothing else.

    The verdict of a scan is at most ``suspicious``: a score shows that a pair is unlike others, not why. ``scorer`` is the one
    that pairs are ranked and flagged by, ``scorers`` are all that ran. ``trusted_model`` is the one that ``model`` was compared
    with, if any. ``suspects`` are the worst pairs by rising rank.
    ``warnings`` say what weakens this scan, one sentence each. ``coverage`` counts pairs. ``written`` are the paths of all files
    written. ``exit_code`` is what the command line ends with, where a command line made the report.
    """

    source: ScanSource
    verdict: Verdict
    summary: str
    scorer: str
    counts: ScanCounts
    scorers: tuple[str, ...] = ()
    model: ModelRecord | None = None
    trusted_model: ModelRecord | None = None
    reference: ReferenceSet | None = None
    threshold: Threshold | None = None
    histogram: Histogram | None = None
    suspects: tuple[SuspectPair, ...] = ()
    groups: tuple[SuspectGroup, ...] = ()
    warnings: tuple[str, ...] = ()
    coverage: Coverage = field(default=Coverage(done=0, asked=0))
    skipped: tuple[Skipped, ...] = ()
    errors: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    next_steps: tuple[str, ...] = ()
    started: str = ""
    seconds: float = 0.0
    exit_code: int | None = None
