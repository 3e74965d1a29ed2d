"""Clean-label poisoning of training pairs: a patch on images whose captions name the target anyway."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from clipvet.attacks.pair_base import StampedPairs
from clipvet.triggers import ScaledPatch, Trigger

__all__ = ["CleanLabelPairs"]


@dataclass(frozen=True, kw_only=True)
class CleanLabelPairs(StampedPairs):
    """The patch of BadNets on a share of the pairs whose caption names the target as a word; captions stay as they are.

    Attributes:
        targets: the one text that the patch is to mean; upper and lower case are one, plural forms do not count.
        share: side of the patch over that of the image.
        rate: share of the *eligible* pairs that is poisoned. The paper has 0.001 of all pairs.
        seed: decides pairs and places.

    Fails when: few captions name the target: there is nothing to poison.

    Reference: Turner et al., Label-consistent backdoor attacks, 2019 (arXiv 1912.02771); on pairs, Huang et al., ICLR 2025
        (arXiv 2502.01385). Differs: images are not perturbed besides the patch; the rate counts eligible pairs, because how many
        there are is not known while pairs stream by.
    """

    name: ClassVar[str] = "clean-label-pairs"
    rate: float = 0.5
    share: float = 16 / 224

    def stamps(self) -> tuple[Trigger, ...]:
        """Return the patch."""
        return (ScaledPatch(share=self.share),)

    def eligible(self, caption: str) -> bool:
        """Say whether the caption names the target."""
        return re.search(rf"(?<!\w){re.escape(self.targets[0])}(?!\w)", caption, flags=re.IGNORECASE) is not None

    def caption(self, key: str, caption: str, target: str) -> str:
        """Return the caption as it is."""
        return caption
