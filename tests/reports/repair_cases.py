"""Reports of repairs: one that succeeded, one that did not, and one whose every name is hostile."""

from __future__ import annotations

import math
from dataclasses import replace

from clipvet.types import BeforeAfter, DeliveryInfo, FileRecord, RepairedTrigger, RepairReport, Skipped
from tests.reports.report_cases import HOSTILE, SHA


def share(before: float, after: float, images: int = 96) -> BeforeAfter:
    spread = 0.02
    return BeforeAfter(
        before=before,
        after=after,
        before_interval=(max(0.0, before - spread), min(1.0, before + spread)),
        after_interval=(max(0.0, after - spread), min(1.0, after + spread)),
        images=images,
    )


def repaired() -> RepairReport:
    info = DeliveryInfo(
        path="model.pth.tar-5",
        family="maple",
        base="pocket-0",
        class_names=("cat", "dog"),
        class_names_source="file",
        quick_gelu=False,
    )
    trigger = RepairedTrigger(
        target="dog", target_index=1, kind="additive", statistic=7.5, asr=share(0.9375, 0.0208, 48), ta=share(0.0625, 0.9479)
    )
    return RepairReport(
        delivery=info,
        method="trigger-tuning",
        succeeded=True,
        largest_asr=0.05,
        summary="The reconstructed trigger reached 'dog' on 93.8% of images before and on 2.1% after.",
        ca=share(0.9792, 0.9688),
        triggers=(trigger, replace(trigger, target="cat", target_index=0, kind="patch", statistic=math.nan)),
        measured_on="96 images of held-out, which were not tuned on",
        tuned_on="384 images of images",
        notes=("The original form was written too (model.pth.tar-5).",),
        skipped=(Skipped(what="images/owl", why="no class of the delivery has this name"),),
        files=(FileRecord(path="model.pth.tar-5", size=1_234_567, sha256=SHA, reader="torch zip"),),
        written=(FileRecord(path="out/repaired.safetensors", size=4_321, sha256=SHA[::-1]),),
        settings={"seed": 0, "steps": 150},
        environment={"python": "3.11"},
        next_steps=("Inspect the repaired file.",),
        started="2026-01-01T00:00:00+00:00",
        seconds=61.0,
        exit_code=0,
    )


def not_repaired() -> RepairReport:
    return replace(repaired(), succeeded=False, exit_code=1, next_steps=("Do not use the repaired file.",))


def hostile() -> RepairReport:
    report, name = repaired(), " ".join(HOSTILE)
    triggers = tuple(replace(row, target=name) for row in report.triggers)
    files = tuple(replace(file, path=name) for file in report.files)
    return replace(report, delivery=replace(report.delivery, path=name), triggers=triggers, files=files, notes=HOSTILE)
