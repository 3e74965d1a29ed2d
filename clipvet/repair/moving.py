"""Triggers that move on within their bounds while the prompt that they were found in changes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.repair.base import Stamps

__all__ = ["MovingStamps"]


class MovingStamps:
    """Triggers that are searched on towards their targets, by Adam, each within the bound that it was reconstructed with.

    Args:
        stamps: the triggers to begin with; they stay as they are.
        targets: ``long (k,)``, the class that each of them stands for.
        rate: Adam's step in units of the bound; 0 for triggers that do not move.
    """

    def __init__(self, stamps: Stamps, targets: Tensor, rate: float) -> None:
        self.moves, self.targets = rate > 0, targets
        self.bound = stamps.delta.abs().amax((1, 2, 3), keepdim=True)  # zero for a patch or a blend, whose delta stays zero
        self.delta = stamps.delta.clone().requires_grad_(self.moves)
        self.pattern = stamps.pattern.clone().requires_grad_(self.moves)
        self.mask = stamps.mask
        if self.moves:
            units = [(self.delta, float(self.bound.max())), (self.pattern, 0.5)]
            groups = [{"params": [values], "lr": rate * unit} for values, unit in units]
            self._optimizer = torch.optim.Adam(groups)

    def __len__(self) -> int:
        return len(self.delta)

    def put(self, images: Tensor, which: Tensor) -> Tensor:
        """Put trigger ``which[i]`` on image i; see :meth:`Stamps.put`."""
        return Stamps(delta=self.delta, mask=self.mask, pattern=self.pattern).put(images, which)

    def put_one(self, images: Tensor, position: int) -> Tensor:
        """Put one trigger on all images; see :meth:`Stamps.put_one`."""
        return Stamps(delta=self.delta, mask=self.mask, pattern=self.pattern).put_one(images, position)

    def aim(self, logits: Tensor, which: Tensor) -> None:
        """Note the way to the targets, for :meth:`step`; the graph of the logits stays.

        Args:
            logits: ``(n, n_classes)`` of images with a trigger.
            which: ``long (n,)``, the trigger on each of them.
        """
        if self.moves:
            loss = F.cross_entropy(logits, self.targets[which])
            self.delta.grad, self.pattern.grad = torch.autograd.grad(loss, (self.delta, self.pattern), retain_graph=True)

    def step(self) -> None:
        """Go the way that was noted, and come back into the bounds."""
        if not self.moves:
            return
        self._optimizer.step()
        with torch.no_grad():
            self.delta.clamp_(-self.bound, self.bound)
            self.pattern.clamp_(0, 1)
