"""A group is on disk whole or not at all, and belongs to one run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from clipvet.errors import UnreadableError, UsageError
from clipvet.inspection import journal as module
from clipvet.inspection.journal import Journal, MemoryJournal

GROUP = {"margin": torch.tensor([1.5, -2.0]), "variable.delta": torch.rand(2, 3, 4, 4).transpose(2, 3)}


def opened(folder: Path, *, resume: bool = True, **identity: object) -> Journal:
    return Journal(folder, identity=identity or {"seed": 0}, resume=resume)


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_was_put_is_got(tmp_path: Path, on_disk: bool) -> None:
    journal = opened(tmp_path / "new" / "folder") if on_disk else MemoryJournal()
    assert journal.get("a/0,1") is None
    journal.put("a/0,1", GROUP)
    found = journal.get("a/0,1")
    assert found is not None
    assert set(found) == set(GROUP)
    assert all(torch.equal(found[name], GROUP[name]) for name in GROUP)
    assert journal.get("a/0") is None


def test_a_resumed_run_finds_its_groups_and_a_new_one_none(tmp_path: Path) -> None:
    opened(tmp_path).put("a", GROUP)
    assert opened(tmp_path).get("a") is not None
    assert opened(tmp_path, resume=False).get("a") is None
    assert opened(tmp_path).get("a") is None


def test_a_new_run_leaves_strange_files_alone(tmp_path: Path) -> None:
    opened(tmp_path).put("a", GROUP)
    delivery = tmp_path / "prompt.safetensors"
    delivery.write_bytes(b"theirs")
    opened(tmp_path, resume=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompt.safetensors", "run.json"]


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    opened(tmp_path, seed=0, classes=("a", "b")).put("a", GROUP)
    with pytest.raises(UsageError, match="found that of another delivery or other settings: repeat the earlier command"):
        opened(tmp_path, seed=1, classes=("a", "b"))
    assert opened(tmp_path, classes=("a", "b"), seed=0).get("a") is not None
    assert opened(tmp_path, resume=False, seed=1).get("a") is None
    assert opened(tmp_path, seed=1).folder == tmp_path


def test_a_killed_write_leaves_nothing_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path)
    journal.put("b", GROUP)

    def half(tensors: dict[str, Tensor], path: Path) -> None:
        Path(path).write_bytes(b"\x10\x00\x00")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_file", half)
    for key in ("a", "b"):
        with pytest.raises(KeyboardInterrupt):
            journal.put(key, {"margin": torch.zeros(1)})
    after = opened(tmp_path)
    assert after.get("a") is None
    again = after.get("b")
    assert again is not None
    assert torch.equal(again["margin"], GROUP["margin"])


@pytest.mark.parametrize("damage", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00notjson!", b"\xff" * 64])
def test_a_damaged_group_is_named(tmp_path: Path, damage: bytes) -> None:
    journal = opened(tmp_path)
    journal.put("a", GROUP)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(damage)
    with pytest.raises(UnreadableError, match=rf"{path.name}: the saved state is damaged .*: remove the file and resume again"):
        journal.get("a")
    path.unlink()
    assert journal.get("a") is None
