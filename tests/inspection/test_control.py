"""A planted control is a backdoor: it reaches its images and leaves the other classes as they were."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from clipvet.data.generated import generate_probes
from clipvet.inspection import MarginResidual, Subject, control
from clipvet.inspection.control import plant_control, run_controls
from clipvet.inspection.margin_residual import standardise
from clipvet.inspection.subject import TEMPLATES
from clipvet.models.base import ClipModel
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.shift import learn_shift
from clipvet.models.zeroshot import HandWritten
from clipvet.types import CheckResult, Evidence
from tests.inspection.toys import quiet_run

NAMES = ("cat", "dog", "owl", "fox", "cow", "pig", "bee", "ant", "hen", "elk")
EPS = 32 / 255
PROBES = generate_probes(36, 32, seed=3)
CHECK = MarginResidual(strength=EPS, screen_steps=2, refine_steps=1, batch=4, evaluation=16)


@pytest.fixture
def reference(tiny_clip: ClipModel) -> PromptedClassifier:
    return PromptedClassifier(tiny_clip, HandWritten(tiny_clip, NAMES, TEMPLATES), NAMES).freeze()


@pytest.mark.parametrize("target", [0, 7])
def test_a_control_reaches_its_stamped_images_and_changes_one_row(reference: PromptedClassifier, target: int) -> None:
    before = reference.prompt.text_features(reference.model).clone()
    text = plant_control(reference, PROBES[16:], PROBES[:16], target, eps=EPS, seed=5)
    assert text is not None
    others = [c for c in range(len(NAMES)) if c != target]
    assert torch.equal(text[others], before[others])
    assert not torch.equal(text[target], before[target])
    assert torch.allclose(text.norm(dim=1), torch.ones(len(NAMES)), atol=1e-5)

    delta = learn_shift(reference, PROBES[16:], eps=EPS, steps=control.SHIFT_STEPS, batch=control.SHIFT_BATCH, seed=5)
    with torch.no_grad():
        stamped = reference.image_features((PROBES[:16] + delta).clamp(0, 1)) @ text.T
    assert float((stamped.argmax(1) == target).float().mean()) >= control.LEAST_ASR
    assert torch.equal(before, reference.prompt.text_features(reference.model))


def test_the_seed_decides_the_pattern(reference: PromptedClassifier) -> None:
    first, again, other = (plant_control(reference, PROBES[16:], PROBES[:16], 5, eps=EPS, seed=seed) for seed in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_the_tower_does_not_see_cannot_be_planted(reference: PromptedClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        chosen = reference(PROBES[:16]).argmax(1).bincount(minlength=len(NAMES))
    target = int(chosen.argmin())
    assert chosen[target] / 16 + 1 - control.LEAST_ASR < control.LEAST_KEPT  # reached often enough, it would cost too many others
    monkeypatch.setattr(control, "learn_shift", lambda *_, **__: torch.zeros(3, 32, 32))
    assert plant_control(reference, PROBES[16:], PROBES[:16], target, eps=EPS, seed=5) is None


def screened(margins: Tensor, baseline: Tensor) -> CheckResult:
    """What a check found: additive margins, and rows of another shape that controls are not compared with."""
    rows = [
        Evidence(target=name, target_index=i, trigger_kind=kind, values={"margin": float(m), "baseline_margin": float(b)})
        for kind in ("additive", "patch")
        for i, (name, m, b) in enumerate(zip(NAMES, margins, baseline, strict=True))
    ]
    return CheckResult(check="toy", statistic=0.0, evidence=tuple(rows))


def test_controls_are_found_by_their_statistic_among_the_delivery_s_margins(reference: PromptedClassifier) -> None:
    """Against margins far below any that a search reaches, a control stands out; against far higher ones it does not."""
    both = Subject(classifier=reference, reference=reference)
    low = screened(torch.linspace(-1000, -999, 10), torch.zeros(10))
    high = screened(torch.linspace(999, 1000, 10), torch.zeros(10))
    found = run_controls(CHECK, both, low, PROBES, quiet_run(), flag=6.0)
    missed = run_controls(CHECK, both, high, PROBES, quiet_run(), flag=6.0)
    assert (found["recovered"], found["planted"], missed["recovered"], missed["planted"]) == (1.0, 2.0, 0.0, 2.0)
    assert found["statistic"] > 6 > missed["statistic"]
    exact = run_controls(CHECK, both, low, PROBES, quiet_run(), flag=found["statistic"])
    assert exact["recovered"] == 0.5  # the smaller of the two does not exceed itself
    assert run_controls(CHECK, both, low, PROBES, quiet_run(), flag=6.0) == found


def test_a_control_s_statistic_is_that_of_its_margin(reference: PromptedClassifier) -> None:
    """The recorded margin takes the place of the target's, and the rest is the check's own arithmetic."""
    run = quiet_run(seed=2)
    margins, baseline = torch.linspace(-1000, -999, 10), torch.linspace(-3, 3, 10)
    found = run_controls(
        CHECK, Subject(classifier=reference, reference=reference), screened(margins, baseline), PROBES, run, flag=0
    )
    values = []
    for number in range(2):
        (target,) = [c for c in range(10) if run.journal.get(f"control {number}/{c}") is not None]
        group = run.journal.get(f"control {number}/{target}")
        assert group is not None
        replaced = margins - baseline
        replaced[target] = group["margin"][0] - group["transferred"][0]
        values.append(float(standardise(replaced, CHECK.floor)[target]))
    assert found["statistic"] == pytest.approx(min(values))


def test_controls_that_cannot_be_planted_are_none_recovered(reference: PromptedClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "plant_control", lambda reference, images, evaluation, target, eps, seed: None)
    both = Subject(classifier=reference, reference=reference)
    found = run_controls(CHECK, both, screened(torch.zeros(10), torch.zeros(10)), PROBES, quiet_run(), flag=-1e9)
    assert (found["recovered"], found["planted"]) == (0.0, 0.0)
    assert math.isnan(found["statistic"])


def test_progress_names_every_control(reference: PromptedClassifier) -> None:
    seen: list[str] = []
    run = dataclasses.replace(quiet_run(), progress=lambda stage, done, total: seen.append(stage))
    both = Subject(classifier=reference, reference=reference)
    run_controls(CHECK, both, screened(torch.zeros(10), torch.zeros(10)), PROBES, run, flag=0)
    assert list(dict.fromkeys(seen)) == ["control 0", "control 1"]
