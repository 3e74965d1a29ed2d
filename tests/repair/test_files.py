"""The repaired files have the form of the delivery, and never take its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from clipvet.errors import UnwritableError, UsageError
from clipvet.models.base import ClipModel
from clipvet.models.delivery import open_delivery
from clipvet.models.families import full_state, new_prompt
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.reading import read_tensors, sha256_of
from clipvet.repair.files import Places, places, write
from tests.oracles import savers
from tests.repair import toys

FAMILIES = ["coop", "kgcoop", "cocoop", "tcp", "maple", "vpt", "ivlp", "promptsrc"]


def other(model: ClipModel, family: str) -> PromptedClassifier:
    """A prompt like those of the deliveries, all of whose learned numbers are others."""
    prompt = new_prompt(family, model, toys.NAMES, seed=2)
    with torch.no_grad():
        for values in prompt.parameters():
            values += 0.1
    return PromptedClassifier(model, prompt, toys.NAMES)


def deliver(path: Path, model: ClipModel, family: str, *, seed: int, prefix: str = "") -> dict[str, torch.Tensor]:
    """Write an official checkpoint: towers and learned tensors in half precision where the official code has them so."""
    state = full_state(new_prompt(family, model, toys.NAMES, seed=seed), model)
    state = {prefix + key: values.half() if values.ndim > 1 else values for key, values in state.items()}
    for key in state:
        if key.endswith("token_prefix"):
            state[key] += 0.01  # not quite the base's: what was delivered is what is written
    path.parent.mkdir(parents=True, exist_ok=True)
    savers.save(path, state)
    return state


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_envelope_is_written_again(tmp_path: Path, tiny_clip: ClipModel, family: str, prefix: str) -> None:
    path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-5"
    original = deliver(path, tiny_clip, family, seed=1, prefix=prefix)
    before = path.read_bytes()
    tuned = other(tiny_clip, family)
    file = read_tensors(path)
    found = places(tmp_path / "out", tmp_path / "run", path, file.record.reader)
    assert found.envelope == tmp_path / "out" / "prompt_learner" / "model.pth.tar-5"
    written = write(found, tuned, file)

    document = torch.load(found.envelope, weights_only=True)
    assert set(document) == {"state_dict", "epoch", "optimizer", "scheduler", "val_result"}
    assert (document["epoch"], document["optimizer"], document["scheduler"]) == (5, None, None)
    again = document["state_dict"]
    assert list(again) == list(original)
    for key, values in original.items():
        assert (again[key].shape, again[key].dtype) == (values.shape, values.dtype), key
    state = {prefix + key: values for key, values in tuned.prompt.state().items()}
    learned = {key for key, values in state.items() if not torch.equal(values, original[key].float())}
    changed = {key for key in original if not torch.equal(again[key], original[key])}
    assert changed == {key for key in learned if "token_" not in key}
    assert changed
    assert path.read_bytes() == before
    assert [record.sha256 for record in written] == [sha256_of(found.own), sha256_of(found.envelope)]

    images, _ = toys.toy(4)
    own, envelope = (
        open_delivery(where, base=tiny_clip, family=family, class_names=toys.NAMES).classifier(images)
        for where in (found.own, found.envelope)
    )
    assert torch.allclose(own, envelope, atol=1e-4)


def test_a_bare_state_dict_stays_bare(tmp_path: Path, tiny_clip: ClipModel) -> None:
    path = tmp_path / "prompt.pth"
    state = new_prompt("coop", tiny_clip, toys.NAMES, seed=1).state()
    torch.save(state, path)
    file = read_tensors(path)
    found = places(tmp_path / "out", path, path, file.record.reader)
    write(found, other(tiny_clip, "coop"), file)
    assert found.envelope == tmp_path / "out" / "prompt.pth"
    assert list(torch.load(found.envelope, weights_only=True)) == list(state)


def test_a_prompt_of_another_shape_is_refused(tmp_path: Path, tiny_clip: ClipModel) -> None:
    path = tmp_path / "prompt.pth"
    torch.save(new_prompt("coop", tiny_clip, toys.NAMES, seed=1).state(), path)
    longer = PromptedClassifier(tiny_clip, new_prompt("coop", tiny_clip, toys.NAMES, n_ctx=7, init="", seed=2), toys.NAMES)
    found = Places(own=tmp_path / "out" / "repaired.safetensors", envelope=tmp_path / "out" / "prompt.pth")
    with pytest.raises(UsageError, match=r"expected ctx of shape \(4, 64\), as in the delivery, got \(7, 64\)"):
        write(found, longer, read_tensors(path))


@pytest.mark.parametrize(
    ("name", "reader", "envelope"),
    [
        ("prompt.safetensors", "safetensors", None),
        ("prompt.pth", "torch zip", "prompt.pth"),
        ("prompt.pth", "torch legacy", "prompt.pth"),
        ("script.pt", "torchscript", None),
        ("report.json", "torch zip", "report.json.pth"),
    ],
)
def test_only_torch_files_are_written_again(tmp_path: Path, name: str, reader: str, envelope: Any) -> None:
    found = places(tmp_path / "out", tmp_path / name, tmp_path / name, reader)
    assert (found.own.name, found.envelope and found.envelope.name) == ("repaired.safetensors", envelope)


@pytest.mark.parametrize(("name", "reader"), [("repaired.safetensors", "safetensors"), ("prompt.pth", "torch zip")])
def test_the_delivery_is_never_overwritten(tmp_path: Path, name: str, reader: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link"):
        with pytest.raises(UsageError, match=f"another folder for --out than .*: {name} in it is the delivery itself"):
            places(out, tmp_path / name, tmp_path / name, reader)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, tiny_clip: ClipModel) -> None:
    path = deliver_small(tmp_path / "prompt.pth", tiny_clip)
    (tmp_path / "file").write_text("in the way")
    file = read_tensors(path)
    tuned = other(tiny_clip, "coop")
    with pytest.raises(UnwritableError, match="the repaired files cannot be written"):
        write(places(tmp_path / "file" / "out", path, path, "safetensors"), tuned, file)


def deliver_small(path: Path, model: ClipModel) -> Path:
    torch.save(new_prompt("coop", model, toys.NAMES, seed=1).state(), path)
    return path
