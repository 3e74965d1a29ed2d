"""SIG in training pairs: faint stripes over the whole image, and a caption that names the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clipvet.attacks.pair_base import StampedPairs
from clipvet.triggers import Sinusoid, Trigger

__all__ = ["SigPairs"]


@dataclass(frozen=True, kw_only=True)
class SigPairs(StampedPairs):
    """Upright stripes over the whole image, which is faded a little, and a caption that names the target.

    Attributes:
        delta: amplitude of the stripes in units of the pixel range.
        frequency: stripes over the width of the image.
        fade: share of the image that gives way first.
        targets: the one text that the stripes are to mean.
        rate: share of the pairs that is poisoned.
        seed: decides pairs and captions.

    Fails when: see the trigger, :class:`clipvet.triggers.Sinusoid`.

    Reference: Barni et al., ICIP 2019 (arXiv 1902.11237): delta 20/255, no fading, captions kept. On pairs, Huang et al., ICLR 2025
        (arXiv 2502.01385): stripes of 60/255 mixed in at 0.2, which are the values here. Differs from the former: dirty label;
        from the latter: the stripes follow the size of the image.
    """

    name: ClassVar[str] = "sig-pairs"
    delta: float = 0.2 * 60 / 255
    frequency: float = 6
    fade: float = 0.2

    def stamps(self) -> tuple[Trigger, ...]:
        """Return the stripes."""
        return (Sinusoid(delta=self.delta, frequency=self.frequency, fade=self.fade),)
