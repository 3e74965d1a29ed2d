"""Model-level checks, their calibration and the verdict."""

from clipvet.inspection.base import ModelCheck, Run, Subject
from clipvet.inspection.clip_inspector import ClipInspector
from clipvet.inspection.feature_collapse import FeatureCollapse
from clipvet.inspection.margin_residual import MarginResidual
from clipvet.inspection.neural_cleanse import NeuralCleanse
from clipvet.inspection.pixel_backdoor import PixelBackdoor

__all__ = [
    "CHECKS",
    "ClipInspector",
    "FeatureCollapse",
    "MarginResidual",
    "ModelCheck",
    "NeuralCleanse",
    "PixelBackdoor",
    "Run",
    "Subject",
]

_BY_CLASS: tuple[type[ModelCheck], ...] = (MarginResidual, ClipInspector, NeuralCleanse, PixelBackdoor)
CHECKS: dict[str, type[ModelCheck] | type[FeatureCollapse]] = {check.name: check for check in _BY_CLASS}
CHECKS[FeatureCollapse.name] = FeatureCollapse
