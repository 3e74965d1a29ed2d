"""What a repair is given and gives back, and reconstructed triggers as they are put on images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.models.prompts import PromptedClassifier
from clipvet.types import Evidence

__all__ = ["LARGEST_ASR", "Progress", "Repair", "Stamps"]

LARGEST_ASR = 0.05  # of every reconstructed trigger of the first target, after a repair that succeeded

Progress = Callable[[str, int, int], None]  # stage, done, total


class Repair(Protocol):
    """Makes a delivered prompt usable again; CA, ASR and TA are measured by the caller, never here."""

    name: ClassVar[str]

    def run(
        self,
        delivered: PromptedClassifier,
        images: Tensor,
        labels: Tensor,
        evidence: Sequence[Evidence],
        *,
        seed: int,
        progress: Progress,
    ) -> PromptedClassifier:
        """Return a new prompt on the same model, frozen; the delivered one stays as it is.

        Args:
            delivered: the delivery, on the towers that it is to be used with.
            images: ``(n, 3, h, w)`` in [0, 1].
            labels: ``long (n,)``, their true labels.
            evidence: rows with reconstructed triggers.
            seed: of everything random.
            progress: called with (stage, done, total).
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Stamps:
    """``k`` reconstructed triggers in one form: ``clip((1 - mask) x + mask pattern + delta)``.

    Attributes:
        delta: ``(k, 3, h, w)``, zero for a patch or a blend.
        mask: ``(k, 1, h, w)`` in [0, 1], zero for an additive trigger.
        pattern: ``(k, 3, h, w)`` in [0, 1].
    """

    delta: Tensor
    mask: Tensor
    pattern: Tensor

    @classmethod
    def of(cls, evidence: Sequence[Evidence], size: int) -> Stamps:
        """Take the triggers of evidence rows for images of ``size`` pixels.

        Raises:
            UsageError: there is no row, or a row holds no trigger, or one of another size.
        """
        if not evidence:
            raise UsageError("expected at least one reconstructed trigger, got none: inspect the delivery first")
        rows = [_three(row, size) for row in evidence]
        delta, mask, pattern = (torch.stack(parts) for parts in zip(*rows, strict=True))
        return cls(delta=delta, mask=mask, pattern=pattern)

    def __len__(self) -> int:
        return len(self.delta)

    def to(self, device: torch.device) -> Stamps:
        """Return them on a device."""
        return Stamps(delta=self.delta.to(device), mask=self.mask.to(device), pattern=self.pattern.to(device))

    def put(self, images: Tensor, which: Tensor) -> Tensor:
        """Put trigger ``which[i]`` on image i: ``(n, 3, h, w)`` and ``long (n,)`` to ``(n, 3, h, w)`` in [0, 1]."""
        mask = self.mask[which]
        return ((1 - mask) * images + mask * self.pattern[which] + self.delta[which]).clamp(0, 1)

    def put_one(self, images: Tensor, position: int) -> Tensor:
        """Put one trigger on all images."""
        return self.put(images, torch.full((len(images),), position, device=images.device))


def _three(row: Evidence, size: int) -> tuple[Tensor, Tensor, Tensor]:
    held = row.trigger or {}
    delta, mask, pattern = (held.get(name) for name in ("delta", "mask", "pattern"))
    one = next((tensor for tensor in (delta, pattern) if tensor is not None), None)
    if one is None or (delta is None and mask is None) or tuple(one.shape) != (3, size, size):
        found = "nothing" if one is None else f"the shape {tuple(one.shape)}"
        raise UsageError(
            f"expected a reconstructed trigger of shape (3, {size}, {size}) for {row.target!r}, got {found}: inspect this delivery"
        )
    blank = torch.zeros(3, size, size)
    return (
        blank if delta is None else delta.detach().float().cpu(),
        blank[:1] if mask is None else mask.detach().float().cpu(),
        blank if pattern is None else pattern.detach().float().cpu(),
    )
