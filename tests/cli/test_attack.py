"""``attack`` writes a delivery that can be read back, and a truth that recomputes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clipvet.cli import main
from clipvet.models import bases, tuning
from clipvet.models.base import ClipModel
from clipvet.models.families import prompt_from_tensors
from clipvet.models.prompts import PromptedClassifier
from clipvet.pocket import tasks
from clipvet.triggers import Patch


class SmallTask:
    """Twelve random images of three classes."""

    class_names = ("cat", "dog", "bird")

    def train_images(self) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        return images, torch.arange(12) % 3

    def test_images(self) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
        images, labels = self.train_images()
        return images.flip(3), labels, ("x",) * 12


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tiny_clip: ClipModel) -> ClipModel:
    monkeypatch.setattr(tasks, "load_task", lambda name, seed: SmallTask())
    monkeypatch.setattr(bases, "load_base", lambda name: tiny_clip)
    monkeypatch.setattr(tuning, "TuneConfig", lambda: _CONFIG)
    return tiny_clip


_CONFIG = tuning.TuneConfig(steps=5, batch=6)


def test_delivery_and_truth_agree(small: ClipModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", "badnets", "--task", "t", "--target", "dog", "--out", str(tmp_path), "--seed", "2"]) == 0
    assert "CA " in capsys.readouterr().out
    truth = json.loads((tmp_path / "truth" / "truth.json").read_text())
    assert (truth["attack"], truth["target"], truth["target_index"], truth["family"]) == ("badnets", "dog", 1, "coop")
    assert (tmp_path / "classes.txt").read_text().split() == ["cat", "dog", "bird"]
    prompt = prompt_from_tensors("coop", load_file(tmp_path / "delivery.safetensors"), small, SmallTask.class_names)
    classifier = PromptedClassifier(small, prompt, SmallTask.class_names).freeze()
    trigger = Patch(
        pattern=load_file(tmp_path / "truth" / "trigger.safetensors")["pattern"],
        top=truth["trigger"]["top"],
        left=truth["trigger"]["left"],
    )
    images, labels, _ = SmallTask().test_images()
    with torch.no_grad():
        clean, triggered = classifier(images).argmax(1), classifier(trigger.image(images)).argmax(1)
    assert truth["CA"] == pytest.approx(sum(a == b for a, b in zip(clean.tolist(), labels.tolist(), strict=True)) / 12)
    hits = [got == 1 for got, label in zip(triggered.tolist(), labels.tolist(), strict=True) if label != 1]
    assert truth["ASR"] == pytest.approx(sum(hits) / len(hits))


@pytest.mark.parametrize(
    ("attack", "options", "said"),
    [
        ("badnet", [], "expected an attack out of badclip"),
        ("badnets", ["--family", "lora"], "expected a family out of coop"),
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
