"""The repair undoes a planted backdoor, costs a clean twin nothing, and touches nothing but its own copy of the prompt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.models import base
from clipvet.models.base import ClipModel
from clipvet.models.families import FAMILIES
from clipvet.models.prompts import PromptedClassifier
from clipvet.repair import REPAIRS, Stamps, TriggerTuning, views
from clipvet.repair.moving import MovingStamps
from tests.repair import toys

LEARNED = [name for name in FAMILIES if name != "zero-shot"]
QUICK: dict[str, Any] = {"steps": 3, "batch": 6, "refresh_every": 2, "refresh_steps": 1, "settle": 2}


def shares(classifier: PromptedClassifier, delta: Tensor) -> tuple[float, float, float]:
    """CA, ASR and TA by a plain loop over fresh images."""
    images, labels = toys.toy(60, seed=5)
    right = reached = kept = other = 0
    with torch.no_grad():
        for image, label in zip(images, labels.tolist(), strict=True):
            plain = int(classifier(image[None]).argmax())
            stamped = int(classifier((image + delta).clamp(0, 1)[None]).argmax())
            right += plain == label
            kept += stamped == label
            if label != toys.TARGET:
                other += 1
                reached += stamped == toys.TARGET
    return right / len(images), reached / other, kept / len(images)


@pytest.mark.parametrize("family", ["vpt", "coop"])
def test_a_planted_backdoor_is_gone_and_its_clean_twin_keeps_its_accuracy(tiny_clip: ClipModel, family: str) -> None:
    planted, twin = toys.planted(tiny_clip, family).classifier, toys.twin(tiny_clip, family)
    delta = toys.stripes()
    ca, asr, _ = shares(planted, delta)
    assert min(ca, asr) >= 0.9, "the toy is no backdoor"
    # The trigger's bound is half of what tells the toy's classes apart, so it must not move far.
    repair = TriggerTuning(steps=40, batch=12, lr=toys.CONFIGS[family].lr, weight=1.0, keep=1.0, move=0.01)
    results = {}
    for name, classifier in (("planted", planted), ("twin", twin)):
        repaired = repair.run(classifier, *toys.toy(seed=3), [toys.evidence()], seed=0, progress=toys.silent)
        results[name] = shares(repaired, delta)
    assert results["planted"][1] <= 0.05
    assert results["planted"][0] >= ca - 0.02
    assert results["planted"][2] >= 0.95 * results["planted"][0]
    assert results["twin"][0] >= shares(twin, delta)[0] - 0.02


@pytest.mark.parametrize("family", LEARNED)
def test_every_family_is_repaired_in_a_copy(tiny_clip: ClipModel, family: str) -> None:
    delivered = toys.fresh(tiny_clip, family).freeze()
    before = {name: values.clone() for name, values in delivered.prompt.state().items()}
    towers = {name: values.clone() for name, values in tiny_clip.clip.state_dict().items()}
    rng = torch.random.get_rng_state()
    images, labels = toys.toy(12)
    given = images.clone()

    repaired = TriggerTuning(**QUICK).run(delivered, images, labels, [toys.evidence()], seed=0, progress=toys.silent)

    after = repaired.prompt.state()
    assert {name: values.shape for name, values in after.items()} == {name: values.shape for name, values in before.items()}
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert all(bool(values.isfinite().all()) for values in after.values())
    assert all(torch.equal(values, before[name]) for name, values in delivered.prompt.state().items())
    assert all(torch.equal(values, towers[name]) for name, values in tiny_clip.clip.state_dict().items())
    assert torch.equal(images, given)
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert not any(values.requires_grad for values in repaired.prompt.parameters())
    assert repaired.class_names == delivered.class_names


@pytest.mark.parametrize("family", ["coop", "vpt"])
def test_the_seed_decides(tiny_clip: ClipModel, family: str) -> None:
    delivered = toys.fresh(tiny_clip, family).freeze()

    def state(seed: int) -> dict[str, Tensor]:
        done = TriggerTuning(**QUICK).run(delivered, *toys.toy(12), [toys.evidence()], seed=seed, progress=toys.silent)
        return done.prompt.state()

    first, again, other = state(0), state(0), state(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_progress_counts_the_steps(tiny_clip: ClipModel) -> None:
    seen: list[tuple[str, int, int]] = []
    delivered = toys.fresh(tiny_clip, "coop").freeze()
    TriggerTuning(**QUICK).run(delivered, *toys.toy(12), [toys.evidence()], seed=0, progress=lambda *about: seen.append(about))
    settling = [("settling on images without triggers", step, 2) for step in (1, 2)]
    assert seen == [("tuning the prompt", step, 3) for step in (1, 2, 3)] + settling


def test_the_first_step_descends_the_stated_loss(tiny_clip: ClipModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of AdamW moves every number by the rate against the sign of the gradient; the loss is written out here."""
    monkeypatch.setattr(views, "crop", lambda images, generator: images)
    monkeypatch.setattr(base, "bfloat16_is_fast", lambda device: False)
    delivered = toys.fresh(tiny_clip, "vpt").freeze()
    images, labels = toys.toy(6)
    method = TriggerTuning(steps=1, batch=6, lr=1e-3, weight=0.5, keep=2.0, move=0, settle=0)
    repaired = method.run(delivered, images, labels, [toys.evidence()], seed=0, progress=toys.silent)

    prompt = toys.fresh(tiny_clip, "vpt").prompt
    own = PromptedClassifier(tiny_clip, prompt, toys.NAMES)
    plain = own(images).log_softmax(1)
    stamped = own((images + toys.stripes()).clamp(0, 1)).log_softmax(1)
    rows = torch.arange(6)
    wanted = plain.detach().exp()
    divergence = (wanted * (wanted.log() - plain)).sum() / 6
    loss = -plain[rows, labels].mean() - 0.5 * stamped[rows, labels].mean() + 2.0 * divergence
    gradients = torch.autograd.grad(loss, list(prompt.parameters()))
    for start, gradient, found in zip(prompt.parameters(), gradients, repaired.prompt.parameters(), strict=True):
        expected = start * (1 - 1e-3 * 1e-4) - 1e-3 * gradient / (gradient.abs() + 1e-8)
        clear = gradient.abs() > 1e-4  # elsewhere rounding decides the sign
        assert clear.float().mean() > 0.5
        assert torch.allclose(found[clear], expected[clear], atol=2e-5)


