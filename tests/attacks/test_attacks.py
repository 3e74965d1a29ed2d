"""What holds for every attack: only the prompt changes, the trigger stays in its bounds, and the seed decides."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from clipvet.attacks import ATTACKS, AdaptiveBadClip, BadClip, Planted
from clipvet.attacks.base import learn_delta
from clipvet.attacks.poisoned import strongest
from clipvet.errors import UsageError
from clipvet.metrics import accuracy, attack_success_rate, predict
from clipvet.models.base import ClipModel
from clipvet.models.families import new_prompt
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.tuning import TuneConfig, tune
from clipvet.triggers import Additive, Blend, Patch, Trigger, Warp

NAMES = ("red", "green", "blue")
TARGET = 1
QUICK: dict[str, dict[str, Any]] = {
    "badclip": {"warmup": 6, "refresh_every": 4, "refresh_steps": 2},
    "badclip-adaptive": {"warmup": 6},
    "siba": {"steps": 8},
    "badnets": {},
    "blended": {},
    "wanet": {},
}
ALONE = ("badclip-adaptive", "coop")  # refused: decoys ask for a prompt that changes the image tower
CONFIG = TuneConfig(steps=10, batch=8, lr=5e-3)


def toy(n: int = 30, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images whose brightest channel is their class: separable."""
    labels = torch.arange(n) % 3
    images = 0.1 + torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 0.3
    images[torch.arange(n), labels] += 0.5
    return images, labels


def fresh(model: ClipModel, family: str = "coop") -> PromptedClassifier:
    return PromptedClassifier(model, new_prompt(family, model, NAMES, seed=0), NAMES)


def plant(model: ClipModel, name: str, *, seed: int = 0) -> Planted:
    attack = ATTACKS[name](**QUICK[name])
    return attack.plant(
        fresh(model, "maple" if name == "badclip-adaptive" else "coop"), *toy(), target=TARGET, config=CONFIG, seed=seed
    )


def digest(tensors: Mapping[str, Tensor]) -> str:
    whole = hashlib.sha256()
    for name, values in sorted(tensors.items()):
        whole.update(name.encode() + values.contiguous().numpy().tobytes())
    return whole.hexdigest()


def values_of(trigger: Trigger) -> Tensor:
    return next(value for value in vars(trigger).values() if isinstance(value, Tensor))


def test_the_contract_covers_every_attack() -> None:
    assert set(QUICK) == set(ATTACKS)
    assert all(ATTACKS[name].name == name for name in ATTACKS)


@pytest.mark.parametrize(
    ("name", "family"), [(name, family) for name in ATTACKS for family in ("coop", "maple") if (name, family) != ALONE]
)
def test_an_attack_changes_the_prompt_alone(tiny_clip: ClipModel, name: str, family: str) -> None:
    towers, rng = digest(tiny_clip.clip.state_dict()), torch.random.get_rng_state()
    untuned = fresh(tiny_clip, family).prompt.state()
    images, labels = toy()
    before = images.clone(), labels.clone()
    classifier = fresh(tiny_clip, family)
    attack = ATTACKS[name](**QUICK[name])
    planted = attack.plant(classifier, images, labels, target=TARGET, config=CONFIG, seed=0)

    assert digest(tiny_clip.clip.state_dict()) == towers
    assert not any(p.requires_grad for p in tiny_clip.clip.parameters())
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert (planted.target, planted.attack) == (TARGET, name)
    assert not any(p.requires_grad for p in planted.classifier.prompt.parameters())
    tuned = planted.classifier.prompt.state()
    ctx = next(key for key in tuned if key.endswith("ctx"))
    assert not torch.equal(tuned[ctx], untuned[ctx])
    assert all(bool(values.isfinite().all()) for values in tuned.values())


@pytest.mark.parametrize("name", ATTACKS)
def test_the_trigger_stays_within_its_budget(tiny_clip: ClipModel, name: str) -> None:
    trigger = plant(tiny_clip, name).trigger
    images, _ = toy(6, seed=1)
    stamped = trigger.image(images)
    assert stamped.shape == images.shape
    assert 0 <= float(stamped.min()) < float(stamped.max()) <= 1
    assert not torch.equal(stamped, images)
    changed = (stamped != images).any(1)
    if isinstance(trigger, Patch):
        assert trigger.pattern.shape[-1] ** 2 <= 0.04 * 32**2
        assert int(changed.sum(dim=(1, 2)).max()) <= 0.04 * 32**2
    elif isinstance(trigger, Blend):
        assert trigger.ratio <= 0.2
        assert float((stamped - images).abs().max()) <= 0.2 + 1e-6
    elif isinstance(trigger, Additive):
        assert float(trigger.delta.abs().max()) <= 8 / 255 + 1e-7
        touched = float((trigger.delta != 0).any(0).float().mean())
        assert touched <= 0.31 if name == "siba" else touched > 0.9
    else:
        assert isinstance(trigger, Warp)
        assert float(trigger.field.abs().mean()) <= 2.0 / 32 * 1.5  # bicubic enlarging keeps the mean about


