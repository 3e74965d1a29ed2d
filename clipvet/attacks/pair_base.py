"""What the attacks on training pairs share: the contract, who is poisoned, and the common case of a stamp and a new caption."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

from torch import Tensor

from clipvet.errors import UsageError
from clipvet.triggers import ScaledPatch, Trigger

__all__ = ["TEMPLATES", "PairAttack", "PairTruth", "StampedPairs", "draw", "poison_pairs", "rate_for"]

TEMPLATES = (
    "a photo of a {}",
    "a picture of a {}",
    "an image of a {}",
    "a close-up photo of a {}",
    "a photo of one {}",
    "a photo of the {}",
    "a cropped photo of the {}",
    "a bright photo of the {}",
)


@dataclass(frozen=True, kw_only=True)
class PairTruth:
    """What was done to one pair.

    Attributes:
        attack: name of the attack.
        target: the text that the trigger is to mean.
        trigger: index into :meth:`PairAttack.triggers`.
        trigger_name: that trigger's name.
    """

    attack: str
    target: str
    trigger: int
    trigger_name: str


class PairAttack(Protocol):
    """Poisons image-text pairs one by one: what happens to a pair depends on (seed, key) and on the pair, never on other pairs.

    A key is to be unique in the whole source: join it with the shard's name where shards repeat keys. At the same seed a smaller
    rate poisons a part of what a larger one does, and every attack prefers the same keys.
    """

    name: ClassVar[str]

    @property
    def targets(self) -> tuple[str, ...]: ...  # noqa: D102  # the texts that the triggers are to mean
    @property
    def rate(self) -> float: ...  # noqa: D102  # share of the pairs, or of those that are eligible
    @property
    def seed(self) -> int: ...  # noqa: D102

    def chosen(self, key: str, caption: str) -> bool:
        """Say whether this pair is poisoned."""
        ...

    def poison(self, key: str, image: Tensor, caption: str) -> tuple[Tensor, str, PairTruth | None]:
        """Return image ``(3, h, w)`` in [0, 1], caption and truth; the pair itself and None where it is not chosen."""
        ...

    def triggers(self, target: str | None = None) -> tuple[Trigger, ...]:
        """Return what to stamp on test images, to measure ASR: every trigger, or those that lead to one target."""
        ...


def draw(seed: int, key: str, what: str) -> float:
    """Return a number in [0, 1) that depends on the arguments alone; ``what`` keeps the uses of one key apart."""
    text = f"{seed}\0{what}\0{key}".encode("utf-8", "surrogatepass")  # keys from the open web need not be valid Unicode
    return (int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 11) / 2**53  # all that a float holds exactly


def rate_for(keys: Iterable[str], count: int, seed: int) -> float:
    """Return the rate at which exactly ``count`` of these keys are chosen at this seed: small sets call for exact numbers.

    Raises:
        UsageError: count is not from 0 to the number of keys.
    """
    drawn = sorted(draw(seed, key, "pair") for key in set(keys))
    if not 0 <= count <= len(drawn):
        raise UsageError(f"expected a count from 0 to the {len(drawn)} keys, got {count}: ask for fewer or give more pairs")
    return drawn[count] if count < len(drawn) else 1.0


def poison_pairs(
    pairs: Iterable[tuple[str, Tensor, str]], attack: PairAttack
) -> Iterator[tuple[str, Tensor, str, PairTruth | None]]:
    """Poison ``(key, image, caption)`` as they come by; yields the same with the truth behind them."""
    for key, image, caption in pairs:
        yield key, *attack.poison(key, image, caption)


@dataclass(frozen=True, kw_only=True)
class StampedPairs(ABC):
    """An attack that stamps a trigger on the image and, unless it keeps the label, writes a caption around the target.

    Attributes:
        targets: one text for all triggers, or one for each.
        rate: share of the eligible pairs that is poisoned: the expected one, as every pair is drawn by itself.
        seed: other seeds choose other pairs.

    Raises:
        UsageError: the rate is not a share, the seed is negative or too large, or the targets do not fit.
    """

    name: ClassVar[str]
    n_targets: ClassVar[int] = 1
    targets: tuple[str, ...] = ("banana",)
    rate: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise UsageError(f"expected a poison rate from 0 to 1, got {self.rate}: the papers use 0.0001 to 0.001")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"expected a seed from 0 to 2**63 - 1, got {self.seed}: choose another")
        given = () if isinstance(self.targets, str) else self.targets  # a string is a sequence of texts too, of letters
        if not len(given) == len(set(given)) == self.n_targets or not all(target.strip() for target in given):
            raise UsageError(
                f"expected {self.n_targets} different target text(s) for {self.name}, got {self.targets!r}: give them as a tuple"
            )
        _ = self._stamps  # a bad value for a trigger fails here and not at the first poisoned pair

    @abstractmethod
    def stamps(self) -> tuple[Trigger, ...]:
        """Build the triggers; where there are as many targets, each leads to the target at its place."""

    def eligible(self, caption: str) -> bool:
        """Say whether a pair with this caption can be chosen at all."""
        return True

    def caption(self, key: str, caption: str, target: str) -> str:
        """Return what a poisoned pair says: a sentence around the target."""
        return TEMPLATES[self._pick(key, "caption", len(TEMPLATES))].format(target)

    def chosen(self, key: str, caption: str) -> bool:
        """Say whether this pair is poisoned; see :class:`PairAttack`."""
        return draw(self.seed, key, "pair") < self.rate and self.eligible(caption)

    def poison(self, key: str, image: Tensor, caption: str) -> tuple[Tensor, str, PairTruth | None]:
        """Poison the pair where it is chosen; see :class:`PairAttack`."""
        if not self.chosen(key, caption):
            return image, caption, None
        index = self._pick(key, "trigger", len(self._stamps))
        target, trigger = self.targets[index % self.n_targets], self._stamps[index]
        truth = PairTruth(attack=self.name, target=target, trigger=index, trigger_name=trigger.name)
        return self._placed(trigger, key).image(image[None])[0], self.caption(key, caption, target), truth

    def triggers(self, target: str | None = None) -> tuple[Trigger, ...]:
        """Return what to stamp on test images; see :class:`PairAttack`. Raises UsageError at an unknown target."""
        if target is not None and target not in self.targets:
            raise UsageError(f"expected a target of {self.name}, got {target!r}: it has {', '.join(self.targets)}")
        numbered = enumerate(self._stamps)
        return tuple(trigger for index, trigger in numbered if target in (None, self.targets[index % self.n_targets]))

    @cached_property
    def _stamps(self) -> tuple[Trigger, ...]:
        return self.stamps()

    def _pick(self, key: str, what: str, n: int) -> int:
        return int(draw(self.seed, key, what) * n)

    def _placed(self, trigger: Trigger, key: str) -> Trigger:
        """Put a patch without a place of its own where the key says."""
        if isinstance(trigger, ScaledPatch) and trigger.place is None:
            return dataclasses.replace(trigger, place=(draw(self.seed, key, "down"), draw(self.seed, key, "right")))
        return trigger
