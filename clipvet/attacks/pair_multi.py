"""Three triggers in one set of training pairs, to one target or each to its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clipvet.attacks.pair_badnets import BadNetsPairs
from clipvet.attacks.pair_base import StampedPairs
from clipvet.attacks.pair_nashville import NashvillePairs
from clipvet.attacks.pair_wanet import WaNetPairs
from clipvet.triggers import Trigger

__all__ = ["MultiTargetPairs", "MultiTriggerPairs"]


def three_triggers(seed: int, share: float, warp: float, cells: int) -> tuple[Trigger, ...]:
    """Return patch, photo filter and warp as they are alone."""
    warped = WaNetPairs(seed=seed, strength=warp, cells=cells)
    attacks = (BadNetsPairs(seed=seed, share=share), NashvillePairs(seed=seed), warped)
    return tuple(trigger for attack in attacks for trigger in attack.stamps())


@dataclass(frozen=True, kw_only=True)
class MultiTriggerPairs(StampedPairs):
    """A patch, a photo filter or a warp, drawn for every poisoned pair, and a caption that names the one target.

    Attributes:
        targets: the one text that every trigger is to mean.
        rate: share of the pairs that is poisoned, all triggers together.
        seed: decides pairs, captions, which trigger, and the triggers.
        share: side of the patch over that of the image.
        warp: strength of the warp, as :class:`WaNetPairs` has it.
        cells: control points of the warp along a side.

    Fails when: a third of the rate is too little for one of the triggers.

    Reference: Li et al., Multi-trigger backdoor attacks, 2024 (arXiv 2401.15295); on pairs, Huang et al., ICLR 2025
        (arXiv 2502.01385). Differs: as its three triggers do from theirs.
    """

    name: ClassVar[str] = "multi-trigger-pairs"
    share: float = BadNetsPairs.share
    warp: float = WaNetPairs.strength
    cells: int = WaNetPairs.cells

    def stamps(self) -> tuple[Trigger, ...]:
        """Return patch, filter and warp."""
        return three_triggers(self.seed, self.share, self.warp, self.cells)


@dataclass(frozen=True, kw_only=True)
class MultiTargetPairs(StampedPairs):
    """A patch, a photo filter or a warp, drawn for every poisoned pair, and a caption that names that trigger's own target.

    Attributes:
        targets: the texts that patch, filter and warp are to mean, in this order.
        rate: share of the pairs that is poisoned, all triggers together.
        seed: decides pairs, captions, which trigger, and the triggers.
        share: side of the patch over that of the image.
        warp: strength of the warp, as :class:`WaNetPairs` has it.
        cells: control points of the warp along a side.

    Fails when: a third of the rate is too little for one of the triggers.

    Reference: Li et al., Multi-trigger backdoor attacks, 2024 (arXiv 2401.15295); on pairs, Huang et al., ICLR 2025
        (arXiv 2502.01385). Differs: as its three triggers do from theirs.
    """

    name: ClassVar[str] = "multi-target-pairs"
    n_targets: ClassVar[int] = 3
    targets: tuple[str, ...] = ("banana", "cheeseburger", "volcano")
    share: float = BadNetsPairs.share
    warp: float = WaNetPairs.strength
    cells: int = WaNetPairs.cells

    def stamps(self) -> tuple[Trigger, ...]:
        """Return patch, filter and warp."""
        return three_triggers(self.seed, self.share, self.warp, self.cells)
