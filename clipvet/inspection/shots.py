"""What clean references are tuned on: images that the base labels itself, or a folder per class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from clipvet.data.labelled import class_folders, load_labelled, plain_name
from clipvet.errors import UsageError
from clipvet.inspection.subject import TEMPLATES
from clipvet.models.base import ClipModel
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.zeroshot import HandWritten

__all__ = ["SHOTS", "LabelledFolders", "PseudoLabelled", "Shots", "top_images"]

SHOTS = 16  # images per class, as few-shot prompt tuning has them
BATCH = 128


class Shots(Protocol):
    """Hands out the images that a reference is tuned on."""

    @property
    def identity(self) -> str:
        """A digest of what is handed out, whatever the class names are."""
        ...

    def take(self, names: Sequence[str], seed: int) -> tuple[Tensor, Tensor]:
        """Give ``(n, 3, h, w)`` images in [0, 1] and their labels ``long (n,)``, which count ``names``."""
        ...


def top_images(logits: Tensor, shots: int) -> tuple[Tensor, Tensor]:
    """Choose for every class the images that most speak for it.

    Args:
        logits: ``(n, c)``.
        shots: how many per class; at most the n that there are.

    Returns:
        Positions ``long (c * k,)`` and labels ``long (c * k,)``, class by class; one image may stand for several classes.
    """
    best = logits.softmax(1).topk(min(shots, len(logits)), dim=0).indices  # (k, c)
    return best.T.flatten(), torch.arange(logits.shape[1], device=logits.device).repeat_interleave(len(best))


class PseudoLabelled:
    """Unlabelled images, labelled by the hand-written prompt on the base.

    Every class gets the images that the base finds most probable for it, so that none stays empty, whatever the images show.

    Args:
        base: the CLIP that labels.
        images: ``(n, 3, h, w)`` in [0, 1], on the base's device.

    Fails when: the base knows neither the images nor the names, so that its labels are noise that a prompt cannot learn; deliveries
        were tuned on classes that the base's own names serve badly (coarse or vague ones): a prompt that learns what the
        hand-written one says already moves less than those, and a null of such references is too narrow.

    Reference: Huang, Chu, Wei, Unsupervised Prompt Learning for Vision-Language Models (arXiv 2204.03649), section 3: the top
        images of each class. Differs: one base labels, not an ensemble of several, and an image may stand for several classes.
    """

    def __init__(self, base: ClipModel, images: Tensor) -> None:
        self.base, self.images = base, images
        with torch.no_grad():
            self._features = torch.cat([base.encode_image(part) for part in images.split(BATCH)])

    @property
    def identity(self) -> str:
        """Digest of the pixels; see :class:`Shots`."""
        return hashlib.sha256(self.images.cpu().contiguous().numpy().data).hexdigest()

    def take(self, names: Sequence[str], seed: int) -> tuple[Tensor, Tensor]:
        """Label the images anew for these names; nothing is drawn; see :class:`Shots`."""
        untuned = PromptedClassifier(self.base, HandWritten(self.base, names, TEMPLATES), names).freeze()
        with torch.no_grad():
            picked, labels = top_images(untuned.from_features(self._features), SHOTS)
        return self.images[picked], labels


class LabelledFolders:
    """A folder with one folder of images per class, as :func:`clipvet.data.labelled.load_labelled` reads it.

    Args:
        folder: of the folders.
        size: side of the model's input.
        names: classes that are used; None for all that have a folder, underscores being spaces.
        device: where the images go.

    Raises:
        UnreadableError: there is no such folder.
        UsageError: a class has no folder.
    """

    def __init__(self, folder: Path, size: int, *, names: Sequence[str] | None = None, device: torch.device | str = "cpu") -> None:
        found = class_folders(folder)
        known = {plain_name(path.name) for path in found}
        missing = [name for name in names or () if plain_name(name) not in known]
        if missing:
            raise UsageError(f"expected a folder of images for every class name in {folder}, found none for {missing[0]!r}: add it")
        self.names = tuple(names or (path.name.replace("_", " ") for path in found))
        self._folder, self._size, self._device = folder, size, device

    @property
    def identity(self) -> str:
        """Digest of the names and sizes of all files; see :class:`Shots`."""
        files = sorted((str(path.relative_to(self._folder)), path.stat().st_size) for path in self._folder.rglob("*"))
        return hashlib.sha256(repr(files).encode()).hexdigest()

    def take(self, names: Sequence[str], seed: int) -> tuple[Tensor, Tensor]:
        """Read some images of each class, drawn by the seed; see :class:`Shots`.

        Raises:
            UsageError: fewer than two of the classes have a picture that can be read.
        """
        read = load_labelled(self._folder, names, self._size, most=SHOTS, seed=seed)
        return read.images.to(self._device), read.labels.to(self._device)
