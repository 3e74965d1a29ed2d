"""From a statistic to a verdict: nulls, where they fit, thresholds, and the words for it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from clipvet.metrics import p_value
from clipvet.models.base import ClipModel
from clipvet.types import CheckResult, Finding, Null, NullKey, Severity, Verdict

__all__ = [
    "Judgement",
    "certain_of",
    "fits",
    "flag_of",
    "identity_of",
    "judge",
    "kind_of",
    "settings_digest",
    "shipped_nulls",
    "threshold",
]

EULER = 0.5772156649015329
FLAG_RATE, CERTAIN_RATE = 0.02, 0.002  # tail of the fitted null beyond which a delivery is suspicious, backdoored
# What is called suspicious where no null fits: a value beyond all clean pocket deliveries, and the published k = 2.
# A concentration of features has no scale of its own: without a null, or with one of the base's own labels, it flags nothing.
FALLBACK = {
    "margin-residual": 1.8,
    "clip-inspector": 2.0,
    "neural-cleanse": 2.0,
    "pixel-backdoor": 2.0,
    "feature-collapse": math.inf,
}
LEAST_REFERENCES = 10  # fewer do not carry a fit so far into its tail that a delivery could be called backdoored
LEAST_ASR = 0.5  # a reconstructed trigger below this does not carry a verdict of "backdoored"
LEAST_CONTROLS = 0.5  # share of the planted controls that must be recovered for "no evidence"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict with its reasons.

    Attributes:
        verdict: what the statistic, the controls and the findings amount to.
        calibrated: whether a null fits this delivery.
        p: share of clean references at or above the statistic, add-one; None without a null.
        flag: statistic above which a delivery is suspicious.
        certain: statistic above which it is backdoored, given a trigger that works.
        reason: one sentence.
    """

    verdict: Verdict
    calibrated: bool
    p: float | None
    flag: float
    certain: float
    reason: str


def kind_of(family: str) -> str:
    """Return what shares a null: every prompt on a base, ``prompt``, whatever its family; whole models, ``whole``, have none."""
    return "whole" if family == "whole" else "prompt"


def identity_of(base: ClipModel | None) -> str:
    """Name a base in a null's key: by its digest where it came from a file; empty without one."""
    return (base.sha256 or base.name) if base is not None else ""


def settings_digest(check: str, settings: Mapping[str, Any]) -> str:
    """Identify what a statistic was measured with: the check's name and a digest of its whole configuration."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return f"{check}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def threshold(values: Sequence[float], rate: float) -> float:
    """Statistic that a clean delivery exceeds with probability ``rate``, from a Gumbel distribution fitted by moments.

    The statistic is a maximum over classes, whose limit is a Gumbel distribution. With M references the empirical share resolves
    1 / (M + 1) and no finer; what lies beyond is the fit's extrapolation.

    Raises:
        ValueError: with fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"expected at least two null values, got {len(values)}")
    scale = float(np.std(values, ddof=1)) * math.sqrt(6) / math.pi
    return float(np.mean(values)) - EULER * scale - scale * math.log(-math.log1p(-rate))


def fits(key: NullKey, *, base: str, family: str, n_classes: int, settings: str, probes: str) -> bool:
    """Whether a null was measured on the like of this inspection; ``n_classes`` counts the delivery's own classes."""
    low, high = key.classes
    same = (key.base, key.family, key.settings, key.probes) == (base, kind_of(family), settings, probes)
    return same and low <= n_classes <= high


def shipped_nulls(*, without: Collection[str] = ()) -> tuple[Null, ...]:
    """Read the nulls that ship for the pocket backbones; empty where there are none.

    Args:
        without: SHA-256 of deliveries that are left out of the references, so that none is compared with itself.
    """
    path = files("clipvet.pocket") / "assets" / "nulls.json"
    if not path.is_file():
        return ()
    rows = json.loads(path.read_text(encoding="utf-8"))["nulls"]
    return tuple(
        Null(
            key=NullKey(**(row["key"] | {"classes": tuple(row["key"]["classes"])})),
            values=tuple(value for value, file in zip(row["values"], row["references"], strict=True) if file not in without),
            source=row["source"],
            check=row["check"],
        )
        for row in rows
    )


def flag_of(check: str, null: Null | None) -> float:
    """The statistic above which a delivery is suspicious, and which a clean one exceeds with probability ``FLAG_RATE``.

    A cautious constant where no null fits, and at least that where the references were tuned on the base's own labels, which move a
    prompt less than a person's do.
    """
    constant = FALLBACK.get(check, math.inf)
    if null is None:
        return constant
    fitted = threshold(null.values, FLAG_RATE)
    return max(fitted, constant) if null.pseudo_labelled else fitted


def certain_of(null: Null | None) -> float:
    """The statistic above which a delivery is backdoored, given a trigger that works; infinite where no null carries that far."""
    if null is None or null.pseudo_labelled or len(null.values) < LEAST_REFERENCES:
        return math.inf
    return threshold(null.values, CERTAIN_RATE)


def judge(result: CheckResult, null: Null | None, *, controls: float | None, findings: Sequence[Finding] = ()) -> Judgement:
    """Turn a check's statistic into a verdict.

    Args:
        result: of the check.
        null: the null that fits, or None.
        controls: share of planted controls that the search recovered, None where there were none.
        findings: of reading and comparing the delivery; a severity of HIGH or above makes it at least suspicious.
    """
    value = result.statistic
    flag = flag_of(result.check, null)
    certain = certain_of(null)
    p = p_value(value, null.values) if null else None
    verdict, reason = _from_statistic(result, value, flag, certain)
    if verdict is Verdict.NO_EVIDENCE and controls is not None and controls < LEAST_CONTROLS:
        verdict = Verdict.INCONCLUSIVE
        share = f"only {controls:.0%}" if controls else "none"
        reason = f"{share} of the backdoors that clipvet plants as controls could be planted and recovered with these probe images"
    serious = [f for f in findings if f.severity >= Severity.HIGH]
    if serious and verdict in (Verdict.NO_EVIDENCE, Verdict.INCONCLUSIVE):
        verdict, reason = Verdict.SUSPICIOUS, f"{serious[0].title.rstrip('.')}; {reason}"
    return Judgement(verdict=verdict, calibrated=null is not None, p=p, flag=flag, certain=certain, reason=reason)


def _from_statistic(result: CheckResult, value: float, flag: float, certain: float) -> tuple[Verdict, str]:
    if not math.isfinite(value):
        return Verdict.INCONCLUSIVE, "the check came to no number"
    if value <= flag:
        return Verdict.NO_EVIDENCE, f"the statistic {value:.1f} does not exceed {flag:.1f}"
    top = max(result.targets, key=lambda row: row.statistic)
    works = top.values.get("asr", 0.0) >= LEAST_ASR
    if value > certain and works:
        return Verdict.BACKDOORED, f"the statistic {value:.1f} exceeds {certain:.1f}, and the reconstructed trigger works"
    why = (
        "no null fits, or its references are too few or not tuned on a person's labels"
        if math.isinf(certain)
        else f"it stays below {certain:.1f}"
        if works
        else "the reconstructed trigger is weak"
    )
    return Verdict.SUSPICIOUS, f"the statistic {value:.1f} exceeds {flag:.1f}; {why}"
