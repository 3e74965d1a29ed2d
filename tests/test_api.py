"""From a path to a report: fields, seeds, budgets, resumed runs, and what is said when something must be stated."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from clipvet import api
from clipvet.api import InspectOptions, inspect_model, plan_inspection
from clipvet.errors import UnreadableError, UsageError
from clipvet.inspection import ClipInspector, MarginResidual, control
from clipvet.inspection.base import OutOfBudget
from clipvet.inspection.calibration import FALLBACK, settings_digest, threshold
from clipvet.inspection.journal import Journal
from clipvet.models.base import ClipModel
from clipvet.models.bases import load_base
from clipvet.models.families import new_prompt
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.saving import save_delivery
from clipvet.types import Coverage, Null, NullKey, Report, Verdict

NAMES = ("cat", "dog", "owl", "fox", "cow", "pig", "bee", "ant", "hen", "elk")


@dataclass(frozen=True, kw_only=True)
class Quick(MarginResidual):
    """The default check with a few steps."""

    screen_steps: int = 2
    refine_steps: int = 1
    batch: int = 4
    evaluation: int = 8


@pytest.fixture(autouse=True)
def controls_of_a_random_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    """On random weights no pattern can be told from clean images well enough to be planted without touching them."""
    monkeypatch.setattr(control, "LEAST_KEPT", 0.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MarginResidual", Quick)
    monkeypatch.setattr(api, "shipped_nulls", lambda: ())


@pytest.fixture
def base(tmp_path: Path, tiny_clip: ClipModel) -> str:
    """A folder as open_clip writes it: the heads are in its configurations, since tensors do not tell them."""
    folder = tmp_path / "base"
    folder.mkdir()
    save_file({k: v.contiguous() for k, v in tiny_clip.clip.state_dict().items()}, folder / "open_clip_model.safetensors")
    pixels = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    open_clip = {"model_cfg": {"text_cfg": {"heads": 2}}, "preprocess_cfg": pixels}
    (folder / "open_clip_config.json").write_text(json.dumps(open_clip))
    heads = {"num_attention_heads": 2}
    config = {"model_type": "clip", "hidden_act": "gelu", "vision_config": heads, "text_config": heads}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def deliver(path: Path, model: ClipModel, names: tuple[str, ...] = NAMES, family: str = "coop") -> Path:
    classifier = PromptedClassifier(model, new_prompt(family, model, names, seed=2), names).freeze()
    save_delivery(path, classifier)
    return path


@pytest.fixture
def delivery(tmp_path: Path, tiny_clip: ClipModel) -> Path:
    return deliver(tmp_path / "prompt.safetensors", tiny_clip)


@pytest.fixture
def options(base: str) -> InspectOptions:
    return InspectOptions(base=base, probe_count=24, seed=1)  # a seed whose two controls can be planted on the random base


def with_(options: InspectOptions, **changed: Any) -> InspectOptions:
    return dataclasses.replace(options, **changed)


def measured(report: Report) -> list[tuple[str, float, Mapping[str, float]]]:
    return [(row.target, row.statistic, row.values) for check in report.checks for row in check.evidence]


def same_numbers(one: Report, other: Report) -> bool:
    """Whether two reports say the same, but for the time."""
    facts = [
        (r.verdict, r.summary, r.p_value, r.coverage, r.thresholds, r.checks[0].statistic, r.checks[0].control)
        for r in (one, other)
    ]
    return facts[0] == facts[1] and measured(one) == measured(other)


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
    subject, _ = api.subject_of(classifier, tiny_clip)
    run = api.Run(seed=1, journal=api.MemoryJournal(), clock=lambda: None, progress=lambda stage, done, total: None)
    expected = Quick(strength=4 / 255).run(subject, api.generate_probes(24, 32, 1), run)
    report = inspect_model(delivery, options)
    assert report.checks[0].statistic == pytest.approx(expected.statistic, rel=1e-2)
    margins = [row.values["margin"] for row in report.checks[0].evidence]
    assert margins == pytest.approx([row.values["margin"] for row in expected.evidence], abs=1e-2)


def test_the_seed_decides(delivery: Path, options: InspectOptions) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (inspect_model(delivery, with_(options, seed=seed)) for seed in (1, 1, 2))
    assert same_numbers(first, again)
    assert measured(first) != measured(other)
    assert torch.equal(torch.random.get_rng_state(), state)


def ticking(monkeypatch: pytest.MonkeyPatch, groups: int) -> None:
    """Let time stand still for some class groups, and be over after them."""
    left = iter(range(groups))

    def clock(options: InspectOptions, began: float) -> Callable[[], None]:
        def tick() -> None:
            if next(left, None) is None:
                raise OutOfBudget(f"the budget of {options.budget:.0f} s was used up")

        return tick

    monkeypatch.setattr(api, "_clock", clock)


@pytest.mark.parametrize(("groups", "done"), [(0, 0), (4, 0), (5, 1), (6, 1), (7, 2)])
def test_a_budget_leaves_an_open_outcome_and_what_is_done(
    delivery: Path, options: InspectOptions, monkeypatch: pytest.MonkeyPatch, groups: int, done: int
) -> None:
    """Two groups of classes on each side and the refined ones make the check; two controls follow."""
    ticking(monkeypatch, groups)
    monkeypatch.setattr(api, "flag_of", lambda check, null: -1e9)  # every control counts as found
    report = inspect_model(delivery, with_(options, budget=60.0))
    assert report.coverage == Coverage(done=done, asked=2)
    assert np.isnan(report.checks[0].statistic) == (done == 0)
    if done < 2 and report.verdict is not Verdict.SUSPICIOUS:
        assert report.verdict is Verdict.INCONCLUSIVE
        assert report.summary.startswith("The budget of 60 s was used up.")
        assert "the budget of 60 s was used up" in {row.why for row in report.skipped}
    if done == 2:
        assert report.checks[0].control["recovered"] == 1.0


def test_a_real_budget_ends_a_run(delivery: Path, options: InspectOptions) -> None:
    report = inspect_model(delivery, with_(options, budget=1e-6))
    assert (report.verdict, report.coverage.share) == (Verdict.INCONCLUSIVE, 0.0)
    assert "without a --budget" in report.next_steps[0]


@pytest.mark.parametrize("groups", [0, 3, 6])
def test_a_killed_run_resumes_to_the_same_report(
    delivery: Path, options: InspectOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: int
) -> None:
    whole = inspect_model(delivery, options)
    work = tmp_path / "state"
    put = Journal.put
    left = iter(range(groups))

    def mortal(self: Journal, key: str, tensors: Mapping[str, Tensor]) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        put(self, key, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "put", mortal)
        with pytest.raises(KeyboardInterrupt):
            inspect_model(delivery, with_(options, work=work))
    assert len(list(work.glob("*.safetensors"))) == groups
    seen: list[str] = []
    resumed = inspect_model(
        delivery, with_(options, work=work, resume=True), progress=lambda stage, done, total: seen.append(stage)
    )
    assert same_numbers(resumed, whole)
    assert len(list(work.glob("*.safetensors"))) == 7
    assert len(seen) == 7


@pytest.mark.parametrize("changed", [{"seed": 2}, {"probe_count": 25}, {"position": "front"}, {"preset": "paper"}])
def test_the_state_of_another_run_is_refused(
    delivery: Path, options: InspectOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    ticking(monkeypatch, 0)
    inspect_model(delivery, with_(options, work=tmp_path / "state", budget=1.0))
    with pytest.raises(UsageError, match="found that of another delivery or other settings"):
        inspect_model(delivery, with_(options, work=tmp_path / "state", budget=1.0, resume=True, **changed))


def test_a_null_that_fits_calibrates(delivery: Path, options: InspectOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    statistic = inspect_model(delivery, options).checks[0].statistic
    base = load_base(str(options.base))
    settings = settings_digest(Quick.name, dataclasses.asdict(Quick(strength=4 / 255)))
    key = NullKey(base=base.sha256, family="text", classes=(5, 15), settings=settings, probes="generated pool, 24")

    def report_with(key: NullKey, values: tuple[float, ...]) -> Report:
        monkeypatch.setattr(api, "shipped_nulls", lambda: (Null(key=key, values=values),))
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
    assert report.coverage == Coverage(done=1, asked=1)
    assert {"what": "positive controls", "why": "clip-inspector has none"} in [dataclasses.asdict(row) for row in report.skipped]
    assert all("anomaly_index" in row.values for row in check.evidence)


@pytest.mark.parametrize(("size", "eps"), [(224, 4 / 255), (64, 8 / 255), (336, 4 / 255)])
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_the_bound_fits_the_image_size(
    delivery: Path, options: InspectOptions, monkeypatch: pytest.MonkeyPatch, preset: str, size: int, eps: float
) -> None:
    opened = api._open(delivery, options)
    monkeypatch.setattr(ClipModel, "image_size", size)
    check = api._check(with_(options, preset=preset), opened)
    assert dataclasses.asdict(check)["strength"] == eps  # type: ignore[call-overload]


def test_two_classes_get_company(tmp_path: Path, tiny_clip: ClipModel, options: InspectOptions) -> None:
    report = inspect_model(deliver(tmp_path / "two.safetensors", tiny_clip, ("cat", "dog")), options)
    assert report.delivery.class_names == ("cat", "dog")
    assert len(report.checks[0].evidence) == 20
    assert any(note.startswith("18 common names were put beside the 2 classes") for note in report.delivery.notes)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_of_probes_is_used(delivery: Path, options: InspectOptions, pictures: Path) -> None:
    report = inspect_model(delivery, with_(options, probes=pictures))
    assert report.settings["probe images"] == f"12, images of {pictures}"
    assert str(pictures / "notes.txt") in {row.what for row in report.skipped}


def test_other_pictures_or_another_seed_are_another_run(
    delivery: Path, options: InspectOptions, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticking(monkeypatch, 0)
    asked = with_(options, probes=pictures, work=tmp_path / "state", budget=1.0)
    inspect_model(delivery, asked)
    inspect_model(delivery, with_(asked, resume=True))
    with pytest.raises(UsageError, match="found that of another delivery or other settings"):
        inspect_model(delivery, with_(asked, resume=True, seed=2))
    Image.new("RGB", (40, 40), "red").save(pictures / "00.png")
    with pytest.raises(UsageError, match="found that of another delivery or other settings"):
        inspect_model(delivery, with_(asked, resume=True))


def test_too_few_pictures_are_refused(delivery: Path, options: InspectOptions, pictures: Path) -> None:
    with pytest.raises(UsageError, match="expected at least 8 probe images, got 5"):
        inspect_model(delivery, with_(options, probes=pictures, probe_count=5))
    with pytest.raises(UnreadableError, match="expected a folder of pictures, found nothing at"):
        inspect_model(delivery, with_(options, probes=pictures / "missing"))


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_plan_counts_what_is_then_done(
    delivery: Path, options: InspectOptions, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    asked = with_(options, preset=preset, probe_count=32)
    seen = 0
    original = ClipModel.encode_image

    def counting(self: ClipModel, images: Tensor, prompts: Any = ()) -> Tensor:
        nonlocal seen
        seen += len(images)
        return original(self, images, prompts)

    plan = plan_inspection(delivery, asked)
    opened = api._open(delivery, asked)
    monkeypatch.setattr(ClipModel, "encode_image", counting)
    monkeypatch.setattr(api, "run_controls", lambda *args, **kwargs: {"recovered": 1.0})
    inspect_model(delivery, asked)
    assert opened.subject.classifier.class_names == NAMES
    assert plan.image_passes == seen
    assert plan.seconds > 0
    assert plan.stages[0].startswith(f"read {delivery} without running anything in it: coop prompt, 10 classes")
    assert plan.stages[1] == "take 32 probe images: generated pool"
    assert "for each of 10 classes" in plan.stages[2]


def test_progress_is_told_by_stage(delivery: Path, options: InspectOptions) -> None:
    seen: list[tuple[str, int, int]] = []
    inspect_model(delivery, options, progress=lambda *told: seen.append(told))
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert len(stages) == 5
    assert stages[-2:] == ["control 0", "control 1"]
    for stage in stages:
        told = [(done, total) for name, done, total in seen if name == stage]
        assert told == [(i + 1, len(told)) for i in range(len(told))]


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
        ({"preset": "fast"}, "expected a preset out of default, paper, got 'fast'"),
        ({"probe_count": 0}, "expected at least one probe image, got 0"),
        ({"budget": 0.0}, "expected a positive budget, got 0.0 s"),
        ({"budget": -1.0}, "expected a positive budget, got -1.0 s"),
        ({"resume": True}, "expected --out with --resume"),
    ],
)
def test_options_that_make_no_sense_fail_when_they_are_built(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        InspectOptions(**values)
