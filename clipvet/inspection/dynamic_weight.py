"""The weight of a trigger's size in its loss, raised while the trigger works and lowered while it does not."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["DOWN_POWER", "DynamicWeight"]

DOWN_POWER = 1.5  # the weight falls by the multiplier to this power: faster than it rises


class DynamicWeight:
    """One weight per class, that follows how often in a row its trigger has reached enough images.

    After ``patience`` looks in a row at which it did, the weight is multiplied by ``multiplier``, or set to ``first`` where it was
    zero; after as many at which it did not, it is divided by ``multiplier ** 1.5``. Each change begins the count anew.

    Args:
        classes: how many.
        start: weight to begin with; zero lets a trigger work before it has to be small.
        first: weight that follows zero.
        patience: looks in a row.
        multiplier: above 1.
        device: of the weights.

    Reference: Neural Cleanse (Wang et al., IEEE S&P 2019, github.com/bolunwang/backdoor) and Pixel-Backdoor (Tao et al., CVPR
        2022, github.com/Gwinhen/PixelBackdoor), whose codes share the rule. Differs: after a zero, Neural Cleanse counts from one.
    """

    def __init__(
        self, classes: int, *, start: float, first: float, patience: int, multiplier: float, device: torch.device | str = "cpu"
    ) -> None:
        self.first, self.patience, self.multiplier = first, patience, multiplier
        self.value = torch.full((classes,), start, device=device)
        self._worked = torch.zeros(classes, dtype=torch.long, device=device)
        self._failed = torch.zeros_like(self._worked)

    def look(self, reached: Tensor) -> None:
        """Take note of which triggers reached enough images: ``bool (classes,)``."""
        self._worked = (self._worked + 1).where(reached, 0)
        self._failed = (self._failed + 1).where(~reached, 0)
        up, down = self._worked >= self.patience, self._failed >= self.patience
        raised = (self.value * self.multiplier).where(self.value > 0, self.first)
        self.value = raised.where(up, (self.value / self.multiplier**DOWN_POWER).where(down, self.value))
        self._worked, self._failed = self._worked.where(~up, 0), self._failed.where(~down, 0)
