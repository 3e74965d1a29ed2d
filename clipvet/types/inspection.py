"""The nouns of an inspection: what a check found in a model, and the report on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clipvet.types.common import Coverage, FileRecord, Severity, Skipped, Verdict

if TYPE_CHECKING:
    import torch

__all__ = ["CheckResult", "DeliveryInfo", "Evidence", "Finding", "Null", "NullKey", "Report"]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One row of what a check measured, for one target.

    ``target_kind`` is ``class``, ``comparison`` (a name put beside the classes, that no verdict rests on), ``text`` or
    ``feature``. ``values`` holds the named numbers; the names that reports know how to label are ``asr`` (reconstructed ASR in
    [0, 1]), ``margin``, ``baseline_margin`` (the hand-written prompt's, under the same trigger), ``final_loss`` and
    ``anomaly_index``; any other name is shown as it is, and a name that begins with ``asr`` as a percentage. ``trigger`` is the
    reconstructed trigger's tensors, by name: ``delta`` (3, h, w), additive, or ``mask`` (1, h, w) with ``pattern`` (3, h, w);
    ``samples`` (n, 3, h, w) are probe images in [0, 1] to show it on, and ``triggered`` (n, 3, h, w) the same images with the
    trigger.
    """

    target: str
    target_kind: str = "class"
    target_index: int | None = None
    trigger_kind: str = ""
    statistic: float = float("nan")
    values: Mapping[str, float] = field(default_factory=dict)
    trigger: Mapping[str, torch.Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found. ``check`` is the name of the check's class in lower kebab case."""

    check: str
    severity: Severity
    title: str
    message: str
    next_step: str = ""
    evidence: tuple[Evidence, ...] = ()
    atlas: tuple[str, ...] = ()
    owasp: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NullKey:
    """What a null was measured on. Where it does not fit, a verdict is at most ``suspicious``."""

    base: str
    family: str
    classes: tuple[int, int]
    settings: str
    probes: str


@dataclass(frozen=True, kw_only=True)
class Null:
    """How a statistic is distributed where nothing was planted.

    ``values`` are the statistic's values over clean references, one per reference delivery. M references resolve a
    false-positive rate of 1 / (M + 1) and no finer. ``check`` names the check whose statistic it is; empty where a report
    has one check only. ``pseudo_labelled`` says that the references were tuned on labels of the base's own: such a null is too
    narrow in its tail to be trusted alone.
    """

    key: NullKey
    values: tuple[float, ...]
    source: str = ""
    check: str = ""
    pseudo_labelled: bool = False


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one check returns: evidence rows for every target, and findings it can state without a null.

    ``statistic`` is the delivery's one number (the maximum over targets); a verdict is made from it by the caller.
    """

    check: str
    statistic: float
    evidence: tuple[Evidence, ...] = ()
    findings: tuple[Finding, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    control: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)

    @property
    def targets(self) -> tuple[Evidence, ...]:
        """Rows that a verdict may rest on: all but those of names that are there for comparison."""
        return tuple(row for row in self.evidence if row.target_kind != "comparison")


@dataclass(frozen=True, kw_only=True)
class DeliveryInfo:
    """What a delivery was found to be."""

    path: str
    family: str
    base: str
    class_names: tuple[str, ...]
    class_names_source: str
    quick_gelu: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a reader needs to act on: rendered by ``clipvet.reports`` and by nothing else.

    ``target`` is the target that the verdict names. ``thresholds`` maps a check's name to the value of its statistic at
    which the verdict changes. ``exit_code`` is what the command line ends with, where a command line made the report.
    """

    delivery: DeliveryInfo
    verdict: Verdict
    summary: str
    findings: tuple[Finding, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    nulls: tuple[Null, ...] = ()
    p_value: float | None = None
    calibrated: bool = False
    coverage: Coverage = field(default=Coverage(done=0, asked=0))
    skipped: tuple[Skipped, ...] = ()
    errors: tuple[str, ...] = ()
    files: tuple[FileRecord, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    next_steps: tuple[str, ...] = ()
    started: str = ""
    seconds: float = 0.0
    target: str | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    exit_code: int | None = None
