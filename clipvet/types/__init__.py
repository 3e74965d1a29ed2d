"""The nouns that every part shares: frozen values without logic.

A *check* looks at a model and yields findings; a *scorer* gives every pair a score; a *verdict* is what the caller makes of
either. The words are those of the documentation: delivery, base, prompt, classifier, probe images, trigger, target, null, finding,
verdict.
"""

from clipvet.types.common import Coverage, FileRecord, Severity, Skipped, Verdict
from clipvet.types.inspection import CheckResult, DeliveryInfo, Evidence, Finding, Null, NullKey, Report
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
    "CheckResult",
    "Coverage",
    "DeliveryInfo",
    "Evidence",
    "FileRecord",
    "Finding",
    "Histogram",
    "ModelRecord",
    "Neighbour",
    "Null",
    "NullKey",
    "ReferenceSet",
    "Report",
    "ScanCounts",
    "ScanReport",
    "ScanSource",
    "Severity",
    "Skipped",
    "SuspectGroup",
    "SuspectPair",
    "Threshold",
    "Verdict",
]
