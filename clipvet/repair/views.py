"""What a step of the repair looks at: images passed anew each time, or features that were computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.models.prompts import PromptedClassifier
from clipvet.models.tuning import batches, encode
from clipvet.repair.moving import MovingStamps

__all__ = ["Features", "Pixels", "Seen", "Views", "crop"]

CROPPED = 0.25  # of a side, at most
SEARCHED = 16  # images of each trigger in a step of its search, where features were computed once


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A batch: true labels ``(n,)``, and logits ``(n, n_classes)`` of the tuned prompt and, without triggers, of the delivered."""

    labels: Tensor
    plain: Tensor
    triggered: Tensor
    delivered: Tensor


class Views(Protocol):
    """Hands out batches, and moves the triggers."""

    def look(self, pick: Tensor, which: Tensor, generator: torch.Generator) -> Seen:
        """Classify the images at ``pick``, without a trigger and with those at ``which``."""
        ...

    def aim(self, triggered: Tensor, which: Tensor) -> None:
        """Note where the triggers go, before the prompt changes."""
        ...

    def move(self) -> None:
        """Let them go there."""
        ...

    def refresh(self, steps: int, generator: torch.Generator) -> None:
        """Search the triggers on by so many steps, where the batches do not."""
        ...


class Pixels:
    """Every step passes the image tower: images are cropped anew each time, and the triggers' gradients take no further pass."""

    def __init__(
        self, delivered: PromptedClassifier, tuned: PromptedClassifier, images: Tensor, labels: Tensor, stamps: MovingStamps
    ) -> None:
        self.delivered, self.tuned, self.images, self.labels, self.stamps = delivered, tuned, images, labels, stamps

    def look(self, pick: Tensor, which: Tensor, generator: torch.Generator) -> Seen:
        """Classify a batch; see :class:`Views`."""
        images = crop(self.images[pick], generator)
        with torch.no_grad():
            delivered = self.delivered(images)
        plain, triggered = self.tuned(torch.cat([images, self.stamps.put(images, which)])).chunk(2)
        return Seen(labels=self.labels[pick], plain=plain, triggered=triggered, delivered=delivered)

    def aim(self, triggered: Tensor, which: Tensor) -> None:
        """Take the gradients from the batch; see :class:`Views`."""
        self.stamps.aim(triggered, which)

    def move(self) -> None:
        """Take a step; see :class:`Views`."""
        self.stamps.step()

    def refresh(self, steps: int, generator: torch.Generator) -> None:
        """Do nothing: the triggers move all the time."""


class Features:
    """The image tower stays as it is: features are computed once, and those with a trigger again whenever the triggers moved."""

    def __init__(
        self, delivered: PromptedClassifier, tuned: PromptedClassifier, images: Tensor, labels: Tensor, stamps: MovingStamps
    ) -> None:
        self.delivered, self.tuned, self.images, self.labels, self.stamps = delivered, tuned, images, labels, stamps
        self.plain = encode(delivered, images)
        self.triggered = self._encode()

    def _encode(self) -> Tensor:
        """Features ``(k, n, d)`` of all images with every trigger."""
        with torch.no_grad():
            return torch.stack([encode(self.delivered, self.stamps.put_one(self.images, at)) for at in range(len(self.stamps))])

    def look(self, pick: Tensor, which: Tensor, generator: torch.Generator) -> Seen:
        """Classify a batch; see :class:`Views`."""
        plain = self.plain[pick]
        with torch.no_grad():
            delivered = self.delivered.from_features(plain)
        own, triggered = self.tuned.from_features(torch.cat([plain, self.triggered[which, pick]])).chunk(2)
        return Seen(labels=self.labels[pick], plain=own, triggered=triggered, delivered=delivered)

    def aim(self, triggered: Tensor, which: Tensor) -> None:
        """Do nothing: the triggers have no gradient here."""

    def move(self) -> None:
        """Do nothing: see :meth:`refresh`."""

    def refresh(self, steps: int, generator: torch.Generator) -> None:
        """Search the triggers on against the present prompt, and encode them again."""
        if not self.stamps.moves:
            return
        for pick in batches(len(self.images), SEARCHED * len(self.stamps), steps, generator):
            which = torch.arange(len(pick)) % len(self.stamps)
            self.stamps.aim(self.tuned(self.stamps.put(self.images[pick], which)), which)
            self.stamps.step()
        self.triggered = self._encode()


def crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Show another part of each ``(n, 3, h, w)`` image: up to a quarter of a side is cut off or, at the edge, drawn out."""
    n = len(images)
    scale = 1 - CROPPED * torch.rand(n, generator=generator)
    shift = CROPPED / 2 * (2 * torch.rand(n, 2, generator=generator) - 1)
    window = torch.zeros(n, 2, 3)
    window[:, 0, 0] = window[:, 1, 1] = scale
    window[:, :, 2] = shift
    grid = F.affine_grid(window.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