def test_triggers_are_searched_on_within_their_bounds_and_the_given_ones_stay() -> None:
    delta = torch.zeros(2, 3, 4, 4)
    delta[0] = 0.1
    mask, pattern = torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 4, 4)
    mask[1, :, :2], pattern[1] = 1, 0.9
    stamps = Stamps(delta=delta, mask=mask, pattern=pattern)
    which = torch.tensor([0, 1])
    moving = MovingStamps(stamps, torch.tensor([1, 1]), 0.5)
    images = torch.full((2, 3, 4, 4), 0.5)
    for _ in range(5):
        total = moving.put(images, which).sum((1, 2, 3))
        moving.aim(torch.stack([total, -total], dim=1), which)  # the darker the pixels, the more likely class 1
        moving.step()
    dark = moving.put(images, which).detach()
    assert torch.allclose(dark[0], torch.full((3, 4, 4), 0.4))  # 0.5 - 0.1: the bound of the first
    assert torch.allclose(dark[1, :, :2], torch.zeros(3, 2, 4))  # a pattern may become any pixel
    assert torch.equal(dark[1, :, 2:], images[1, :, 2:])  # and nothing is added beside its mask
    assert float(delta[0].min()) == pytest.approx(0.1)
    assert float(pattern[1].min()) == pytest.approx(0.9)


def test_triggers_that_do_not_move_stay() -> None:
    stamps = Stamps.of([toys.evidence()], toys.SIZE)
    moving = MovingStamps(stamps, torch.tensor([toys.TARGET]), 0.0)
    moving.aim(torch.zeros(1, 3), torch.tensor([0]))
    moving.step()
    assert torch.equal(moving.delta, stamps.delta)
    assert not moving.delta.requires_grad


def test_where_features_are_computed_once_triggers_move_now_and_then(tiny_clip: ClipModel) -> None:
    """Features with a trigger are those of the trigger as it is now, and the delivered prompt is asked as it was."""
    delivered, tuned = toys.fresh(tiny_clip, "coop").freeze(), toys.fresh(tiny_clip, "coop")
    images, labels = toys.toy(6)
    stamps = MovingStamps(Stamps.of([toys.evidence()], toys.SIZE), torch.tensor([toys.TARGET]), 0.25)
    seen = views.Features(delivered, tuned, images, labels, stamps)
    pick, which, generator = torch.arange(6), torch.zeros(6, dtype=torch.long), torch.Generator().manual_seed(0)
    before = stamps.delta.detach().clone()
    seen.refresh(2, generator)
    assert float(stamps.delta.detach().abs().max()) <= float(before.abs().max()) + 1e-6
    assert not torch.equal(stamps.delta, before)
    found = seen.look(pick, which, generator)
    with torch.no_grad():
        stamped = (images + stamps.delta[0]).clamp(0, 1)
        assert torch.allclose(found.triggered, tuned(stamped), atol=1e-4)
        assert torch.allclose(found.plain, tuned(images), atol=1e-4)
        assert torch.allclose(found.delivered, delivered(images), atol=1e-4)


def test_a_crop_shows_a_part_of_the_image_at_its_size() -> None:
    images = torch.linspace(0, 1, 32).expand(5, 3, 32, 32)  # columns rise from left to right
    cropped = views.crop(images, torch.Generator().manual_seed(0))
    assert cropped.shape == images.shape
    assert not torch.equal(cropped[0], cropped[1])
    for image in cropped:
        row = image[0, 0]
        assert bool((row.diff() >= -1e-6).all())
        assert float(row[-1] - row[0]) >= 0.5  # at most a quarter is cut off, and an eighth of a side shifted out
        assert torch.allclose(image, row.expand(3, 32, 32), atol=1e-5)


@pytest.mark.parametrize(
    ("values", "said"),
    [({"steps": 0}, "positive steps"), ({"lr": 0.0}, "positive steps"), ({"keep": -1.0}, "no negative"), ({"move": -0.1}, "-0.1")],
)
def test_bad_settings_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TriggerTuning(**values)


def test_the_registry_has_it_under_its_name() -> None:
    assert list(REPAIRS) == [TriggerTuning.name] == ["trigger-tuning"]
