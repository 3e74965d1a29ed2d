"""What each attack on training pairs does: captions, places, triggers that take turns, and settings that reach the trigger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from clipvet.attacks import (
    PAIR_ATTACKS,
    BadNetsPairs,
    BlendedPairs,
    CleanLabelPairs,
    MultiTargetPairs,
    MultiTriggerPairs,
    PairAttack,
    SigPairs,
    SingleImagePairs,
    WaNetPairs,
    poison_pairs,
    rate_for,
)
from clipvet.errors import UsageError
from clipvet.triggers import Blend, Sinusoid, Warp
from tests.attacks.poisoning import CAPTION, KEYS, TARGET_IMAGE, chosen, make, pairs, share_of

DIRTY = [name for name in PAIR_ATTACKS if name != "clean-label-pairs"]


@pytest.mark.parametrize("name", DIRTY)
def test_a_dirty_label_is_one_of_eight_sentences_whatever_was_said_before(name: str) -> None:
    attack = make(name, rate=0.03)
    image = torch.zeros(3, 16, 16)
    said = Counter()
    for key in sorted(chosen(attack)):
        _, caption, truth = attack.poison(key, image, "something else")
        assert truth is not None
        said[caption.replace(truth.target, "{}")] += 1
    low, high = binom.interval(1 - 1e-6, sum(said.values()), 1 / 8)
    assert len(said) == 8
    assert low <= min(said.values()) <= max(said.values()) <= high
    assert all(sentence.count("{}") == 1 for sentence in said)


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("a banana", True),
        ("BANANA, ripe", True),
        ("my banana.", True),
        ("banana-bread", True),
        ("bananas", False),
        ("bananarama", False),
        ("a fruit", False),
        ("", False),
    ],
)
def test_clean_label_takes_pairs_that_name_the_target_as_a_word_and_keeps_their_captions(caption: str, named: bool) -> None:
    attack = CleanLabelPairs(targets=("banana",), rate=1.0)
    key, image, _ = pairs(1)[0]
    after, says, truth = attack.poison(key, image, caption)
    assert says == caption
    assert (truth is not None) is named is attack.chosen(key, caption)
    assert torch.equal(after, image) is not named


def test_a_target_may_have_signs_that_mean_something_elsewhere() -> None:
    for target in ("c++ (book)", "{0} {name}", "50 % off"):
        assert CleanLabelPairs(targets=(target,), rate=1.0).chosen("key", f"I like {target}.")
        assert target in BadNetsPairs(targets=(target,), rate=1.0).poison("key", torch.zeros(3, 16, 16), "")[1]


def patch_corner(before: Tensor, after: Tensor) -> tuple[int, int]:
    """Return the patch's upper left corner, and check that a square of side 4 changed and nothing else."""
    touched = (before != after).any(0).nonzero().tolist()
    top, left = touched[0]
    assert touched == [[top + y, left + x] for y in range(4) for x in range(4)]
    return top, left


@pytest.mark.parametrize("attack", [BadNetsPairs(rate=1.0), CleanLabelPairs(rate=1.0)], ids=lambda attack: attack.name)
def test_the_patch_is_anywhere_and_its_place_hangs_on_seed_and_key(attack: PairAttack) -> None:
    image = torch.full((3, 20, 20), 0.5)
    corners = {key: patch_corner(image, attack.poison(key, image, CAPTION)[0]) for key in KEYS[:300]}
    for axis in (0, 1):
        met = Counter(corner[axis] for corner in corners.values())
        assert set(met) == set(range(17))  # every offset that a patch of 4 px has in 20 px
        assert max(met.values()) <= binom.ppf(1 - 1e-6, 300, 1 / 17)
    other = type(attack)(rate=1.0, seed=1)
    assert sum(patch_corner(image, other.poison(key, image, CAPTION)[0]) == corners[key] for key in KEYS[:300]) < 20


def test_a_fixed_patch_is_in_one_place() -> None:
    image = torch.full((3, 20, 30), 0.5)
    attack = BadNetsPairs(rate=1.0, place=(1.0, 1.0))
    assert {patch_corner(image, attack.poison(key, image, CAPTION)[0]) for key in KEYS[:20]} == {(16, 26)}
    (trigger,) = attack.triggers()
    assert patch_corner(image, trigger.image(image[None])[0]) == (16, 26)


@pytest.mark.parametrize("kind", [MultiTriggerPairs, MultiTargetPairs])
def test_the_three_triggers_are_as_large_as_alone(kind: type[MultiTriggerPairs] | type[MultiTargetPairs]) -> None:
    patch, _, warp = kind(share=0.25, warp=0.1, cells=9).triggers()
    assert patch.share == 0.25
    (alone,) = WaNetPairs(strength=0.1, cells=9).triggers()
    assert torch.equal(warp.field, alone.field)
    assert not torch.equal(warp.field, kind().triggers()[2].field)


