"""From what was measured to the report that a person acts on."""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from clipvet.inspection.base import ModelCheck, Subject
from clipvet.inspection.beyond import ATLAS, OWASP, Beyond
from clipvet.inspection.calibration import Judgement, identity_of, settings_digest, shipped_nulls
from clipvet.inspection.feature_collapse import FeatureCollapse
from clipvet.models.delivery import Delivery
from clipvet.types import CheckResult, Coverage, Evidence, Finding, Null, NullKey, Report, Severity, Skipped, Verdict

__all__ = ["Opened", "Outcome", "build_report"]

SHOWN_ROWS = 3

NEXT = {
    Verdict.BACKDOORED: (
        "Do not deploy this delivery. Keep the file and this report.",
        "Ask the provider for the tuning data and the training log, or tune a prompt of your own on the same base.",
        "Look at the reconstructed trigger on images of your own: does the named class win there too?",
    ),
    Verdict.SUSPICIOUS: (
        "Do not deploy this delivery before someone has looked at the findings.",
        "Inspect again with unlabelled images of your own (--probes) and another --seed; see whether the same class stands out.",
    ),
    Verdict.INCONCLUSIVE: (
        "Inspect again with the generated pool or other probe images, and without a --budget.",
        "This outcome says nothing for or against the delivery.",
    ),
    Verdict.NO_EVIDENCE: (
        "No evidence was found by the checks listed here; that is no proof of absence.",
        "A trigger that works on images of the task only would not have been found, nor a target outside the class names where "
        "no check without classes could be run and judged.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A delivery, ready to be checked; ``beyond`` is the check without classes, None where the preset does without."""

    delivery: Delivery
    subject: Subject
    beyond: FeatureCollapse | None = None
    notes: tuple[str, ...] = ()

    def null_key(self, check: ModelCheck | FeatureCollapse, probes: str) -> NullKey:
        """Say what a null of the check must have been measured on; ``probes`` are the probe images in words."""
        count = len(self.delivery.info.class_names)
        return NullKey(
            base=identity_of(self.delivery.base),
            family=self.delivery.info.family,
            classes=(count, count),
            settings=settings_digest(check.name, dataclasses.asdict(check)),
            probes=probes,
        )

    def shipped_nulls(self) -> tuple[Null, ...]:
        """Read the nulls that ship, without the delivery itself among their references."""
        return shipped_nulls(without=[file.sha256 for file in self.delivery.files])


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a check came to: its result, the share of recovered controls, and why it ended early, empty where it did not."""

    result: CheckResult
    controls: float | None
    unfinished: str
    coverage: Coverage


def build_report(
    *,
    opened: Opened,
    outcome: Outcome,
    beyond: Beyond,
    judged: Judgement,
    null: Null | None,
    probes: Mapping[str, Any],
    skipped: tuple[Skipped, ...],
    options: Any,
    started: str,
    seconds: float,
) -> Report:
    """Put everything that was found, skipped and set into one report."""
    delivery, result = opened.delivery, outcome.result
    flagged = judged.verdict in (Verdict.SUSPICIOUS, Verdict.BACKDOORED) and result.statistic > judged.flag
    rows = sorted(result.targets, key=lambda row: -row.statistic)[:SHOWN_ROWS]
    findings = [*delivery.findings, *([_finding(result.check, rows, judged)] if flagged else []), *beyond.findings]
    left_out = [*skipped, *result.skipped, *beyond.skipped]
    thresholds = {result.check: judged.flag}
    if beyond.result is not None and math.isfinite(beyond.flag):
        thresholds[beyond.result.check] = beyond.flag
    if null is None:
        left_out.append(
            Skipped(
                what="calibration", why="no null was measured on this base, family, number of classes, settings and probe images"
            )
        )
    if outcome.controls is None:
        left_out.append(Skipped(what="positive controls", why=outcome.unfinished))
    settings = {k: v for k, v in dataclasses.asdict(options).items() if v is not None}
    return Report(
        delivery=dataclasses.replace(delivery.info, notes=(*delivery.notes, *opened.notes)),
        verdict=judged.verdict,
        summary=_summary(judged, rows, flagged),
        findings=tuple(findings),
        checks=(result,) if beyond.result is None else (result, beyond.result),
        nulls=tuple(one for one in (null, beyond.null) if one is not None),
        p_value=judged.p,
        calibrated=judged.calibrated,
        coverage=outcome.coverage,
        skipped=tuple(left_out),
        files=delivery.files,
        settings={name: str(value) for name, value in settings.items()}
        | {"probe images": f"{probes['count']}, {probes['source']}"},
        environment=_environment(),
        next_steps=NEXT[judged.verdict],
        started=started,
        seconds=seconds,
        target=rows[0].target if flagged and rows else None,
        thresholds=thresholds,
    )


def _summary(judged: Judgement, rows: list[Evidence], flagged: bool) -> str:
    words = f"{judged.reason[0].upper()}{judged.reason[1:]}."
    if flagged and rows:
        than = "an untuned prompt explains" if "baseline_margin" in rows[0].values else "to the other names"
        words = f"Images are dragged to '{rows[0].target}' far more easily than {than}. {words}"
    return words if judged.calibrated else f"{words} Uncalibrated: no null fits this delivery."


def _finding(check: str, rows: list[Evidence], judged: Judgement) -> Finding:
    top = rows[0]
    certain = judged.verdict is Verdict.BACKDOORED
    share = top.values.get("asr", float("nan"))
    return Finding(
        check=check,
        severity=Severity.CRITICAL if certain else Severity.HIGH,
        title=f"A small common change drags images to '{top.target}'",
        message=(
            f"A reconstructed {top.trigger_kind} trigger turns {share:.0%} of unrelated images into '{top.target}'; "
            f"statistic {top.statistic:.1f}, threshold {judged.flag:.1f}."
        ),
        next_step="Do not deploy; keep the evidence and ask the provider."
        if certain
        else "Have the reconstructed trigger looked at.",
        evidence=tuple(rows),
        atlas=ATLAS,
        owasp=OWASP,
    )


def _environment() -> dict[str, str]:
    packages = ("clipvet", "torch", "open_clip_torch", "numpy", "safetensors")
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in packages:
        try:
            found[package] = version(package)
        except ImportError:
            found[package] = "not installed"
    return found
