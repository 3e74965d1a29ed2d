"""Ordinary files are read exactly. The oracle is torch's own loader, on files that these tests wrote themselves."""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clipvet.errors import HostileFileError, UnreadableError, UsageError
from clipvet.models.reading import ReadLimits, find_anomalies, read_tensors, resolve_delivery, sha256_of
from clipvet.types import Severity


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype, name
        assert torch.equal(found[name], values.detach()), name
        assert found[name].is_contiguous()


def prompt(dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = {"ctx": (4, 8), "token_prefix": (3, 1, 8), "token_suffix": (3, 6, 8), "meta_net.linear1.weight": (2, 8)}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


class WarmUp(torch.optim.lr_scheduler.LRScheduler):
    """Keeps the scheduler that follows as an attribute, so that its state dict holds a whole object (as Dassl's does)."""

    def __init__(self, optimizer: Any, successor: Any) -> None:
        self.successor = successor
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        return [1e-5 for _ in self.base_lrs]


def dassl_checkpoint(state: dict[str, Tensor], val_result: Any = None) -> dict[str, Any]:
    model = nn.Linear(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
    model(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    scheduler = WarmUp(optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50))
    envelope = {"state_dict": collections.OrderedDict(state), "epoch": 50, "optimizer": optimizer.state_dict()}
    return {**envelope, "scheduler": scheduler.state_dict(), "val_result": val_result}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_dassl_checkpoint_with_warm_up(tmp_path: Path, zipped: bool, protocol: int) -> None:
    path = tmp_path / "model.pth.tar-50"
    torch.save(dassl_checkpoint(prompt(), 71.5), path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    if protocol == 2:  # the one that torch.save uses
        with pytest.raises(pickle.UnpicklingError):
            torch.load(path, weights_only=True)
    found = read_tensors(path)
    same(found.tensors, prompt())
    assert found.envelope == "state_dict"
    assert found.extras == {"epoch": 50, "val_result": 71.5}
    assert found.record.reader == ("torch zip" if zipped else "torch legacy")
    assert "torch.optim.lr_scheduler.CosineAnnealingLR" in found.record.stubbed_globals
    assert found.record.size == path.stat().st_size
    assert found.record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == sha256_of(path)
    assert [f.severity for f in find_anomalies(found)] == [Severity.INFO]


@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_values_and_namespace(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.pt"
    extras = {
        "best_acc1": np.float64(61.25),
        "count": np.int32(-7),
        "target_name": "cat",
        "args": argparse.Namespace(lr=0.1, name="a"),
        "metadata": {"r": 2, "alpha": 1, "params": ["q", "k"]},
        "model": {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.asfortranarray(np.arange(6.0).reshape(3, 2))},
    }
    torch.save(extras, path, _use_new_zipfile_serialization=zipped)
    found = read_tensors(path)
    assert found.extras == {
        "best_acc1": 61.25,
        "count": -7,
        "target_name": "cat",
        "args": {"lr": 0.1, "name": "a"},
        "metadata": {"r": 2, "alpha": 1, "params": ["q", "k"]},
    }
    same(found.tensors, {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in extras["model"].items()})
    assert all(f.severity == Severity.INFO for f in find_anomalies(found))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_pickle_of_arrays(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "prompt_ep10.pkl"
    arrays = {"shallow_prompt": np.ones((1, 2, 3), np.float16), "deep_prompt": np.arange(12, dtype=np.int64).reshape(2, 6)}
    path.write_bytes(pickle.dumps(arrays, protocol=protocol))
    found = read_tensors(path)
    same(found.tensors, {name: torch.from_numpy(a) for name, a in arrays.items()})
    assert found.record.reader == "pickle"
    assert found.record.stubbed_globals == ()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4))
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.prompts = nn.ParameterList([nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(3))])
        self.register_buffer("gone", torch.ones(2), persistent=False)
        self.note = torch.ones(5)


@pytest.mark.parametrize("zipped", [True, False])
def test_whole_module(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "net.pt"
    net = Net()
    torch.save(net, path, _use_new_zipfile_serialization=zipped)
    same(read_tensors(path).tensors, net.state_dict())
    torch.save({"model": nn.DataParallel(net), "epoch": 1}, path, _use_new_zipfile_serialization=zipped)
    found = read_tensors(path)
    same(found.tensors, net.state_dict())
    assert (found.envelope, found.extras) == ("model", {"epoch": 1})


def test_foreign_class_of_a_whole_module_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(Net(), path)
    (finding,) = [f for f in find_anomalies(read_tensors(path)) if f.severity == Severity.CRITICAL]
    assert "Net" in finding.message
    assert "CWE-502" in finding.message
    assert finding.atlas == ("AML.T0018.002", "AML.T0011.000")


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.register_buffer("context_length", torch.tensor(77))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) + torch.ones(4).to(x.dtype)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("traced", [True, False])
def test_torchscript(tmp_path: Path, half: bool, traced: bool) -> None:
    path = tmp_path / "ViT.pt"
    module = Scripted().eval()
    scripted = torch.jit.trace(module, torch.ones(1, 3)) if traced else torch.jit.script(module)
    scripted = scripted.half() if half else scripted
    torch.jit.save(scripted, path)
    found = read_tensors(path)
    same(found.tensors, torch.jit.load(path).state_dict())
    assert found.record.reader == "torchscript"
    assert found.record.stubbed_globals == ()
    assert found.tensors["model.0.weight"].dtype == (torch.float16 if half else torch.float32)


DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.uint16, torch.uint32, torch.bool, torch.complex64),
]


