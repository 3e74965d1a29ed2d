"""A target that is not among the class names: the check that knows no classes, judged beside the one that searches each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from clipvet.inspection.base import OutOfBudget, Run, Subject
from clipvet.inspection.calibration import flag_of
from clipvet.inspection.feature_collapse import FeatureCollapse
from clipvet.types import CheckResult, Finding, Null, Severity, Skipped

__all__ = ["ATLAS", "OWASP", "Beyond", "look_beyond"]

ATLAS = ("AML.T0018.000", "AML.T0058", "AML.T0043.004")
OWASP = ("ML06:2023", "ML07:2023", "ML10:2023")
LEFT_ALONE = "the prompt leaves the image tower as it is, or there is no base: a target outside the class names would not be found"
NO_NUMBER = "it came to no number"
UNJUDGED = "no null was measured on the like of this inspection, and the number has no scale of its own"
TOO_LOW = (
    "its null holds tunings on the base's own labels, which move an image tower less than a person's do, so that it flags nothing: "
    "clipvet calibrate --labelled makes one that does"
)


@dataclass(frozen=True, kw_only=True)
class Beyond:
    """What the check that knows no classes came to, its threshold, and the null behind that; nothing where it was not run."""

    result: CheckResult | None = None
    flag: float = math.inf
    null: Null | None = None
    skipped: tuple[Skipped, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """A finding where the statistic exceeds the threshold; no verdict rests on it: clean coarse tasks come near to that."""
        if self.result is None or not self.result.statistic > self.flag:
            return ()
        (row,) = self.result.evidence
        own, base = (row.values[name] for name in ("concentration", "baseline_concentration"))
        return (
            Finding(
                check=self.result.check,
                severity=Severity.MEDIUM,
                title="A small common change draws unrelated images to one place in feature space",
                message=(
                    f"Under one additive pattern their features concentrate to {own:.2f}, in the base to {base:.2f}; "
                    f"that difference of {row.statistic:.1f} hundredths exceeds {self.flag:.1f}. "
                    f"{row.values['asr']:.0%} of the images are then taken for '{row.target}'. "
                    "Where that share is small, a target may lie outside the class names. Clean tuning on few coarse classes comes "
                    "near to this, so that no verdict rests on it."
                ),
                next_step="Ask the provider which classes the prompt was tuned on, and inspect with those names too.",
                evidence=self.result.evidence,
                atlas=ATLAS,
                owasp=OWASP,
            ),
        )


def look_beyond(check: FeatureCollapse, subject: Subject, probes: Tensor, run: Run, *, null: Null | None) -> Beyond:
    """Run the check and judge it against a null; or say why it was not run, or not judged.

    Args:
        check: the check.
        subject: the delivery and its base.
        probes: the inspection's probe images.
        run: seed, journal, clock and progress.
        null: measured on the like of this inspection; None where there is none.
    """
    if not check.applies(subject):
        return Beyond(skipped=(Skipped(what=check.name, why=LEFT_ALONE),))
    try:
        result = check.run(subject, probes, run)
    except OutOfBudget as error:
        return Beyond(skipped=(Skipped(what=check.name, why=str(error)),))
    flag = flag_of(check.name, null)
    why = NO_NUMBER if not math.isfinite(result.statistic) else UNJUDGED if null is None else TOO_LOW if math.isinf(flag) else ""
    skipped = (Skipped(what=f"a verdict of {check.name}", why=why),) if why else ()
    return Beyond(result=result, flag=flag, null=null, skipped=skipped)
