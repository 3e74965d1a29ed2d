"""``attack`` writes a delivery that can be read back, and a truth that recomputes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clipvet.attacks import BadClip, Planted
from clipvet.cli import main, planting
from clipvet.errors import ClipvetError
from clipvet.models.base import ClipModel
from clipvet.models.delivery import open_delivery
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.tuning import TuneConfig
from clipvet.pocket import tasks
from clipvet.triggers import Patch


class SmallTask:
    """Twelve random images of three classes."""

    class_names = ("cat", "dog", "bird")

    def train_images(self, views: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        return images, torch.arange(12) % 3

    def test_images(self) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
        images, labels = self.train_images()
        return images.flip(3), labels, ("x",) * 12


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tiny_clip: ClipModel) -> ClipModel:
    for module in (tasks, planting):
        monkeypatch.setattr(module, "load_task", lambda name, shots=4, seed=0: SmallTask())
    monkeypatch.setattr(planting, "task_names", lambda: ("t", "u"))
    monkeypatch.setattr(planting, "load_base", lambda name: tiny_clip)
    monkeypatch.setattr(planting, "schedule_of", lambda family: TuneConfig(steps=5, batch=6))
    return tiny_clip


def opened(path: Path, model: ClipModel) -> PromptedClassifier:
    return open_delivery(path, base=model).classifier


def truth_of(folder: Path) -> Any:
    return json.loads((folder / "truth.json").read_text())


def planted_trigger(folder: Path) -> Patch:
    truth = truth_of(folder)
    assert truth["trigger"]["kind"] == "patch"
    pattern = load_file(folder / "trigger.safetensors")["pattern"]
    return Patch(pattern=pattern, top=truth["trigger"]["top"], left=truth["trigger"]["left"])


def test_delivery_and_truth_agree(small: ClipModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", "badnets", "--task", "t", "--target", "dog", "--out", str(tmp_path), "--seed", "2"]) == 0
    assert "CA " in capsys.readouterr().out
    truth = truth_of(tmp_path / "truth")
    assert (truth["attack"], truth["target"], truth["target_index"], truth["family"]) == ("badnets", "dog", 1, "coop")
    classifier, trigger = opened(tmp_path, small), planted_trigger(tmp_path / "truth")
    assert classifier.class_names == SmallTask.class_names
    images, labels, _ = SmallTask().test_images()
    with torch.no_grad():
        clean, triggered = classifier(images).argmax(1).tolist(), classifier(trigger.image(images)).argmax(1).tolist()
    assert truth["ca"] == pytest.approx(sum(a == b for a, b in zip(clean, labels.tolist(), strict=True)) / 12)
    assert truth["ta"] == pytest.approx(sum(a == b for a, b in zip(triggered, labels.tolist(), strict=True)) / 12)
    hits = [got == 1 for got, label in zip(triggered, labels.tolist(), strict=True) if label != 1]
    assert truth["asr"] == pytest.approx(sum(hits) / len(hits))
    assert truth["asr_images"] == len(hits) == 8
    # All pictures of the small task are one picture, so resampling pictures changes nothing.
    assert truth["ca_interval"] == pytest.approx([truth["ca"]] * 2)
    assert truth["asr_interval"] == pytest.approx([truth["asr"]] * 2)


def test_a_fresh_backdoor_is_drawn_until_one_works(small: ClipModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: list[planting.Spec] = []
    real = planting.measure

    def measure(classifier: PromptedClassifier, spec: planting.Spec, planted: Planted | None = None) -> planting.Truth:
        if planted is None:
            return real(classifier, spec)
        drawn.append(spec)
        works = {"asr": 0.9 if len(drawn) == 3 else 0.5, "ca": 1.0}
        return real(classifier, spec, planted) | works

    monkeypatch.setattr(planting, "measure", measure)
    clean, backdoored, truth = planting.plant_fresh(4, tmp_path, lambda stage, done, total: None)
    assert len(drawn) == 3
    assert truth["asr"] == 0.9
    assert len({(spec.task, spec.family, spec.base, spec.seed) for spec in drawn}) == 3
    for spec in drawn:
        assert spec.task in ("t", "u")
        assert (spec.family, spec.attack) in planting.CARRIERS
        assert spec.base in ("pocket-0", "pocket-1")
    last = drawn[-1]
    assert (truth["task"], truth["family"], truth["base"], truth["seed"]) == (last.task, last.family, last.base, last.seed)
    assert opened(clean, small).class_names == opened(backdoored, small).class_names == SmallTask.class_names
    assert clean.read_bytes() != backdoored.read_bytes()
    delta = load_file(tmp_path / "truth" / "trigger.safetensors")["delta"]
    assert truth_of(tmp_path / "truth")["trigger"]["kind"] == "additive"
    assert 0 < float(delta.abs().max()) <= BadClip.eps + 1e-7
    drawn.clear()
    assert planting.plant_fresh(4, tmp_path, lambda stage, done, total: None)[2]["target"] == truth["target"]


def test_no_working_attack_is_one_sentence(small: ClipModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = planting.measure
    monkeypatch.setattr(planting, "measure", lambda *about: real(*about) | {"asr": 0.79})
    with pytest.raises(ClipvetError, match="expected an attack out of 6 draws to work, none did with seed 4: try another --seed"):
        planting.plant_fresh(4, tmp_path, lambda stage, done, total: None)


@pytest.mark.parametrize(
    ("attack", "options", "said"),
    [
        ("badnet", [], "expected an attack out of badclip"),
        ("badnets", ["--family", "lora"], "expected a family out of coop"),
        ("badnets", ["--family", "zero-shot"], "expected a family out of coop"),
        ("badnets", ["--target", "fish"], "expected a target of the task t out of cat, dog, bird, got 'fish'"),
    ],
)
def test_unknown_names_are_errors(
    small: ClipModel, capsys: pytest.CaptureFixture[str], tmp_path: Path, attack: str, options: list[str], said: str
) -> None:
    out = tmp_path / "out"
    assert main(["attack", attack, "--task", "t", "--target", "dog", "--out", str(out), *options]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_an_imbalanced_task_has_from_all_shots_down_to_an_eighth(monkeypatch: pytest.MonkeyPatch, tiny_clip: ClipModel) -> None:
    seen: list[torch.Tensor] = []

    def keep(classifier: PromptedClassifier, images: torch.Tensor, labels: torch.Tensor, **_: Any) -> PromptedClassifier:
        seen.append(labels)
        assert len(images) == len(labels)
        return classifier

    monkeypatch.setattr(planting, "tune", keep)
    monkeypatch.setattr(planting, "VIEWS", 2)
    monkeypatch.setattr(planting, "load_base", lambda name: tiny_clip)
    spec = planting.Spec(task="signs", family="coop", base="pocket-0", seed=3, shots=8)
    planting.tune_clean(spec)
    planting.tune_clean(dataclasses.replace(spec, imbalanced=True))
    even, odd = (torch.bincount(labels).tolist() for labels in seen)
    assert set(even) == {16}
    assert max(odd) == 16
    assert min(odd) == 2
    assert len(odd) == len(even)
    assert len(set(odd)) > 3


def test_the_length_of_a_tuning_is_in_units_of_the_schedule(monkeypatch: pytest.MonkeyPatch, small: ClipModel) -> None:
    steps: list[int] = []

    def keep(classifier: PromptedClassifier, *given: Any, config: TuneConfig, **_: Any) -> PromptedClassifier:
        steps.append(config.steps)
        return classifier

    monkeypatch.setattr(planting, "tune", keep)
    for length in (1.0, 0.4, 2.0):
        planting.tune_clean(planting.Spec(task="t", family="coop", base="pocket-0", seed=0, length=length))
    assert steps == [5, 2, 10]
