"""From a path to a report: its fields, its plan, its progress, and what is said when something must be stated."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clipvet import api
from clipvet.api import InspectOptions, inspect_model, plan_inspection
from clipvet.data.generated import generate_probes
from clipvet.errors import UnreadableError, UsageError
from clipvet.inspection import CHECKS, ClipInspector, Run, summary
from clipvet.inspection.calibration import FALLBACK, settings_digest, threshold
from clipvet.inspection.journal import MemoryJournal
from clipvet.inspection.subject import subject_of
from clipvet.models.base import ClipModel
from clipvet.models.bases import load_base
from clipvet.models.families import new_prompt
from clipvet.models.prompts import PromptedClassifier
from clipvet.types import Coverage, Null, NullKey, Report, Verdict
from tests.api.inspections import NAMES, Quick, deliver, with_


def test_a_report_says_what_was_done(delivery: Path, options: InspectOptions, tiny_clip: ClipModel) -> None:
    report = inspect_model(delivery, options)
    assert (report.delivery.family, report.delivery.class_names) == ("coop", NAMES)
    assert report.delivery.path == str(delivery)
    assert [file.path for file in report.files] == [str(delivery)]
    (check,) = report.checks
    assert check.check == "margin-residual"
    assert check.statistic == max(row.statistic for row in check.evidence)
    assert [row.target for row in check.evidence] == list(NAMES)
    assert set(check.control) == {"recovered", "statistic", "planted"}
    assert report.coverage == Coverage(done=2, asked=2)
    assert (report.calibrated, report.p_value, report.nulls) == (False, None, ())
    assert report.thresholds == {"margin-residual": FALLBACK["margin-residual"]}
    assert "calibration" in {row.what for row in report.skipped}
    assert report.settings["probe images"] == "24, generated pool"
    assert report.settings["seed"] == "1"
    assert report.environment["torch"].startswith(torch.__version__.split("+")[0])
    assert report.verdict in (Verdict.NO_EVIDENCE, Verdict.INCONCLUSIVE, Verdict.SUSPICIOUS)
    assert "Uncalibrated" in report.summary
    assert report.next_steps
    assert report.seconds > 0


def test_the_base_that_is_loaded_is_the_one_that_was_saved(delivery: Path, options: InspectOptions, tiny_clip: ClipModel) -> None:
    """The statistic is the one of the model in memory: nothing is lost between a file and an inspection."""
    prompt = new_prompt("coop", tiny_clip, NAMES, seed=2)
    classifier = PromptedClassifier(tiny_clip, prompt, NAMES).freeze()
    subject, _ = subject_of(classifier, tiny_clip, Quick(strength=4 / 255))
    run = Run(seed=1, journal=MemoryJournal(), clock=lambda: None, progress=lambda stage, done, total: None)
    expected = Quick(strength=4 / 255).run(subject, generate_probes(24, 32, 1), run)
    report = inspect_model(delivery, options)
    assert report.checks[0].statistic == pytest.approx(expected.statistic, rel=1e-2)
    margins = [row.values["margin"] for row in report.checks[0].evidence]
    assert margins == pytest.approx([row.values["margin"] for row in expected.evidence], abs=1e-2)


def test_a_null_that_fits_calibrates(delivery: Path, options: InspectOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    statistic = inspect_model(delivery, options).checks[0].statistic
    base = load_base(str(options.base))
    settings = settings_digest(Quick.name, dataclasses.asdict(Quick(strength=4 / 255)))
    key = NullKey(base=base.sha256, family="prompt", classes=(5, 15), settings=settings, probes="generated pool, 24")

    def report_with(key: NullKey, values: tuple[float, ...]) -> Report:
        monkeypatch.setattr(summary, "shipped_nulls", lambda **_: (Null(key=key, values=values),))
        return inspect_model(delivery, options)

    high = tuple(statistic + 5 + 0.1 * i for i in range(20))
    low = tuple(statistic - 50 + 0.1 * i for i in range(20))
    above, below = report_with(key, low), report_with(key, high)
    assert (above.calibrated, above.p_value) == (True, 1 / 21)
    assert above.verdict in (Verdict.SUSPICIOUS, Verdict.BACKDOORED)
    top = max(above.checks[0].evidence, key=lambda row: row.statistic)
    assert above.target == top.target
    assert above.findings[-1].title == f"A small common change drags images to '{top.target}'"
    assert above.findings[-1].evidence[0] == top
    assert above.thresholds["margin-residual"] == pytest.approx(threshold(low, 0.02))
    assert (below.calibrated, below.p_value, below.target, below.findings) == (True, 1.0, None, ())
    assert below.verdict in (Verdict.NO_EVIDENCE, Verdict.INCONCLUSIVE)
    strange = report_with(dataclasses.replace(key, probes="generated pool, 25"), low)
    assert (strange.calibrated, strange.nulls) == (False, ())


def test_the_paper_preset_is_clip_inspector(delivery: Path, options: InspectOptions) -> None:
    report = inspect_model(delivery, with_(options, preset="paper", probe_count=32))
    (check,) = report.checks
    assert check.check == "clip-inspector"
    assert check.settings == dataclasses.asdict(ClipInspector(strength=4 / 255))
    assert report.coverage == Coverage(done=2, asked=2)
    assert set(check.control) == {"recovered", "statistic", "planted"}
    assert "positive controls" not in [row.what for row in report.skipped]
    assert all("anomaly_index" in row.values for row in check.evidence)


@pytest.mark.parametrize("preset", ["neural-cleanse", "pixel-backdoor"])
def test_the_other_presets_are_the_checks_of_their_names(options: InspectOptions, preset: str) -> None:
    assert api._check(with_(options, preset=preset), 224) == CHECKS[preset]()


@pytest.mark.parametrize(("size", "eps"), [(224, 4 / 255), (64, 8 / 255), (336, 4 / 255)])
@pytest.mark.parametrize("preset", api.PRESETS)
def test_the_bound_fits_the_image_size(options: InspectOptions, preset: str, size: int, eps: float) -> None:
    check = api._check(with_(options, preset=preset), size)
    assert dataclasses.asdict(check)["strength"] == eps


def test_two_classes_get_company(tmp_path: Path, tiny_clip: ClipModel, options: InspectOptions) -> None:
    report = inspect_model(deliver(tmp_path / "two.safetensors", tiny_clip, ("cat", "dog")), options)
    assert report.delivery.class_names == ("cat", "dog")
    assert [row.target for row in report.checks[0].targets] == ["cat", "dog"]
    assert len(report.checks[0].evidence) == 10
    assert any(note.startswith("8 common names were put beside the 2 classes") for note in report.delivery.notes)


def test_a_folder_of_probes_is_used(delivery: Path, options: InspectOptions, pictures: Path) -> None:
    report = inspect_model(delivery, with_(options, probes=pictures))
    assert report.settings["probe images"] == f"12, images of {pictures}"
    assert str(pictures / "notes.txt") in {row.what for row in report.skipped}


def test_too_few_pictures_are_refused(delivery: Path, options: InspectOptions, pictures: Path) -> None:
    with pytest.raises(UsageError, match="expected at least 8 probe images, got 5"):
        inspect_model(delivery, with_(options, probes=pictures, probe_count=5))
    with pytest.raises(UnreadableError, match="expected a folder of pictures, found nothing at"):
        inspect_model(delivery, with_(options, probes=pictures / "missing"))


@pytest.mark.parametrize("preset", api.PRESETS)
def test_a_plan_counts_what_is_then_done(
    delivery: Path, options: InspectOptions, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    asked = with_(options, preset=preset, probe_count=64)
    seen = 0
    original = ClipModel.encode_image

    def counting(self: ClipModel, images: Tensor, prompts: Any = ()) -> Tensor:
        nonlocal seen
        seen += len(images)
        return original(self, images, prompts)

    plan = plan_inspection(delivery, asked)
    opened, _ = api._open(delivery, asked)
    monkeypatch.setattr(ClipModel, "encode_image", counting)
    inspect_model(delivery, asked)
    assert opened.subject.classifier.class_names == NAMES
    assert plan.image_passes == seen
    assert plan.seconds > 0
    assert plan.stages[0].startswith(f"read {delivery} without running anything in it: coop prompt, 10 classes")
    assert plan.stages[1] == "take 64 probe images: generated pool"
    assert "for each of 10 classes" in plan.stages[2]


def test_progress_is_told_by_stage(delivery: Path, options: InspectOptions) -> None:
    seen: list[tuple[str, int, int]] = []
    inspect_model(delivery, options, progress=lambda *told: seen.append(told))
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert len(stages) == 4
    assert stages[-2:] == ["control 0", "control 1"]
    for stage in stages:
        told = [(done, total) for name, done, total in seen if name == stage]
        assert told == [(i, len(told) - 1) for i in range(len(told))]  # from nothing done to all


def test_a_delivery_whose_base_is_not_stated_asks_for_it(delivery: Path) -> None:
    with pytest.raises(UsageError, match="needs the base that it was tuned on, from a source that you trust"):
        inspect_model(delivery, InspectOptions())


def test_a_missing_delivery_is_said(tmp_path: Path, options: InspectOptions) -> None:
    for ask in (inspect_model, plan_inspection):
        with pytest.raises(UnreadableError, match=r"nothing\.safetensors"):
            ask(tmp_path / "nothing.safetensors", options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "fast"}, "expected a preset out of default, paper, neural-cleanse, pixel-backdoor, got 'fast'"),
        ({"probe_count": 0}, "expected at least one probe image, got 0"),
        ({"budget": 0.0}, "expected a positive budget, got 0.0 s"),
        ({"budget": -1.0}, "expected a positive budget, got -1.0 s"),
        ({"resume": True}, "expected --out with --resume"),
        ({"device": "cuda"}, "expected --base with --device cuda"),
        ({"device": "abacus", "base": "b"}, "expected a torch device that this machine has, got 'abacus'"),
    ],
)
def test_options_that_make_no_sense_fail_when_they_are_built(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        InspectOptions(**values)
