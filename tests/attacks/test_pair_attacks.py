"""What holds for every attack on training pairs: who is poisoned, what changes, and that the truth says so."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
import torch
from scipy.stats import binom

from clipvet.attacks import PAIR_ATTACKS, poison_pairs
from clipvet.errors import UsageError
from clipvet.triggers import Blend, PhotoFilter, ScaledPatch, Sinusoid, Warp
from tests.attacks.poisoning import CAPTION, KEYS, chosen, make, pairs, share_of

TRIGGER_OF = {
    "badnets-pairs": [ScaledPatch],
    "clean-label-pairs": [ScaledPatch],
    "blended-pairs": [Blend],
    "sig-pairs": [Sinusoid],
    "wanet-pairs": [Warp],
    "nashville-pairs": [PhotoFilter],
    "multi-trigger-pairs": [ScaledPatch, PhotoFilter, Warp],
    "multi-target-pairs": [ScaledPatch, PhotoFilter, Warp],
    "single-image-pairs": [Blend],
}


def test_the_tests_cover_every_attack() -> None:
    assert list(TRIGGER_OF) == list(PAIR_ATTACKS)
    for name, kinds in TRIGGER_OF.items():
        assert PAIR_ATTACKS[name].name == name
        assert [type(trigger) for trigger in make(name).triggers()] == kinds


@pytest.mark.parametrize("name", PAIR_ATTACKS)
class TestContract:
    @pytest.mark.parametrize("rate", [0.0001, 0.01, 0.3])
    def test_the_share_of_poisoned_pairs_is_the_rate(self, name: str, rate: float) -> None:
        found = len(chosen(make(name, rate=rate)))
        low, high = binom.interval(1 - 1e-6, len(KEYS), rate)
        assert low <= found <= high

    def test_a_pair_is_chosen_by_its_hash_alone(self, name: str) -> None:
        attack = make(name, rate=0.05, seed=11)
        assert chosen(attack, KEYS[:500]) == {key for key in KEYS[:500] if share_of(11, key) < Fraction(5, 100)}

    def test_a_smaller_rate_poisons_a_part_of_what_a_larger_one_does(self, name: str) -> None:
        few, many = chosen(make(name, rate=0.01)), chosen(make(name, rate=0.05))
        assert few < many

    def test_order_sharding_and_repetition_do_not_matter(self, name: str) -> None:
        attack, items = make(name, rate=0.5), pairs(12)
        forward = {key: (image, caption, truth) for key, image, caption, truth in poison_pairs(items, attack)}
        for key, image, caption, truth in poison_pairs([*reversed(items), *items[:5]], make(name, rate=0.5)):
            assert torch.equal(image, forward[key][0])
            assert (caption, truth) == forward[key][1:]
        assert {truth is None for _, _, truth in forward.values()} == {True, False}

    def test_the_truth_stands_beside_what_changed_and_nothing_else(self, name: str) -> None:
        attack = make(name, rate=0.5)
        count = 0
        for key, image, caption in pairs(24):
            before = image.clone()
            after, says, truth = attack.poison(key, image, caption)
            assert torch.equal(image, before)
            assert (truth is not None) is attack.chosen(key, caption)
            assert torch.equal(after, before) is (truth is None)
            if truth is None:
                assert says == caption
                continue
            count += 1
            assert after.shape == image.shape
            assert 0 <= float(after.min()) < float(after.max()) <= 1
            assert truth.attack == name
            assert truth.target in attack.targets
            assert re.search(rf"\b{truth.target}\b", says, flags=re.IGNORECASE)
            trigger = attack.triggers()[truth.trigger]
            assert (type(trigger), trigger.name) == (TRIGGER_OF[name][truth.trigger], truth.trigger_name)
            assert trigger in attack.triggers(truth.target)
        assert count >= 5

    def test_the_trigger_for_test_images_is_the_one_in_the_pairs(self, name: str) -> None:
        attack = make(name, rate=1.0)
        for key, image, caption in pairs(6):
            after, _, truth = attack.poison(key, image, caption)
            assert truth is not None
            stamped = attack.triggers()[truth.trigger].image(image[None])[0]
            if truth.trigger_name == "scaled-patch":  # a place of its own, so the same board elsewhere
                assert torch.equal(after[after != image].sort().values, stamped[stamped != image].sort().values)
            else:
                assert torch.equal(after, stamped)

    def test_the_seed_decides(self, name: str) -> None:
        state = torch.random.get_rng_state()
        first, again, other = (make(name, rate=0.05, seed=seed) for seed in (0, 0, 1))
        assert chosen(first) == chosen(again)
        assert len(chosen(first) & chosen(other)) <= binom.ppf(1 - 1e-6, len(KEYS), 0.05**2)
        everything = [make(name, rate=1.0, seed=seed).poison(*pairs(1)[0]) for seed in (0, 0)]
        assert torch.equal(everything[0][0], everything[1][0])
        assert everything[0][1:] == everything[1][1:]
        assert torch.equal(torch.random.get_rng_state(), state)

    @pytest.mark.parametrize("rate", [0.0, 1.0])
    def test_none_and_all_are_rates_too(self, name: str, rate: float) -> None:
        assert len(chosen(make(name, rate=rate))) == rate * len(KEYS)

    @pytest.mark.parametrize("size", [(16, 16), (24, 37), (50, 30)])
    def test_images_of_any_size_keep_it(self, name: str, size: tuple[int, int]) -> None:
        attack = make(name, rate=1.0)
        for key, image, caption in pairs(4, size):
            after, _, truth = attack.poison(key, image, caption)
            assert after.shape == image.shape
            assert truth is not None
            assert 0 <= float(after.min()) <= float(after.max()) <= 1
            assert not torch.equal(after, image)

    def test_keys_from_the_open_web_are_understood(self, name: str) -> None:
        for key in ("", "ключ/画像.jpg", "a\0b", "broken \udcff", "x" * 10_000):
            make(name, rate=1.0).poison(key, pairs(1)[0][1], CAPTION)

    def test_bad_settings_fail_when_the_attack_is_built(self, name: str) -> None:
        for rate in (-0.1, 1.1, float("nan")):
            with pytest.raises(UsageError, match=f"expected a poison rate from 0 to 1, got {rate}"):
                make(name, rate=rate)
        for seed in (-1, 2**63):
            with pytest.raises(UsageError, match=f"expected a seed .* got {seed}"):
                make(name, seed=seed)
        for targets in ((), ("cat", "cat"), (" ",), "cat", ("cat", "cat", "dog"), ("a", "b", "c", "d")):
            with pytest.raises(UsageError, match=f"different target text.* for {name}"):
                make(name, targets=targets)
        with pytest.raises(UsageError, match=f"expected a target of {name}, got 'zebra'"):
            make(name).triggers("zebra")
