"""Small data sets of real pictures, as they would lie on disk."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from clipvet.pocket.tasks import load_task, task_names
from clipvet.scan import store

MakeTars = Callable[..., list[Path]]
Change = Callable[[int, Tensor, str], tuple[Tensor, str]]


def die_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """Let a scan be interrupted when it begins one write more than so many."""
    real, left = store.write_whole, writes

    def dying(path: Path, write: Any) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(path, write)

    for module in ("store", "merge", "reference"):
        monkeypatch.setattr(f"clipvet.scan.{module}.write_whole", dying)


def png(image: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray((image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="session")
def pictures() -> list[tuple[Tensor, str]]:
    """Pictures of the pocket with captions, one of each class of some tasks: no two are alike."""
    found: dict[str, Tensor] = {}
    for name in task_names():
        task = load_task(name)
        images, labels = task.train_images(1)
        for label, caption in enumerate(task.class_names):
            found.setdefault(f"a picture of {caption}", images[labels.tolist().index(label)])
    return [(image, caption) for caption, image in list(found.items())[:120]]


@pytest.fixture
def make_tars(tmp_path: Path, pictures: list[tuple[Tensor, str]]) -> MakeTars:
    """Write pictures as tar shards; ``change`` may replace a picture and its caption."""

    def make(count: int = 60, shards: int = 3, change: Change | None = None) -> list[Path]:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        paths = [folder / f"{shard:05d}.tar" for shard in range(shards)]
        archives = [tarfile.open(path, "w") for path in paths]  # noqa: SIM115  # closed below
        for at, (image, caption) in enumerate(pictures[:count]):
            image, caption = change(at, image, caption) if change else (image, caption)
            archive = archives[at * shards // count]
            add(archive, f"{at:06d}.png", png(image))
            add(archive, f"{at:06d}.txt", caption.encode())
        for archive in archives:
            archive.close()
        return paths

    return make
