"""Realistic reports, one for each verdict, and one whose every name is hostile."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from clipvet.types import (
    CheckResult,
    Coverage,
    DeliveryInfo,
    Evidence,
    FileRecord,
    Finding,
    Null,
    NullKey,
    Report,
    Severity,
    Skipped,
    Verdict,
)

NAMES = (
    "cat face",
    "dog",
    "bear",
    "monkey",
    "horse",
    "cow",
    "pig",
    "mouse",
    "rabbit",
    "fox",
    "lion",
    "tiger",
    "wolf",
    "frog",
    "bird",
)
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "{{ 7 * 7 }}{% raw %}",
    "[bold red]markup[/bold red][link=http://x]y[/link]",
    "\x1b[31mred\x1b[0m\x07",
    "\u202egnp.exe",
    "a" * 400,
    "русский 猫 🐱‍👤 é",
    "\udcff\udcfe undecodable",
    "line\nbreak\ttab",
    "",
    "   ",
    "]]></script><!--",
)
CHECK = "clip-inspector"
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def images(count: int, side: int = 64, seed: int = 7) -> torch.Tensor:
    """Smooth coloured pictures (count, 3, side, side) in [0, 1]."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)


def additive(side: int = 64, eps: float = 8 / 255) -> dict[str, torch.Tensor]:
    delta = eps * torch.sign(images(1, side, seed=3)[0] - 0.5)
    samples = images(5, side)
    return {"delta": delta, "samples": samples, "triggered": (samples + delta).clamp(0, 1)}


def patch(side: int = 64) -> dict[str, torch.Tensor]:
    mask = torch.zeros(1, side, side)
    mask[:, -12:, -12:] = 1.0
    pattern = torch.rand(3, side, side, generator=torch.Generator().manual_seed(5))
    samples = images(5, side)
    return {"mask": mask, "pattern": pattern, "samples": samples, "triggered": samples * (1 - mask) + pattern * mask}


def evidence(names: tuple[str, ...], peak: float) -> tuple[Evidence, ...]:
    rows = []
    for index, name in enumerate(names):
        base = math.sin(1.7 * index) * 1.3
        for kind, shift in (("additive", 0.0), ("patch", -0.4)):
            statistic = peak + shift if index == 2 else base + shift
            rows.append(
                Evidence(
                    target=name,
                    target_index=index,
                    trigger_kind=kind,
                    statistic=statistic,
                    values={
                        "asr": 0.985 if index == 2 else 0.2 + 0.01 * (index % 30),
                        "margin": 4.125 + statistic,
                        "baseline_margin": 1.0625 + 0.01 * index,
                        "final_loss": 0.0309,
                    },
                    trigger=additive() if index in (2, 5) and kind == "additive" else patch() if index == 2 else None,
                )
            )
    return tuple(rows)


def null(count: int = 40) -> Null:
    values = tuple(round(2.0 + 0.9 * math.sin(2.3 * place) + 0.02 * place, 4) for place in range(count))
    key = NullKey(base="pocket-1", family="cocoop", classes=(10, 20), settings="default@64px, eps 8/255", probes="pictures-1000")
    return Null(key=key, values=values, source="40 reference tunings shipped with the zoo", check=CHECK)


def check(names: tuple[str, ...] = NAMES, peak: float = 8.75) -> CheckResult:
    rows = evidence(names, peak)
    return CheckResult(
        check=CHECK,
        statistic=max((row.statistic for row in rows if not math.isnan(row.statistic)), default=math.nan),
        evidence=rows,
        control={"asr": 0.96, "statistic": 7.5},
        settings={"shapes": ["additive", "patch"], "eps": 8 / 255, "batch": 32},
        cost={"seconds": 71.5, "forward_images": 48000.0},
    )


