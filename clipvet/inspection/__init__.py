"""Model-level checks, their calibration and the verdict."""

from clipvet.inspection.base import ModelCheck, Run, Subject
from clipvet.inspection.clip_inspector import ClipInspector
from clipvet.inspection.margin_residual import MarginResidual

__all__ = ["CHECKS", "ClipInspector", "MarginResidual", "ModelCheck", "Run", "Subject"]

CHECKS: dict[str, type[ModelCheck]] = {MarginResidual.name: MarginResidual, ClipInspector.name: ClipInspector}