@pytest.mark.parametrize("zipped", [True, False])
def test_dtypes_views_and_shared_storages(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.pt"
    base = torch.arange(24, dtype=torch.float32)
    tensors = {str(d): torch.arange(6).remainder(2).to(d).reshape(2, 3) for d in DTYPES}
    if not zipped:  # torch itself cannot read these back from its older format
        tensors = {name: t for name, t in tensors.items() if t.dtype not in (torch.uint16, torch.uint32)}
    tensors |= {
        "transposed": base.reshape(4, 6).t(),
        "strided": base[1::3],
        "slice": base[5:9],
        "same": base,
        "tied": base,
        "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 5),
        "scalar": torch.tensor(4.5),
        "empty": torch.empty(0, 3),
        "parameter": nn.Parameter(torch.ones(2, 2)),
    }
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    found = read_tensors(path).tensors
    same(found, torch.load(path, weights_only=True))
    assert found["same"].data_ptr() == found["tied"].data_ptr()


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "no-suffix"
    state = {**prompt(torch.bfloat16), "flag": torch.tensor([True, False]), "module": torch.tensor(3)}
    save_file(state, path, metadata={"format": "pt"})
    found = read_tensors(path)
    same(found.tensors, state)
    assert (found.record.reader, found.extras, found.envelope) == ("safetensors", {"format": "pt"}, "")
    assert find_anomalies(found) == []


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "weights"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_envelopes_and_prefixes(tmp_path: Path, key: str, prefix: str) -> None:
    path = tmp_path / "epoch_3.pt"
    torch.save({"name": "x", key: {prefix + name: v for name, v in prompt().items()}}, path)
    found = read_tensors(path)
    same(found.tensors, prompt())
    assert (found.envelope, found.extras) == (key, {"name": "x"})


def test_prefix_stays_where_not_every_name_has_it(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(1), "b": torch.ones(2)}
    torch.save(state, tmp_path / "x.pt")
    same(read_tensors(tmp_path / "x.pt").tensors, state)


def test_bare_parameter_and_clip_lora(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(nn.Parameter(torch.ones(3, 2)), path)
    same(read_tensors(path).tensors, {"": torch.ones(3, 2)})
    lora = {"layer_0": {"q_proj": {"w_lora_A": torch.ones(2, 4), "w_lora_B": torch.zeros(4, 2)}}}
    torch.save({"weights": lora, "metadata": {"r": 2, "alpha": 1, "params": ["q"]}}, path)
    found = read_tensors(path)
    same(found.tensors, {"layer_0.q_proj.w_lora_A": torch.ones(2, 4), "layer_0.q_proj.w_lora_B": torch.zeros(4, 2)})
    assert (found.envelope, found.extras) == ("weights", {"metadata": {"r": 2, "alpha": 1, "params": ["q"]}})


def test_tensors_that_are_not_read_are_listed(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "s": torch.eye(3).to_sparse(), "o": np.array([None])}, tmp_path / "x.pt")
    found = read_tensors(tmp_path / "x.pt")
    assert set(found.tensors) == {"a"}
    assert {skipped.what for skipped in found.skipped} == {"s", "o"}


def test_changing_what_was_read_changes_no_file(tmp_path: Path) -> None:
    for name in ("x.pt", "x.safetensors"):
        path = tmp_path / name
        (save_file if name.endswith("s") else torch.save)({"a": torch.zeros(4)}, path)
        before = path.read_bytes()
        read_tensors(path).tensors["a"].add_(1)
        assert path.read_bytes() == before


def shards(folder: Path) -> dict[str, Tensor]:
    state = prompt()
    names = list(state)
    save_file({name: state[name] for name in names[:2]}, folder / "model-00001-of-00002.safetensors")
    save_file({name: state[name] for name in names[2:]}, folder / "model-00002-of-00002.safetensors")
    where = {name: f"model-0000{1 + (i > 1)}-of-00002.safetensors" for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return state


def test_sharded_index(tmp_path: Path) -> None:
    state = shards(tmp_path)
    path = resolve_delivery(tmp_path)
    assert path.name == "model.safetensors.index.json"
    found = read_tensors(path)
    same(found.tensors, state)
    assert [Path(part.path).name for part in found.parts] == [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UnreadableError, match="no such file"):
        read_tensors(path)


def test_limits_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({f"t{i}": torch.ones(8) for i in range(5)}, path)
    with pytest.raises(UsageError, match="positive max_tensors, got 0"):
        ReadLimits(max_tensors=0)
    with pytest.raises(UnreadableError, match="more than 4 tensors"):
        read_tensors(path, limits=ReadLimits(max_tensors=4))
    with pytest.raises(HostileFileError, match="more than the limit of 100"):
        read_tensors(path, limits=ReadLimits(max_file_bytes=100))
    with pytest.raises(HostileFileError, match="zip bomb"):
        read_tensors(path, limits=ReadLimits(max_bytes=200))
    with pytest.raises(HostileFileError, match=r"data\.pkl is \d+ bytes"):
        read_tensors(path, limits=ReadLimits(max_pickle_bytes=10))


def test_a_large_file_is_read_at_the_speed_of_copying(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"state_dict": {"a": torch.ones(4 << 20)}, "optimizer": {"a": torch.ones(4 << 20)}}, path)
    same(read_tensors(path).tensors, {"a": torch.ones(4 << 20)})


# --- which file of a folder -----------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def test_checkpoint_file_names_the_newest(tmp_path: Path) -> None:
    touch(tmp_path, "model.pth.tar-9", "model.pth.tar-10", "model-best.pth.tar", "log.txt")
    assert resolve_delivery(tmp_path).name == "model.pth.tar-10"
    (tmp_path / "checkpoint").write_text("model.pth.tar-9\n")
    assert resolve_delivery(tmp_path).name == "model.pth.tar-9"
    (tmp_path / "checkpoint").write_text("model.pth.tar-50\n")
    assert resolve_delivery(tmp_path).name == "model.pth.tar-10"


def test_best_then_known_names_then_the_only_candidate(tmp_path: Path) -> None:
    assert resolve_delivery(touch(tmp_path / "a", "model-best.pth.tar")).name == "model-best.pth.tar"
    both = touch(tmp_path / "b", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_config.json")
    assert resolve_delivery(both).name == "open_clip_model.safetensors"
    assert resolve_delivery(touch(tmp_path / "c", "model.safetensors", "pytorch_model.bin")).name == "model.safetensors"
    assert resolve_delivery(touch(tmp_path / "d", "pytorch_model.bin")).name == "pytorch_model.bin"
    assert resolve_delivery(touch(tmp_path / "e", "tuned.pt", "readme.md")).name == "tuned.pt"
    assert resolve_delivery(tmp_path / "e" / "tuned.pt") == tmp_path / "e" / "tuned.pt"


def test_run_folder_around_the_learner_folder(tmp_path: Path) -> None:
    touch(tmp_path / "run" / "prompt_learner", "model.pth.tar-10")
    touch(tmp_path / "run" / "trigger", "model.pth.tar-10")
    assert resolve_delivery(tmp_path / "run") == tmp_path / "run" / "prompt_learner" / "model.pth.tar-10"


def test_folder_without_one_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"expected one checkpoint .*found 'a\.pt', 'b\.pt'; name the file"):
        resolve_delivery(touch(tmp_path, "a.pt", "b.pt"))
    with pytest.raises(UnreadableError, match="no such file or folder"):
        resolve_delivery(tmp_path / "missing")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../b", "..", "a\\b", "a\0b"])
def test_checkpoint_file_cannot_lead_out(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "model.pth.tar-1")
    (tmp_path / "checkpoint").write_text(name + "\n")
    with pytest.raises(HostileFileError, match="outside the folder"):
        resolve_delivery(tmp_path)


def test_links_cannot_lead_out_but_a_hub_cache_works(tmp_path: Path) -> None:
    secret = touch(tmp_path / "elsewhere", "secret") / "secret"
    run = touch(tmp_path / "run")
    (run / "model.pth.tar-3").symlink_to(secret)
    with pytest.raises(HostileFileError, match="link that leads out"):
        resolve_delivery(run)
    blobs = touch(tmp_path / "hub" / "blobs", "abc")
    snapshot = touch(tmp_path / "hub" / "snapshots" / "1f")
    (snapshot / "model.safetensors").symlink_to(blobs / "abc")
    assert resolve_delivery(snapshot) == snapshot / "model.safetensors"