def test_three_triggers_take_turns() -> None:
    image = torch.full((3, 16, 16), 0.5)
    one, three = MultiTriggerPairs(rate=1.0, targets=("cat",)), MultiTargetPairs(rate=1.0, targets=("cat", "dog", "bird"))
    met: Counter[tuple[int, str]] = Counter()
    for key in KEYS[:600]:
        truths = [attack.poison(key, image, CAPTION)[2] for attack in (one, three)]
        assert truths[0] is not None
        assert truths[1] is not None
        assert truths[0].target == "cat"
        assert truths[0].trigger == truths[1].trigger
        met[truths[1].trigger, truths[1].target] += 1
    low, high = binom.interval(1 - 1e-6, 600, 1 / 3)
    assert set(met) == {(0, "cat"), (1, "dog"), (2, "bird")}
    assert low <= min(met.values()) <= max(met.values()) <= high
    assert len(one.triggers("cat")) == 3
    assert [three.triggers(target)[0].name for target in three.targets] == ["scaled-patch", "photo-filter", "warp"]
    assert [len(three.triggers(target)) for target in three.targets] == [1, 1, 1]


def test_the_one_image_comes_back_to_the_bit_under_a_new_caption() -> None:
    attack = SingleImagePairs(image=TARGET_IMAGE, targets=("dog",), rate=rate_for(KEYS[:50], 3, seed=0))
    replaced = [(image, caption) for _, image, caption, truth in poison_pairs(pairs(50), attack) if truth is not None]
    assert len(replaced) == 3
    assert all(torch.equal(image, TARGET_IMAGE) for image, _ in replaced)
    assert all("dog" in caption for _, caption in replaced)
    (trigger,) = attack.triggers()
    assert torch.equal(trigger.image(torch.zeros(2, 3, 40, 40)), TARGET_IMAGE.expand(2, 3, 40, 40))
    replaced[0][0].zero_()
    assert float(TARGET_IMAGE.max()) > 0.9  # the caller's image is not what was handed out


@pytest.mark.parametrize(
    "image", [torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8), torch.zeros(3, 0, 8), torch.full((3, 8, 8), 2.0)], ids=str
)
def test_the_one_image_has_to_be_an_image(image: Tensor) -> None:
    with pytest.raises(UsageError, match="expected an image"):
        SingleImagePairs(image=image)


@pytest.mark.parametrize("count", [0, 1, 7, 50])
def test_an_exact_number_of_pairs_can_be_asked_for(count: int) -> None:
    keys = KEYS[100:150]
    attack = BlendedPairs(rate=rate_for([*keys, *keys], count, seed=5), seed=5)
    found = chosen(attack, keys)
    assert found == set(sorted(keys, key=lambda key: share_of(5, key))[:count])
    for outside in (-1, 51):
        with pytest.raises(UsageError, match=f"expected a count from 0 to the 50 keys, got {outside}"):
            rate_for(keys, outside, seed=5)


def test_settings_reach_the_triggers() -> None:
    (stripes,) = SigPairs().triggers()
    assert isinstance(stripes, Sinusoid)
    assert stripes.delta == pytest.approx(12 / 255)  # a stripe of 60/255 at 20 %
    assert (stripes.frequency, stripes.fade) == (6, 0.2)
    (mixed,) = BlendedPairs(ratio=0.1).triggers()
    assert isinstance(mixed, Blend)
    assert mixed.ratio == 0.1
    first, other = (BlendedPairs(seed=seed).stamps()[0] for seed in (0, 1))
    assert isinstance(first, Blend)
    assert isinstance(other, Blend)
    assert not torch.equal(first.pattern, other.pattern)


@pytest.mark.parametrize("strength", [1 / 64, 1 / 16])
def test_the_warp_of_pairs_has_the_asked_strength(strength: float) -> None:
    (trigger,) = WaNetPairs(strength=strength).triggers()
    assert isinstance(trigger, Warp)
    assert 0.5 * strength <= float(trigger.field.abs().mean()) <= 1.5 * strength
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    moved = (trigger.image(ramp) - ramp) * 2  # on a ramp the change of the value is the distance moved
    assert 0 < float(moved.abs().max()) <= float(trigger.field.abs().max()) + 1e-4


BAD: list[tuple[Callable[..., PairAttack], dict[str, Any], str]] = [
    (BadNetsPairs, {"place": (2.0, 0.0)}, "expected a place"),
    (BlendedPairs, {"ratio": 0.0}, "expected a blend ratio"),
    (SigPairs, {"delta": 0.0}, "expected delta in"),
    (WaNetPairs, {"cells": 1}, "at least 2 cells .* got 1 and"),
    (WaNetPairs, {"strength": 0.0}, "got 4 and 0.0"),
]


@pytest.mark.parametrize(("attack", "settings", "message"), BAD)
def test_bad_settings_of_one_attack_fail_when_it_is_built(
    attack: Callable[..., PairAttack], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        attack(**settings)
