"""The nouns that every part shares: frozen values without logic.

A *check* looks at a model and yields findings; a *scorer* gives every pair a score; a *verdict* is what the caller makes of
either. The words are those of the documentation: delivery, base, prompt, classifier, probe images, trigger, target, null, finding,
verdict.
"""

from clipvet.types.common import Coverage, FileRecord, Severity, Skipped, Verdict
from clipvet.types.diff import Difference, DiffReport, DiffSide, NameChanges, PartChange, TensorChange, TextMove
from clipvet.types.inspection import CheckResult, DeliveryInfo, Evidence, Finding, Null, NullKey, Report
from clipvet.types.many import ManyReport, ManyRow
from clipvet.types.repair import BeforeAfter, RepairedTrigger, RepairReport
from clipvet.types.scan import (
    Histogram,
    ModelRecord,
    Neighbour,
    ReferenceSet,
    ScanCounts,
    ScanReport,
    ScanSource,
    SuspectGroup,
    SuspectPair,
    Threshold,
)

__all__ = [
    "BeforeAfter",
    "CheckResult",
    "Coverage",
    "DeliveryInfo",
    "DiffReport",
    "DiffSide",
    "Difference",
    "Evidence",
    "FileRecord",
    "Finding",
    "Histogram",
    "ManyReport",
    "ManyRow",
    "ModelRecord",
    "NameChanges",
    "Neighbour",
    "Null",
    "NullKey",
    "PartChange",
    "ReferenceSet",
    "RepairReport",
    "RepairedTrigger",
    "Report",
    "ScanCounts",
    "ScanReport",
    "ScanSource",
    "Severity",
    "Skipped",
    "SuspectGroup",
    "SuspectPair",
    "TensorChange",
    "TextMove",
    "Threshold",
    "Verdict",
]
