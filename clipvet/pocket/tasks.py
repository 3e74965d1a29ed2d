"""The ten pocket tasks and the pool of probe pictures, rendered from the shipped pictures by seed.

A class of a *coarse* task is a Unicode subgroup (bird, tool), of a *fine* task one name (pear, taxi). The shots come from some
drawing styles, the test images from others. Pictures are placed on white or coloured backgrounds with small random changes.
"""

from __future__ import annotations

import functools
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clipvet.data.compose import Placement, compose
from clipvet.errors import UsageError

__all__ = ["Task", "load_task", "probe_pool", "task_names"]

_ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A classification task over the shipped pictures.

    ``seen`` are the classes that CoCoOp's protocol tunes on (the first half); the others are its unseen ones. ``shots`` and
    ``seed`` decide the training images only: the test images of a task are always the same.
    """

    name: str
    class_names: tuple[str, ...]
    seen: tuple[int, ...]
    shots: int
    seed: int

    @property
    def unseen(self) -> tuple[int, ...]:
        """The classes that are not in ``seen``."""
        return tuple(i for i in range(len(self.class_names)) if i not in self.seen)

    def train_images(self, views: int = 1) -> tuple[Tensor, Tensor]:
        """Render the shots: ``float (views * classes * shots, 3, 64, 64)`` in [0, 1] and their labels ``int64``.

        A class with fewer pictures than shots shows each of them equally often, give or take one, every time placed anew.

        Args:
            views: how often each shot is rendered, every time placed anew: the augmentation of a tuning.
        """
        generator = torch.Generator().manual_seed(self.seed)
        picked: list[int] = []
        for entry in _entry(self.name)["classes"]:
            order = torch.randperm(len(entry["train"]), generator=generator).tolist()
            picked += [entry["train"][order[i % len(order)]] for i in range(self.shots)]
        labels = torch.arange(len(self.class_names)).repeat_interleave(self.shots)
        pictures = _pictures(picked)
        return torch.cat([compose(pictures, _placement(), generator) for _ in range(views)]), labels.repeat(views)

    def test_images(self) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Render the test images.

        Returns:
            Images ``float (n, 3, 64, 64)`` in [0, 1], labels ``int64 (n,)``, and for every image the name of what it shows:
            images that share it are not independent, so intervals are to be clustered by it.
        """
        entry = _entry(self.name)
        picked = [i for one in entry["classes"] for i in one["test"]]
        labels = torch.tensor([label for label, one in enumerate(entry["classes"]) for _ in one["test"]])
        generator = torch.Generator().manual_seed(entry["seed"])
        names = tuple(_document()["pictures"][i][1] for i in picked)
        return compose(_pictures(picked), _placement(), generator), labels, names


def task_names() -> tuple[str, ...]:
    """Name the tasks, coarse ones first."""
    return tuple(task["name"] for task in _document()["tasks"])


def load_task(name: str, *, shots: int = 16, seed: int = 0) -> Task:
    """Load a task; nothing is rendered yet.

    Args:
        name: one of ``task_names()``.
        shots: training images per class.
        seed: which pictures are the shots, and how they are placed.

    Raises:
        UsageError: no such task, or fewer than one shot.
    """
    if shots < 1:
        raise UsageError(f"expected at least 1 shot per class, got {shots}")
    classes = tuple(entry["name"] for entry in _entry(name)["classes"])
    return Task(name=name, class_names=classes, seen=tuple(range(_entry(name)["seen"])), shots=shots, seed=seed)


def probe_pool(n: int = 1000, seed: int = 0) -> Tensor:
    """Render pictures that share neither a name nor a Unicode subgroup with any task, on coloured backgrounds.

    The first k pictures of any n are the same pictures; their placement depends on n and seed.

    Returns:
        ``float (n, 3, 64, 64)`` in [0, 1].

    Raises:
        UsageError: n is not between 1 and the size of the pool.
    """
    pool = _document()["pool"]
    if not 1 <= n <= len(pool["pictures"]):
        raise UsageError(f"expected 1 to {len(pool['pictures'])} probe pictures, got {n}; generate_probes makes any number")
    generator = torch.Generator().manual_seed(seed)
    return compose(_pictures(pool["pictures"][:n]), Placement(**pool["placement"]), generator)


@functools.cache
def _document() -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads((_ASSETS / "tasks.json").read_text(encoding="utf-8")))


def _entry(name: str) -> dict[str, Any]:
    for task in _document()["tasks"]:
        if task["name"] == name:
            return cast("dict[str, Any]", task)
    raise UsageError(f"expected one of the tasks {', '.join(task_names())}, got {name!r}")


def _placement() -> Placement:
    return Placement(**_document()["placement"])


@functools.cache
def _picture(path: str) -> Tensor:
    with _archive().open(path) as file:
        picture = np.array(Image.open(io.BytesIO(file.read())).convert("RGBA"))
    return torch.from_numpy(picture).permute(2, 0, 1)


@functools.cache
def _archive() -> zipfile.ZipFile:
    # In memory, since processes that are forked later would share the position in an open file.
    return zipfile.ZipFile(io.BytesIO((_ASSETS / "pictures.zip").read_bytes()))


def _pictures(indices: Sequence[int]) -> Tensor:
    """Read pictures ``uint8 (n, 4, 64, 64)`` by their index in ``tasks.json``."""
    listed = _document()["pictures"]
    return torch.stack([_picture(listed[i][0]) for i in indices])
