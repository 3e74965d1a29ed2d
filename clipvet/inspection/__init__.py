"""Model-level checks, their calibration and the verdict."""

from clipvet.inspection.base import ModelCheck, Run, Subject
from clipvet.inspection.clip_inspector import ClipInspector
from clipvet.inspection.margin_residual import MarginResidual
from clipvet.inspection.neural_cleanse import NeuralCleanse
from clipvet.inspection.pixel_backdoor import PixelBackdoor

__all__ = ["CHECKS", "ClipInspector", "MarginResidual", "ModelCheck", "NeuralCleanse", "PixelBackdoor", "Run", "Subject"]

CHECKS: dict[str, type[ModelCheck]] = {check.name: check for check in (MarginResidual, ClipInspector, NeuralCleanse, PixelBackdoor)}