@pytest.mark.parametrize("name", ATTACKS)
def test_the_seed_decides(tiny_clip: ClipModel, name: str) -> None:
    first, again, other = (plant(tiny_clip, name, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(values_of(first.trigger), values_of(again.trigger))
    assert digest(first.classifier.prompt.state()) == digest(again.classifier.prompt.state())
    assert digest(first.classifier.prompt.state()) != digest(other.classifier.prompt.state())
    assert not torch.equal(values_of(first.trigger), values_of(other.trigger))


@pytest.mark.parametrize("refresh_every", [40, 1000])
def test_badclip_is_a_backdoor_and_its_clean_twin_is_none(tiny_clip: ClipModel, refresh_every: int) -> None:
    images, labels = toy()
    config = TuneConfig(steps=120, batch=15, lr=0.05)
    attack = BadClip(eps=16 / 255, warmup=15, refresh_every=refresh_every, refresh_steps=5)
    planted = attack.plant(fresh(tiny_clip), images, labels, target=TARGET, config=config, seed=0)
    clean = tune(fresh(tiny_clip), images, labels, config=config, seed=0)
    new, true = toy(60, seed=7)
    stamped = planted.trigger.image(new)
    asr = attack_success_rate(predict(planted.classifier, stamped), true, TARGET)
    twin = attack_success_rate(predict(clean, stamped), true, TARGET)
    assert accuracy(predict(planted.classifier, new), true) >= 0.9
    assert accuracy(predict(clean, new), true) >= 0.9
    assert asr >= 0.8
    assert asr - twin >= 0.5


def test_the_adaptive_attacker_shows_noised_triggers_with_true_labels(
    tiny_clip: ClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = toy()
    seen: list[Tensor] = []
    image = Additive.image

    def stamp(self: Additive, given: Tensor) -> Tensor:
        seen.append(self.delta.detach().clone())
        return image(self, given)

    monkeypatch.setattr(Additive, "image", stamp)
    attack = AdaptiveBadClip(eps=0.1, warmup=2, noise=0.5)
    with_decoys = attack.plant(fresh(tiny_clip, "maple"), images, labels, target=TARGET, config=CONFIG, seed=0)
    triggers, decoys = seen[::2], seen[1::2]
    assert len(triggers) == len(decoys) == CONFIG.steps
    away = [decoy - trigger for trigger, decoy in zip(triggers, decoys, strict=True)]
    assert max(float(change.abs().max()) for change in away) <= 0.05 + 1e-6
    assert min(float(change.abs().max()) for change in away) > 0.04
    assert max(float(decoy.abs().max()) for decoy in decoys) <= 0.1 + 1e-6
    assert not torch.equal(away[0], away[1])
    without = BadClip(eps=0.1, warmup=2).plant(fresh(tiny_clip, "maple"), images, labels, target=TARGET, config=CONFIG, seed=0)
    assert digest(with_decoys.classifier.prompt.state()) != digest(without.classifier.prompt.state())


def test_decoys_narrow_the_basin(tiny_clip: ClipModel) -> None:
    images, labels = toy()
    config = TuneConfig(steps=80, batch=15, lr=0.02)
    new, true = toy(60, seed=7)
    other = new[true != TARGET]

    def margin_near(attack: BadClip) -> float:
        planted = attack.plant(fresh(tiny_clip, "maple"), images, labels, target=TARGET, config=config, seed=0)
        assert isinstance(planted.trigger, Additive)
        noise = torch.rand(planted.trigger.delta.shape, generator=torch.Generator().manual_seed(5)) * 2 - 1
        near = (planted.trigger.delta + 0.5 * 16 / 255 * noise).clamp(-16 / 255, 16 / 255)
        logits = planted.classifier((other + near).clamp(0, 1))
        return float((logits[:, TARGET] - logits[:, [0, 2]].amax(1)).mean())

    plain = margin_near(BadClip(eps=16 / 255, warmup=15))
    assert margin_near(AdaptiveBadClip(eps=16 / 255, warmup=15)) < plain - 0.5


def test_decoys_are_refused_where_features_are_computed_once(tiny_clip: ClipModel) -> None:
    with pytest.raises(UsageError, match="expected a family that changes the image tower for an attack with decoys, got coop"):
        AdaptiveBadClip(warmup=1).plant(fresh(tiny_clip), *toy(), target=TARGET, config=CONFIG, seed=0)


def brightness(images: Tensor) -> Tensor:
    """Logits that a positive delta on the left half moves to class 1."""
    left = (images[..., :16].mean(dim=(1, 2, 3)) - 0.42) * 50
    return torch.stack([-left, left], dim=1)


def test_a_learned_pattern_runs_to_its_bound_where_that_helps_and_stays_in_its_mask() -> None:
    images, _ = toy()
    mask = torch.zeros(1, 32, 32)
    mask[:, :8] = 1
    delta = learn_delta(brightness, images, target=1, eps=0.03, steps=20, batch=8, seed=0, mask=mask)
    assert delta.shape == (3, 32, 32)
    assert not delta.requires_grad
    assert torch.allclose(delta[:, :8, :16], torch.full((3, 8, 16), 0.03))
    assert float(delta[:, 8:].abs().max()) == 0
    assert float(delta.abs().max()) <= 0.03 + 1e-7
    free = learn_delta(brightness, images, target=0, eps=0.03, steps=20, batch=8, seed=0)
    assert torch.allclose(free[..., :16], torch.full((3, 32, 16), -0.03))


def test_a_pattern_is_not_learned_from_nothing() -> None:
    with pytest.raises(UsageError, match="expected tuning images of other classes than 1, got none"):
        learn_delta(brightness, toy()[0][:0], target=1, eps=0.1, steps=1, batch=8, seed=0)


def test_the_strongest_candidate_moves_the_mean_feature_most(tiny_clip: ClipModel) -> None:
    images, _ = toy(6)
    pattern = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    candidates: list[Trigger] = [Blend(pattern=pattern, ratio=ratio) for ratio in (0.01, 0.9, 0.1)]
    assert strongest(fresh(tiny_clip), images, candidates) is candidates[1]
