"""Pairs, and the attacks on them by name, for the tests of what poisons pairs."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from clipvet.attacks import PAIR_ATTACKS, PairAttack

TARGET_IMAGE = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(3))
MORE: dict[str, dict[str, Any]] = {"single-image-pairs": {"image": TARGET_IMAGE}}
CAPTION = "A yellow Banana on a table"  # every attack may choose a pair that says so
KEYS = [f"{shard:05d}/{number:09d}" for shard in range(4) for number in range(5_000)]


def make(name: str, **settings: Any) -> PairAttack:
    return PAIR_ATTACKS[name](**MORE.get(name, {}), **settings)


def pairs(n: int, size: tuple[int, int] = (40, 40), caption: str = CAPTION) -> list[tuple[str, Tensor, str]]:
    drawn = torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    return [(KEYS[index], image, caption) for index, image in enumerate(drawn)]


def chosen(attack: PairAttack, keys: list[str] = KEYS) -> set[str]:
    return {key for key in keys if attack.chosen(key, CAPTION)}


def share_of(seed: int, key: str) -> Fraction:
    """Where a key falls in [0, 1), exactly: 53 bits of its hash."""
    digest = hashlib.blake2b(b"%d\x00pair\x00%s" % (seed, key.encode()), digest_size=8).hexdigest()
    return Fraction(int(digest, 16) // 2**11, 2**53)
