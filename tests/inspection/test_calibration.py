"""Thresholds are those of a fitted Gumbel distribution, nulls apply where they were measured, verdicts follow a table."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import gumbel_r

from clipvet.inspection import CHECKS, ClipInspector, NeuralCleanse, PixelBackdoor, calibration
from clipvet.inspection.calibration import (
    CERTAIN_RATE,
    FALLBACK,
    FLAG_RATE,
    certain_of,
    fits,
    flag_of,
    judge,
    kind_of,
    settings_digest,
    shipped_nulls,
    threshold,
)
from clipvet.models.families import FAMILIES
from clipvet.types import CheckResult, Evidence, Finding, Null, NullKey, Severity, Verdict

VALUES = tuple(float(value) for value in gumbel_r.rvs(2.0, 0.7, size=40, random_state=0))
KEY = NullKey(base="abc", family="prompt", classes=(8, 12), settings="margin-residual:0", probes="generated pool, 1000")
NULL = Null(key=KEY, values=VALUES)
FLAG, CERTAIN = threshold(VALUES, FLAG_RATE), threshold(VALUES, CERTAIN_RATE)


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.02, 0.002, 1e-6])
@pytest.mark.parametrize("values", [VALUES, (1.0, 2.0), tuple(range(30))])
def test_the_threshold_is_the_tail_of_the_gumbel_with_these_moments(values: tuple[float, ...], rate: float) -> None:
    scale = np.std(values, ddof=1) / gumbel_r.std()
    loc = np.mean(values) - gumbel_r.mean() * scale
    assert (gumbel_r.mean(loc, scale), gumbel_r.std(loc, scale)) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert threshold(values, rate) == pytest.approx(gumbel_r.isf(rate, loc, scale), abs=1e-6)


def test_a_threshold_needs_two_values() -> None:
    with pytest.raises(ValueError, match="expected at least two null values, got 1"):
        threshold([1.0], 0.1)


def test_one_in_fifty_clean_deliveries_exceeds_the_flag() -> None:
    many = gumbel_r.rvs(5.0, 2.0, size=20_000, random_state=1)
    assert (many > threshold(many.tolist(), FLAG_RATE)).mean() == pytest.approx(FLAG_RATE, abs=0.004)
    assert flag_of("margin-residual", NULL) == FLAG


def test_a_null_of_the_base_s_own_labels_is_not_trusted_alone() -> None:
    """It never lowers the threshold below the constant, and never carries the graver verdict."""
    narrow, wide = tuple(0.3 + 0.01 * i for i in range(20)), tuple(float(i) for i in range(20))
    for values, flag in ((narrow, 1.8), (wide, threshold(wide, 0.02))):
        null = Null(key=KEY, values=values, pseudo_labelled=True)
        assert flag_of("margin-residual", null) == flag
        assert certain_of(null) == math.inf
        assert certain_of(Null(key=KEY, values=values)) == threshold(values, 0.002)


def test_without_a_null_each_check_has_a_constant_of_its_own() -> None:
    assert FALLBACK.keys() == CHECKS.keys()
    constant = flag_of("margin-residual", None)
    assert all(
        max(null.values) < threshold(null.values, 0.005) < constant for null in shipped_nulls() if null.check == "margin-residual"
    )
    for check in (ClipInspector, NeuralCleanse, PixelBackdoor):
        assert flag_of(check.name, None) == check.k == 2
    assert flag_of("feature-collapse", None) == flag_of("a check that has none", None) == math.inf


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"base": "abd"}, False),
        ({"family": "zero-shot"}, True),
        ({"family": "maple"}, True),
        ({"family": "whole"}, False),
        ({"n_classes": 8}, True),
        ({"n_classes": 12}, True),
        ({"n_classes": 7}, False),
        ({"n_classes": 13}, False),
        ({"settings": "margin-residual:1"}, False),
        ({"probes": "generated pool, 999"}, False),
    ],
)
def test_a_null_fits_the_like_of_what_it_was_measured_on(changed: dict[str, object], expected: bool) -> None:
    like: dict[str, Any] = {"base": "abc", "family": "coop", "n_classes": 10, "settings": KEY.settings, "probes": KEY.probes}
    assert fits(KEY, **(like | changed)) is expected


def test_prompts_share_a_null_and_whole_models_have_none() -> None:
    assert {kind_of(name) for name in FAMILIES} == {"prompt"}
    assert kind_of("whole") == "whole"


def test_the_digest_names_the_check_and_every_setting() -> None:
    settings = {"strength": 0.03, "shapes": (("patch", 0.04),), "steps": 12}
    digest = settings_digest("check", settings)
    assert digest.startswith("check:")
    assert settings_digest("check", dict(reversed(settings.items()))) == digest
    assert settings_digest("check", settings | {"steps": 13}) != digest
    assert settings_digest("other", settings).split(":")[1] == digest.split(":")[1]


def test_nulls_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "files", lambda package: tmp_path)
    assert shipped_nulls() == ()
    (tmp_path / "assets").mkdir()
    key = {"base": "abc", "family": "prompt", "classes": [8, 12], "settings": KEY.settings, "probes": KEY.probes}
    files = [f"file {number}" for number in range(len(VALUES))]
    rows = [{"key": key, "values": list(VALUES), "references": files, "source": "pocket-1", "check": "margin-residual"}]
    (tmp_path / "assets" / "nulls.json").write_text(json.dumps({"nulls": rows}), encoding="utf-8")
    assert shipped_nulls() == (Null(key=KEY, values=VALUES, source="pocket-1", check="margin-residual"),)
    assert shipped_nulls(without=["file 1", "another"])[0].values == (VALUES[0], *VALUES[2:])


def result(statistic: float, asr: float = 1.0, check: str = "margin-residual") -> CheckResult:
    rows = (
        Evidence(target="low", statistic=statistic - 1, values={"asr": 1 - asr}),
        Evidence(target="top", statistic=statistic, values={"asr": asr}),
    )
    return CheckResult(check=check, statistic=statistic, evidence=rows)


def finding(severity: Severity) -> Finding:
    return Finding(check="prefix", severity=severity, title="A tower was changed.", message="")


CONSTANT = FALLBACK["margin-residual"]
LOW, MIDDLE, HIGH = FLAG - 0.5, (FLAG + CERTAIN) / 2, CERTAIN + 0.5
NO, SUSPICIOUS, BACKDOORED, OPEN = Verdict.NO_EVIDENCE, Verdict.SUSPICIOUS, Verdict.BACKDOORED, Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("statistic", "asr", "null", "controls", "severity", "verdict", "reason"),
    [
        (LOW, 1.0, NULL, 1.0, None, NO, "does not exceed"),
        (FLAG, 1.0, NULL, 1.0, None, NO, "does not exceed"),
        (LOW, 1.0, NULL, 0.5, None, NO, "does not exceed"),
        (LOW, 1.0, NULL, None, None, NO, "does not exceed"),
        (LOW, 1.0, NULL, 0.49, None, OPEN, "only 49% of the backdoors that clipvet plants as controls could be"),
        (LOW, 1.0, NULL, 1.0, Severity.MEDIUM, NO, "does not exceed"),
        (LOW, 1.0, NULL, 1.0, Severity.HIGH, SUSPICIOUS, "A tower was changed; the statistic"),
        (LOW, 1.0, NULL, 0.0, Severity.CRITICAL, SUSPICIOUS, "A tower was changed; none of the backdoors"),
        (math.nan, 1.0, NULL, None, None, OPEN, "the check came to no number"),
        (math.nan, 1.0, NULL, None, Severity.HIGH, SUSPICIOUS, "A tower was changed; the check came to no number"),
        (MIDDLE, 1.0, NULL, 1.0, None, SUSPICIOUS, "it stays below"),
        (MIDDLE, 1.0, NULL, 0.0, None, SUSPICIOUS, "it stays below"),
        (MIDDLE, 0.4, NULL, 1.0, None, SUSPICIOUS, "the reconstructed trigger is weak"),
        (HIGH, 1.0, NULL, 1.0, None, BACKDOORED, "and the reconstructed trigger works"),
        (HIGH, 0.5, NULL, 0.0, Severity.HIGH, BACKDOORED, "and the reconstructed trigger works"),
        (HIGH, 0.49, NULL, 1.0, None, SUSPICIOUS, "the reconstructed trigger is weak"),
        (CONSTANT, 1.0, None, 1.0, None, NO, "does not exceed 1.8"),
        (CONSTANT + 99, 1.0, None, 1.0, None, SUSPICIOUS, "exceeds 1.8; no null fits"),
        (CONSTANT - 1, 1.0, None, 0.0, None, OPEN, "none of the backdoors"),
    ],
)
def test_verdicts(
    statistic: float,
    asr: float,
    null: Null | None,
    controls: float | None,
    severity: Severity | None,
    verdict: Verdict,
    reason: str,
) -> None:
    found = judge(result(statistic, asr), null, controls=controls, findings=[finding(severity)] if severity is not None else [])
    assert found.verdict is verdict
    assert reason in found.reason
    assert found.calibrated is (null is not None)
    assert found.flag == (FLAG if null else CONSTANT)
    assert found.certain == (CERTAIN if null else math.inf)
    if null is None:
        assert found.p is None
    elif not math.isnan(statistic):
        assert found.p == (1 + sum(value >= statistic for value in VALUES)) / (1 + len(VALUES))


@pytest.mark.parametrize(("statistic", "verdict", "reason"), [(2.0, NO, "does not exceed 2.0"), (2.1, SUSPICIOUS, "no null fits")])
def test_the_published_rule_is_judged_by_its_own_k(statistic: float, verdict: Verdict, reason: str) -> None:
    found = judge(result(statistic, check="clip-inspector"), None, controls=None)
    assert (found.verdict, found.flag, found.certain, found.p) == (verdict, 2.0, math.inf, None)
    assert reason in found.reason