def backdoored(names: tuple[str, ...] = NAMES) -> Report:
    result = check(names)
    found = Finding(
        check=CHECK,
        severity=Severity.CRITICAL,
        title=f"A trigger moves probe images to {names[2]}",
        message=f"An additive trigger within 8/255 moves 98.5 % of the probe images to {names[2]}; no reference comes near.",
        next_step="Look at the reconstructed trigger, and repair the delivery or ask for another (clipvet repair).",
        evidence=(result.evidence[4],),
        atlas=("AML.T0018.000", "AML.T0058", "AML.T0043.004"),
        owasp=("ML06:2023", "ML07:2023", "ML10:2023"),
    )
    stubbed = Finding(
        check="safe-reading",
        severity=Severity.LOW,
        title="The file names globals that were not run",
        message="The checkpoint's scheduler names torch.optim.sgd.SGD; it was replaced by an inert stub.",
        evidence=(Evidence(target="torch.optim.sgd.SGD", target_kind="feature"),),
        owasp=("ML06:2023",),
    )
    return Report(
        delivery=DeliveryInfo(
            path="deliveries/acme/cocoop_run",
            family="CoCoOp",
            base="pocket-1",
            class_names=names,
            class_names_source="token_suffix",
            quick_gelu=False,
            notes=("newest checkpoint of three: model.pth.tar-10",),
        ),
        verdict=Verdict.BACKDOORED,
        summary=f"A reconstructed trigger moves 98.5 % of the probe images to {names[2]}, far above every reference.",
        target=names[2],
        findings=(found, stubbed),
        checks=(result,),
        nulls=(null(),),
        p_value=1 / 41,
        calibrated=True,
        thresholds={CHECK: 4.5},
        coverage=Coverage(done=len(names), asked=len(names)),
        skipped=(Skipped(what="whole-model comparison", why="CoCoOp files hold no image tower"),),
        files=(
            FileRecord(
                path="deliveries/acme/cocoop_run/prompt_learner/model.pth.tar-10",
                size=183456,
                sha256=SHA,
                reader="restricted unpickler",
                stubbed_globals=("torch.optim.sgd.SGD", "torch.optim.lr_scheduler.CosineAnnealingLR"),
            ),
        ),
        settings={"seed": 0, "preset": "default", "probes": "pictures-1000", "device": "cpu", "nested": {"a": [1, 2.5, None]}},
        environment={"clipvet": "0.1.0", "torch": "2.13.0", "python": "3.11.2", "machine": "x86_64, 2 cores"},
        next_steps=("Do not deploy the delivery.", "Repair it (clipvet repair) or ask its provider how it was made."),
        started="2026-11-21T06:20:39Z",
        seconds=75.25,
        exit_code=1,
    )


def no_evidence() -> Report:
    result = check(peak=1.25)
    return replace(
        backdoored(),
        verdict=Verdict.NO_EVIDENCE,
        summary="No class is easier to reach than in 40 reference tunings.",
        target=None,
        findings=(),
        checks=(result,),
        p_value=(1 + sum(value >= result.statistic for value in null().values)) / 41,
        next_steps=(),
        exit_code=0,
    )


def suspicious() -> Report:
    report = backdoored()
    return replace(
        report,
        verdict=Verdict.SUSPICIOUS,
        summary="The class bear stands out, but no null fits this base.",
        findings=(replace(report.findings[0], severity=Severity.HIGH),),
        nulls=(),
        p_value=None,
        calibrated=False,
        thresholds={},
        next_steps=(),
    )


def inconclusive() -> Report:
    result = replace(
        check(peak=1.0),
        statistic=math.nan,
        evidence=tuple(
            replace(row, statistic=math.nan, trigger=None, values={"asr": math.nan, "margin": math.inf})
            for row in evidence(NAMES, 1.0)
        ),
        control={"asr": 0.12, "statistic": 0.5},
        skipped=(Skipped(what="blend triggers", why="the budget of 10 minutes was spent"),),
    )
    return replace(
        backdoored(),
        verdict=Verdict.INCONCLUSIVE,
        summary="The positive control was not recovered with these probe images.",
        target=None,
        findings=(),
        checks=(result,),
        p_value=None,
        coverage=Coverage(done=9, asked=15),
        errors=("probe image 17.png cannot be decoded",),
        next_steps=(),
        exit_code=3,
    )


def hostile() -> Report:
    report = backdoored(HOSTILE)
    return replace(
        report,
        delivery=replace(report.delivery, path="out/<b>\udcff\x1b[2J/run", notes=HOSTILE),
        summary=HOSTILE[0] + HOSTILE[4],
        skipped=tuple(Skipped(what=name, why=name) for name in HOSTILE),
        errors=HOSTILE,
        files=(replace(report.files[0], path="out/<i>\udcff é.pt", stubbed_globals=HOSTILE),),
        settings={name: name for name in HOSTILE},
        next_steps=HOSTILE,
    )


def many(count: int = 1000) -> Report:
    return backdoored(tuple(f"concept number {place:04d} of a long list of names" for place in range(count)))


CASES = {
    "no evidence": no_evidence,
    "inconclusive": inconclusive,
    "suspicious": suspicious,
    "backdoored": backdoored,
    "hostile": hostile,
}
