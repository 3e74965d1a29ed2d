"""Read labelled images: one folder per class, with the class's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clipvet.data.images import load_images
from clipvet.errors import UnreadableError, UsageError
from clipvet.types import Skipped

__all__ = ["LabelledImages", "class_folders", "load_labelled", "plain_name"]


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images with their true labels.

    Attributes:
        images: ``float (n, 3, size, size)`` in [0, 1], class by class.
        labels: ``long (n,)``, positions in the class names that were asked for.
        skipped: folders without a class, classes without images, and what could not be read.
    """

    images: Tensor
    labels: Tensor
    skipped: tuple[Skipped, ...] = ()


def plain_name(name: str) -> str:
    """Return a class name as it is compared: in lower case, with one space for spaces, underscores and hyphens."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def load_labelled(folder: Path, class_names: Sequence[str], size: int, *, most: int, seed: int) -> LabelledImages:
    """Read ``folder/<class name>/*`` for a classifier.

    Args:
        folder: with a folder of images per class; case, spaces, underscores and hyphens of its name do not matter.
        class_names: in the order of the logits.
        size: side of the model's input.
        most: images per folder, drawn by the seed where there are more.
        seed: of that drawing.

    Raises:
        UnreadableError: there is no such folder.
        UsageError: two classes cannot be told apart by such names, or fewer than two classes have images.
    """
    wanted = _by_plain_name(class_names)
    skipped: list[Skipped] = []
    read: dict[int, list[Tensor]] = {}
    for path in class_folders(folder):
        label = wanted.get(plain_name(path.name))
        if label is None:
            skipped.append(Skipped(what=str(path), why="no class of the delivery has this name"))
            continue
        try:
            images, unread = load_images(path, size, most, seed)
        except UnreadableError as error:
            skipped.append(Skipped(what=str(path), why=str(error)))
            continue
        skipped += unread
        read.setdefault(label, []).append(images)
    if len(read) < min(2, len(class_names)):
        raise UsageError(_too_few(folder, class_names, len(read)))
    missing = [name for label, name in enumerate(class_names) if label not in read]
    if missing:
        what = f"{len(missing)} of {len(class_names)} classes ({', '.join(missing[:5])}{', ...' * (len(missing) > 5)})"
        skipped.append(Skipped(what=what, why=f"no image of them in {folder}"))
    parts = [(label, torch.cat(read[label])) for label in sorted(read)]
    labels = torch.cat([torch.full((len(images),), label) for label, images in parts])
    return LabelledImages(images=torch.cat([images for _, images in parts]), labels=labels, skipped=tuple(skipped))


def _by_plain_name(class_names: Sequence[str]) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for label, name in enumerate(class_names):
        first = wanted.setdefault(plain_name(name), label)
        if first != label:
            raise UsageError(
                f"expected class names that differ in more than case and spaces, found {class_names[first]!r} and {name!r}: "
                "their folders cannot be told apart"
            )
    return wanted


def class_folders(folder: Path) -> list[Path]:
    """List the folders in a folder of labelled images, by name.

    Raises:
        UnreadableError: there is no such folder.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise UnreadableError(
            f"expected a folder with one folder of images per class, found none at {folder}: check the path"
        ) from error
    return found


def _too_few(folder: Path, class_names: Sequence[str], found: int) -> str:
    named = ", ".join(repr(name) for name in class_names[:3])
    return (
        f"expected folders of images for at least 2 of the {len(class_names)} classes in {folder}, found {found}: "
        f"name each folder as its class is named ({named} ...)"
    )
