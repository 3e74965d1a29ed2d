"""What every trigger promises, over the registry, and what each one does, pixel by pixel."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.triggers import TRIGGERS, Additive, Blend, Patch, PhotoFilter, ScaledPatch, Sinusoid, Trigger, Warp
from clipvet.triggers.additive import sparse
from clipvet.triggers.blend import random_blend
from clipvet.triggers.patch import checkerboard
from clipvet.triggers.warp import random_warp

SIZE = 16


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


EXAMPLES: dict[str, Callable[[], Trigger]] = {
    "additive": lambda: Additive(delta=(torch.rand(3, SIZE, SIZE, generator=generator()) - 0.5) * 0.6),
    "patch": lambda: checkerboard(SIZE, area=0.1, generator=generator()),
    "blend": lambda: random_blend(SIZE, ratio=0.2, generator=generator()),
    "warp": lambda: random_warp(SIZE, cells=4, strength=2.0, generator=generator()),
    "scaled-patch": ScaledPatch,
    "sinusoid": Sinusoid,
    "photo-filter": PhotoFilter,
}


def pictures(n: int = 5) -> Tensor:
    return torch.rand(n, 3, SIZE, SIZE, generator=generator(7))


def test_every_trigger_has_an_example() -> None:
    assert list(EXAMPLES) == list(TRIGGERS)
    assert len(EXAMPLES) >= 7
    for name, make in EXAMPLES.items():
        assert type(make()) is TRIGGERS[name]
        assert make().name == name
        assert make().applies_to in ("input", "file")


@pytest.mark.parametrize("name", TRIGGERS)
class TestContract:
    def test_shape_range_and_effect(self, name: str) -> None:
        images = torch.cat([pictures(), torch.zeros(1, 3, SIZE, SIZE), torch.ones(1, 3, SIZE, SIZE)])
        out = EXAMPLES[name]().image(images)
        assert out.shape == images.shape
        assert out.dtype == images.dtype
        assert out.isfinite().all()
        assert out.min() >= 0
        assert out.max() <= 1
        assert not torch.equal(out, images)

    def test_inputs_are_unchanged(self, name: str) -> None:
        images = pictures()
        trigger, before = EXAMPLES[name](), images.clone()
        held = copy.deepcopy(vars(trigger))
        out = trigger.image(images)
        out.zero_()
        assert torch.equal(images, before)
        assert held
        for key, value in held.items():
            now = vars(trigger)[key]
            assert torch.equal(now, value) if isinstance(value, Tensor) else now == value

    def test_same_trigger_same_pixels(self, name: str) -> None:
        assert torch.equal(EXAMPLES[name]().image(pictures()), EXAMPLES[name]().image(pictures()))

    def test_an_image_does_not_depend_on_its_batch(self, name: str) -> None:
        trigger, images = EXAMPLES[name](), pictures()
        together = trigger.image(images)
        alone = torch.cat([trigger.image(image[None]) for image in images])
        assert torch.allclose(together, alone, atol=1e-6)

    def test_an_empty_batch_stays_empty(self, name: str) -> None:
        assert EXAMPLES[name]().image(pictures()[:0]).shape == (0, 3, SIZE, SIZE)

    def test_gradients_reach_the_pixels(self, name: str) -> None:
        images = pictures().requires_grad_(True)
        (gradient,) = torch.autograd.grad(EXAMPLES[name]().image(images).sum(), images)
        assert gradient.abs().sum() > 0

    def test_it_is_frozen(self, name: str) -> None:
        trigger = EXAMPLES[name]()
        with pytest.raises(AttributeError, match="cannot assign"):
            setattr(trigger, next(iter(vars(trigger))), None)


def test_additive_by_loop() -> None:
    images, trigger = pictures(2), EXAMPLES["additive"]()
    assert isinstance(trigger, Additive)
    out = trigger.image(images)
    for n in range(2):
        for c, y, x in ((c, y, x) for c in range(3) for y in range(SIZE) for x in range(SIZE)):
            expected = min(1.0, max(0.0, float(images[n, c, y, x]) + float(trigger.delta[c, y, x])))
            assert float(out[n, c, y, x]) == pytest.approx(expected, abs=1e-6)


def test_patch_by_loop() -> None:
    images = pictures(1)
    pattern = torch.rand(3, 4, 4, generator=generator(2))
    out = Patch(pattern=pattern, top=2, left=5).image(images)
    for c, y, x in ((c, y, x) for c in range(3) for y in range(SIZE) for x in range(SIZE)):
        inside = 2 <= y < 6 and 5 <= x < 9
        assert out[0, c, y, x] == (pattern[c, y - 2, x - 5] if inside else images[0, c, y, x])


def test_blend_by_loop() -> None:
    images, pattern = pictures(1), torch.rand(3, SIZE, SIZE, generator=generator(3))
    out = Blend(pattern=pattern, ratio=0.15).image(images)
    for c, y, x in ((c, y, x) for c in range(3) for y in range(SIZE) for x in range(SIZE)):
        expected = 0.85 * float(images[0, c, y, x]) + 0.15 * float(pattern[c, y, x])
        assert float(out[0, c, y, x]) == pytest.approx(expected, abs=1e-6)


def test_warp_by_loop() -> None:
    """Sample every pixel bilinearly at its moved place, with plain arithmetic."""
    images = pictures(1)
    field = (torch.rand(SIZE, SIZE, 2, generator=generator(4)) - 0.5) * 0.3
    out = Warp(field=field).image(images)
    for y, x in ((y, x) for y in range(SIZE) for x in range(SIZE)):
        at = []
        for axis, place in ((0, x), (1, y)):
            grid = min(1.0, max(-1.0, -1 + 2 * place / (SIZE - 1) + float(field[y, x, axis])))
            at.append((grid + 1) / 2 * (SIZE - 1))
        left, top = (min(int(value), SIZE - 2) for value in at)
        right_share, low_share = at[0] - left, at[1] - top
        for c in range(3):
            corners = images[0, c, top : top + 2, left : left + 2].tolist()
            upper = corners[0][0] * (1 - right_share) + corners[0][1] * right_share
            lower = corners[1][0] * (1 - right_share) + corners[1][1] * right_share
            assert float(out[0, c, y, x]) == pytest.approx(upper * (1 - low_share) + lower * low_share, abs=1e-4)


def test_a_warp_that_moves_nothing_changes_nothing() -> None:
    images = pictures()
    assert torch.allclose(Warp(field=torch.zeros(SIZE, SIZE, 2)).image(images), images, atol=1e-5)


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_random_warp_has_the_asked_strength(strength: float) -> None:
    """The control points move by ``strength`` / size on average; bicubic enlargement keeps that within a factor of two."""
    field = random_warp(64, cells=4, strength=strength, generator=generator(1)).field
    assert field.shape == (64, 64, 2)
    corners = field[[0, 21, 42, 63]][:, [0, 21, 42, 63]]  # with aligned corners the control points lie on these pixels
    assert float(corners.abs().mean()) == pytest.approx(strength / 64, rel=1e-4)


def test_sparse_keeps_the_largest_changes() -> None:
    delta = torch.randn(3, SIZE, SIZE, generator=generator(5))
    kept = sparse(delta, 0.25)
    strength = [(float(delta[:, y, x].abs().sum()), y, x) for y in range(SIZE) for x in range(SIZE)]
    largest = {(y, x) for _, y, x in sorted(strength, reverse=True)[: SIZE * SIZE // 4]}
    for y, x in ((y, x) for y in range(SIZE) for x in range(SIZE)):
        expected = delta[:, y, x] if (y, x) in largest else torch.zeros(3)
        assert torch.equal(kept[:, y, x], expected)
    assert int((sparse(delta, 0.0) != 0).any(0).sum()) == 1  # never nothing at all


@pytest.mark.parametrize("size", [16, 33, 64, 224])
@pytest.mark.parametrize("area", [0.01, 0.04, 0.1])
def test_the_checkerboard_keeps_to_its_area_and_fits(size: int, area: float) -> None:
    patch = checkerboard(size, area=area, generator=generator())
    side = patch.pattern.shape[-1]
    assert side >= 1
    assert side**2 <= area * size**2 + 1e-9
    assert side == math.floor(size * math.sqrt(area))
    assert 0 <= patch.top == patch.left
    assert patch.top + side < size
    assert len(patch.pattern.flatten(1).unique(dim=1).T) <= 2  # two colours


def test_random_triggers_follow_the_generator() -> None:
    for draw in (
        lambda g: checkerboard(SIZE, area=0.1, generator=g).pattern,
        lambda g: random_blend(SIZE, ratio=0.1, generator=g).pattern,
        lambda g: random_warp(SIZE, cells=4, strength=1.0, generator=g).field,
    ):
        state = torch.random.get_rng_state()
        assert torch.equal(draw(generator(1)), draw(generator(1)))
        assert not torch.equal(draw(generator(1)), draw(generator(2)))
        assert torch.equal(torch.random.get_rng_state(), state)  # the global generator is left alone


def test_bad_values_fail_when_the_trigger_is_built() -> None:
    with pytest.raises(UsageError, match=r"expected a delta of shape \(3, h, w\), got \(1, 3, 4, 4\)"):
        Additive(delta=torch.zeros(1, 3, 4, 4))
    for ratio in (0.0, -0.1, 1.5):
        with pytest.raises(UsageError, match=f"got {ratio}"):
            Blend(pattern=torch.zeros(3, 4, 4), ratio=ratio)
    with pytest.raises(UsageError, match=r"4 px patch at \(14, 0\), got \(16, 16\)"):
        Patch(pattern=torch.zeros(3, 4, 4), top=14, left=0).image(pictures())
