"""The table of the repairs counts what its rows say."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks import repair_zoo
from tests.repair import toys


def run(variant: str, *, asr: float, ca: float = 0.95, ta: float = 0.93, change: float = 0.0) -> dict[str, Any]:
    before = {"ca": 0.95, "asr": 0.9, "ta": 0.1}
    row: dict[str, Any] = {"name": f"{variant} {asr}", "variant": variant, "before": before, "ca_change": change}
    row |= {"after": {"ca": ca, "asr": asr, "ta": ta}, "twin": {"ca": 0.96, "asr": 0.04, "ta": 0.9}}
    return row | {"afterwards": {"ca": ca, "asr": asr, "ta": ta}, "verdict": "no evidence" if asr < 0.5 else "suspicious"}


def test_the_table_counts_what_meets_the_bars() -> None:
    rows = [run("repair", asr=0.01), run("repair", asr=0.03, change=-0.004), run("repair", asr=0.6, ta=0.5, change=-0.02)]
    told = {row["what"]: row["measured"] for row in repair_zoo.table([*rows, run("clean", asr=0.8)])}
    assert told["ASR as delivered"] == "90.0% (worst 90.0%)"
    assert told["ASR after: the repair (n = 3)"] == "21.3% (worst 60.0%)"
    assert told["TA after: the repair (n = 3)"] == "78.7% (worst 50.0%)"
    assert told["ASR after: clean images only (n = 1)"] == "80.0% (worst 80.0%)"
    assert told["ASR of the planted trigger at most 2 %"] == "1 of 3"
    assert told["ASR at most that of the clean twin, or 2 %"] == "2 of 3"
    assert told["CA at most 0.5 points lower"] == "2 of 3"
    assert told["TA at least 95 % of CA"] == "2 of 3"
    assert told["repaired deliveries with no evidence when inspected again"] == "2 of 3"


def test_the_noise_control_has_the_triggers_bound() -> None:
    (row,) = repair_zoo.evidence_for("noise", [toys.evidence()], None, seed=0)
    assert row.trigger is not None
    noise = row.trigger["delta"]
    assert 0.2 < float(noise.abs().max()) <= 0.25
    assert abs(float((noise * toys.stripes()).mean())) < 0.01 * float(toys.stripes().square().mean()) ** 0.5
    assert noise.shape == toys.stripes().shape
    assert torch.equal(noise, repair_zoo.evidence_for("noise", [toys.evidence()], None, seed=0)[0].trigger["delta"])
