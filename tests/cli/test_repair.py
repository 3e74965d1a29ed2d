"""``repair`` from a file to a repaired file and its report, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from clipvet.cli import main, repair_evidence
from clipvet.models.base import ClipModel
from clipvet.models.delivery import open_delivery
from clipvet.models.families import full_state
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.saving import save_delivery
from clipvet.repair import TriggerTuning, inputs
from clipvet.reports import write_report
from clipvet.types import CheckResult, FileRecord, Report, Verdict
from tests.cli.stubs import report as stub_report
from tests.oracles import savers
from tests.repair import toys

RUN: Callable[..., PromptedClassifier] = TriggerTuning.run


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tiny_clip: ClipModel) -> None:
    """A tiny base, short searches and a short tuning."""
    monkeypatch.setattr(inputs, "load_base", lambda name, **_: tiny_clip)
    monkeypatch.setattr(repair_evidence, "STEPS", 3)
    monkeypatch.setattr(repair_evidence, "PROBES", 32)
    shorten(monkeypatch, 3)


def shorten(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    def quick(self: TriggerTuning, *given: Any, **named: Any) -> PromptedClassifier:
        return RUN(dataclasses.replace(self, steps=steps, batch=12, lr=0.1, refresh_every=100), *given, **named)

    monkeypatch.setattr(TriggerTuning, "run", quick)


def save(folder: Path, classifier: PromptedClassifier) -> Path:
    folder.mkdir()
    save_delivery(folder / "prompt.safetensors", classifier)
    return folder / "prompt.safetensors"


@pytest.fixture
def delivery(tmp_path: Path, tiny_clip: ClipModel) -> Path:
    """A prompt that is not tuned, where what is said and written matters and not what is learned."""
    return save(tmp_path / "delivered", toys.fresh(tiny_clip, "coop").freeze())


@pytest.fixture
def planted(tmp_path: Path, tiny_clip: ClipModel) -> Path:
    return save(tmp_path / "planted", toys.planted(tiny_clip, "coop").classifier)


def images(folder: Path, per_class: int, seed: int = 3) -> Path:
    pictures, labels = toys.toy(3 * per_class, seed=seed)
    for number, (picture, label) in enumerate(zip(pictures, labels.tolist(), strict=True)):
        place = folder / toys.NAMES[label].upper()
        place.mkdir(parents=True, exist_ok=True)
        pixels = (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


def inspection(delivery: Path, verdict: Verdict = Verdict.BACKDOORED, sha256: str = "") -> Report:
    found = CheckResult(check="margin-residual", statistic=9.0, evidence=(toys.evidence(target=0, statistic=1.0), toys.evidence()))
    digest = sha256 or inputs.read_tensors(delivery).record.sha256
    file = FileRecord(path=str(delivery), size=1, sha256=digest)
    return dataclasses.replace(stub_report(verdict, path=str(delivery)), checks=(found,), files=(file,))


def repair(delivery: Path, labelled: Path, out: Path, *more: str) -> int:
    return main(["repair", str(delivery), "--labelled", str(labelled), "--base", "b", "--out", str(out), *more])


def document(out: Path) -> Any:
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def asr(path: Path, model: ClipModel) -> float:
    """By a plain loop over images of another seed."""
    classifier = open_delivery(path, base=model).classifier
    pictures, labels = toys.toy(30, seed=8)
    hits = [
        int(classifier((picture + toys.stripes()).clamp(0, 1)[None]).argmax()) == toys.TARGET
        for picture, label in zip(pictures, labels.tolist(), strict=True)
        if label != toys.TARGET
    ]
    return sum(hits) / len(hits)


def test_a_planted_backdoor_is_repaired_with_an_earlier_report(
    planted: Path, tmp_path: Path, tiny_clip: ClipModel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, 100)
    before = planted.read_bytes()
    write_report(inspection(planted), tmp_path / "report")
    out = tmp_path / "out"
    code = repair(planted, images(tmp_path / "images", 16), out, "--report", str(tmp_path / "report"))
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "REPAIRED" in printed.out
    assert sorted(path.name for path in out.iterdir()) == ["repaired.safetensors", "report.html", "report.json"]
    assert planted.read_bytes() == before
    assert (asr(planted, tiny_clip), asr(out / "repaired.safetensors", tiny_clip)) == (1.0, 0.0)
    told = document(out)
    assert (told["succeeded"], told["exit_code"]) == (True, 0)
    assert (told["triggers"][0]["target"], told["triggers"][0]["kind"]) == ("green", "additive")
    assert [row["kind"] for row in told["triggers"]] == ["additive", "patch", "additive"]
    assert told["triggers"][0]["asr"]["before"] > 0.9
    assert told["triggers"][0]["asr"]["after"] <= 0.05
    assert told["measured_on"].startswith("12 images of") is False  # too few were held out
    assert told["files"][0]["sha256"] == inputs.read_tensors(planted).record.sha256
    assert told["settings"]["verdict before"] == "backdoored"


def test_a_torch_delivery_gets_its_envelope_back(tmp_path: Path, tiny_clip: ClipModel, delivery: Path) -> None:
    folder = tmp_path / "seed1"
    state = {name: values.half() for name, values in load_file(delivery).items()}
    (folder / "prompt_learner").mkdir(parents=True)
    savers.save(folder / "prompt_learner" / "model.pth.tar-5", state)
    labelled, out = images(tmp_path / "images", 2), tmp_path / "out"
    code = repair(folder, labelled, out, "--target", "Green", "--classes", ",".join(toys.NAMES), "--test", str(labelled))
    assert code in (0, 1)
    envelope = out / "prompt_learner" / "model.pth.tar-5"
    again = torch.load(envelope, weights_only=True)["state_dict"]
    assert {name: (values.shape, values.dtype) for name, values in again.items()} == {
        name: (values.shape, values.dtype) for name, values in state.items()
    }
    told = document(out)
    assert [Path(file["path"]).name for file in told["written"]] == ["repaired.safetensors", "model.pth.tar-5"]
    assert told["measured_on"] == f"6 images of {labelled}, which were not tuned on"
    assert told["settings"]["verdict before"] == "not inspected"
    assert told["exit_code"] == code


def test_an_inspection_comes_first_and_a_repair_needs_something_found(
    delivery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def inspect(path: Path, options: Any, *, progress: Any) -> Report:
        asked.append(options)
        return inspection(path, Verdict.NO_EVIDENCE)

    monkeypatch.setattr(repair_evidence, "inspect_model", inspect)
    labelled, out = images(tmp_path / "images", 4), tmp_path / "out"
    assert repair(delivery, labelled, out, "--seed", "4") == 2
    error = capsys.readouterr().err
    assert "the verdict of its inspection is 'no evidence': name the target with --target, or repair all the same with" in error
    assert not out.exists()
    assert (asked[0].base, asked[0].seed, asked[0].probe_count) == ("b", 4, 1000)
    assert repair(delivery, labelled, out, "--force") in (0, 1)
    assert document(out)["settings"]["verdict before"] == "no evidence"


def test_a_trigger_that_still_works_ends_in_one(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(TriggerTuning, "run", lambda self, delivered, *given, **named: delivered)
    write_report(inspection(planted), tmp_path / "report")
    assert repair(planted, images(tmp_path / "images", 4), tmp_path / "out", "--report", str(tmp_path / "report")) == 1
    assert "NOT REPAIRED" in capsys.readouterr().out
    told = document(tmp_path / "out")
    assert "the numbers flatter" in told["measured_on"]
    assert told["triggers"][0]["asr"]["after"] == pytest.approx(told["triggers"][0]["asr"]["before"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--target", "purple"], "expected a target out of red, green, blue, got 'purple'"),
        (["--target", "green", "--labelled", "nowhere"], "one folder of images per class, found none at nowhere"),
        (["--report", "nowhere"], "nowhere: expected the --out folder of an inspection"),
        (["--report", "{other}"], "found that on another file: inspect this delivery"),
        (["--target", "green", "--out", "{delivered}"], "expected another folder for --out"),
        (["--target", "green", "--device", "nothing"], "expected a torch device that this machine has, got 'nothing'"),
        (["--format", "sarif"], "'sarif' is not one of 'console', 'json', 'html'"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    delivery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    repaired = delivery.rename(delivery.with_name("repaired.safetensors"))
    write_report(inspection(repaired, sha256="0" * 64), tmp_path / "other")
    filled = [option.format(other=tmp_path / "other", delivered=repaired.parent) for option in options]
    assert repair(repaired, images(tmp_path / "images", 2), tmp_path / "out", *filled) == 2
    printed = capsys.readouterr()
    assert said in printed.err.replace("\n", " ")
    assert "Traceback" not in printed.err
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_said_before_an_inspection_of_minutes(
    delivery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(repair_evidence, "inspect_model", lambda *_, **__: pytest.fail("inspected"))
    assert repair(delivery, tmp_path / "nowhere", tmp_path / "out") == 2
    assert "one folder of images per class, found none at" in capsys.readouterr().err


def test_towers_that_were_changed_are_not_kept(tmp_path: Path, tiny_clip: ClipModel) -> None:
    """A prompt is tuned on the trusted base; the delivered tower, whatever is in it, is in neither of the written files."""
    state = full_state(toys.fresh(tiny_clip, "vpt").prompt, tiny_clip)
    changed = "image_encoder.transformer.resblocks.1.mlp.c_fc.weight"
    trusted = state[changed].clone()
    path = tmp_path / "model.pth.tar-5"
    savers.save(path, state | {changed: trusted + 0.05})
    labelled, out = images(tmp_path / "images", 2), tmp_path / "out"
    assert repair(path, labelled, out, "--target", "green", "--classes", ",".join(toys.NAMES)) in (0, 1)
    assert torch.equal(torch.load(out / path.name, weights_only=True)["state_dict"][changed], trusted)
    assert any("The delivered towers differ from tiny" in note for note in document(out)["notes"])


def test_a_whole_model_is_refused(tmp_path: Path, tiny_clip: ClipModel, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "whole.pt"
    torch.save(tiny_clip.clip.state_dict(), path)
    labelled = images(tmp_path / "images", 2)
    assert repair(path, labelled, tmp_path / "out", "--target", "green", "--classes", ",".join(toys.NAMES)) == 2
    assert "expected a prompt-tuned delivery (coop, kgcoop, prograd" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["json", "html"])
def test_the_report_goes_to_standard_output(
    delivery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    out = tmp_path / "out"
    assert repair(delivery, images(tmp_path / "images", 2), out, "--target", "green", "--format", output) in (0, 1)
    printed = capsys.readouterr().out
    assert printed == (out / f"report.{output}").read_text(encoding="utf-8")
