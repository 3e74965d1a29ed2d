"""The triggers of the attacks on training pairs, pixel by pixel, and triggers on images of any size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.triggers import TRIGGERS, Blend, PhotoFilter, ScaledPatch, Sinusoid, Trigger, Warp
from clipvet.triggers.warp import random_warp


def pictures(n: int, height: int, width: int) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(7)) * 0.8 + 0.1  # neither black nor white


def changed(before: Tensor, after: Tensor) -> list[tuple[int, int]]:
    """Return the pixels (row, column) that differ in any channel, by a loop."""
    rows, columns = before.shape[1:]
    return [(y, x) for y in range(rows) for x in range(columns) if before[:, y, x].tolist() != after[:, y, x].tolist()]


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(224, 224, 16), (64, 64, 5), (32, 48, 4), (16, 16, 4), (4, 9, 4), (448, 500, 32)],  # side by hand: 16/224 of the shorter
)
@pytest.mark.parametrize("place", [(0.0, 0.0), (1.0, 1.0), (0.5, 0.25)])
def test_a_patch_is_where_it_must_be_and_nothing_else_changes(
    height: int, width: int, side: int, place: tuple[float, float]
) -> None:
    images = pictures(1, height, width)
    out = ScaledPatch(place=place).image(images)
    top, left = ((height - side) * place[0], (width - side) * place[1])
    touched = (out != images).any(1)[0].nonzero()
    found = touched.amin(0).tolist()
    assert touched.amax(0).tolist() == [found[0] + side - 1, found[1] + side - 1]
    assert len(touched) == side * side
    assert abs(found[0] - top) <= 1
    assert abs(found[1] - left) <= 1


@pytest.mark.parametrize(("size", "cell"), [(224, 1), (448, 2), (64, 1)])
def test_the_patch_is_a_checkerboard(size: int, cell: int) -> None:
    out = ScaledPatch(place=(0.0, 0.0)).image(pictures(1, size, size))[0]
    side = round(16 / 224 * size)
    for y, x in ((y, x) for y in range(side) for x in range(side)):
        assert out[:, y, x].tolist() == [float((y // cell + x // cell) % 2)] * 3


def test_a_patch_without_a_place_goes_anywhere() -> None:
    """64 images of 20 px: 17 offsets each way, and many are met; each image keeps its own in any batch."""
    images = pictures(64, 20, 20)
    out = ScaledPatch().image(images)
    corners = [min(changed(before, after)) for before, after in zip(images, out, strict=True)]
    assert {0 <= y <= 16 and 0 <= x <= 16 for y, x in corners} == {True}
    assert len({y for y, _ in corners}) >= 12
    assert len({x for _, x in corners}) >= 12
    order = torch.arange(63, -1, -1)
    assert torch.equal(ScaledPatch().image(images[order]), out[order])


@pytest.mark.parametrize(("delta", "frequency", "fade"), [(20 / 255, 6, 0), (0.2 * 60 / 255, 6, 0.2), (0.5, 2.5, 0)])
def test_stripes_by_loop(delta: float, frequency: float, fade: float) -> None:
    images = pictures(1, 5, 21)
    out = Sinusoid(delta=delta, frequency=frequency, fade=fade).image(images)
    clipped = 0
    for c, y, x in ((c, y, x) for c in range(3) for y in range(5) for x in range(21)):
        raw = (1 - fade) * float(images[0, c, y, x]) + delta * math.sin(2 * math.pi * frequency * x / 21)
        clipped += not 0 <= raw <= 1
        assert float(out[0, c, y, x]) == pytest.approx(min(1.0, max(0.0, raw)), abs=1e-6)
    assert bool(clipped) is (delta == 0.5)


ON_PAPER = {(0.0, 0.0, 0.0): (0, 0.034, 0.178), (1.0, 1.0, 1.0): (1, 0.992, 0.861)}  # black turns blue, white turns cream


def nashville_by_hand(pixel: tuple[float, float, float]) -> list[float]:
    """Filter one pixel with the matrices as the CSS standard prints them for sepia(0.2) and saturate(1.2)."""

    def clip(values: list[float]) -> list[float]:
        return [min(1.0, max(0.0, value)) for value in values]

    def times(matrix: list[list[float]], values: list[float]) -> list[float]:
        return [sum(weight * value for weight, value in zip(row, values, strict=True)) for row in matrix]

    t = 1 - 0.2
    sepia = [
        [0.393 + 0.607 * t, 0.769 - 0.769 * t, 0.189 - 0.189 * t],
        [0.349 - 0.349 * t, 0.686 + 0.314 * t, 0.168 - 0.168 * t],
        [0.272 - 0.272 * t, 0.534 - 0.534 * t, 0.131 + 0.869 * t],
    ]
    s = 1.2
    saturate = [
        [0.213 + 0.787 * s, 0.715 - 0.715 * s, 0.072 - 0.072 * s],
        [0.213 - 0.213 * s, 0.715 + 0.285 * s, 0.072 - 0.072 * s],
        [0.213 - 0.213 * s, 0.715 - 0.715 * s, 0.072 + 0.928 * s],
    ]
    layered = [0.44 * v + 0.56 * min(v, tone / 255) for v, tone in zip(pixel, (247, 176, 153), strict=True)]
    layered = [0.6 * v + 0.4 * max(v, tone / 255) for v, tone in zip(layered, (0, 70, 150), strict=True)]
    out = clip(times(sepia, layered))
    out = clip([(v - 0.5) * 1.2 + 0.5 for v in out])
    out = clip([v * 1.05 for v in out])
    return clip(times(saturate, out))


def test_the_photo_filter_at_known_pixels() -> None:
    steps = (0.0, 0.3, 0.62, 1.0)
    pixels = [(r, g, b) for r in steps for g in steps for b in steps]
    images = torch.tensor(pixels).T.reshape(1, 3, 8, 8)
    out = PhotoFilter().image(images).flatten(2)[0].T
    for pixel, found in zip(pixels, out.tolist(), strict=True):
        assert found == pytest.approx(nashville_by_hand(pixel), abs=1e-5)
    for pixel, expected in ON_PAPER.items():
        assert out[pixels.index(pixel)].tolist() == pytest.approx(expected, abs=1e-3)
    half = PhotoFilter(strength=0.5).image(images).flatten(2)[0].T
    assert torch.allclose(half, (torch.tensor(pixels) + out) / 2, atol=1e-6)


def test_a_warp_moves_no_further_than_its_field() -> None:
    """On a ramp the change of the value is the distance moved: one unit of the field is half the image."""
    size, strength = 65, 1.0
    field = random_warp(size, cells=4, strength=strength, generator=torch.Generator().manual_seed(1)).field
    ramp = torch.linspace(-1, 1, size)
    image = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.zeros(size, size)]) / 2 + 0.5
    moved = (Warp(field=field).image(image[None])[0] - image) * 2  # (3, h, w), in the field's units; red across, green down
    inner = (slice(8, -8), slice(8, -8))  # at the edge the warp is held back
    for channel, axis in ((0, 0), (1, 1)):
        assert torch.allclose(moved[channel][inner], field[..., axis][inner], atol=1e-4)
        assert float(moved[channel].abs().max()) <= float(field.abs().max()) + 1e-4
    assert 0.5 / size <= float(moved[:2].abs().mean()) <= 2 * strength / size


SIZED: dict[str, Trigger] = {
    "blend": Blend(pattern=torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)), ratio=0.2),
    "warp": random_warp(32, cells=4, strength=4.0, generator=torch.Generator().manual_seed(0)),
    "scaled-patch": ScaledPatch(),
    "sinusoid": Sinusoid(),
    "photo-filter": PhotoFilter(),
}


@pytest.mark.parametrize("name", sorted(TRIGGERS.keys() - {"patch", "additive"}))  # these two are made for one size
@pytest.mark.parametrize(("height", "width"), [(24, 24), (17, 40), (64, 33)])
def test_triggers_follow_the_size_of_the_image(name: str, height: int, width: int) -> None:
    images = pictures(2, height, width)
    out = SIZED[name].image(images)
    assert out.shape == images.shape
    assert 0 <= float(out.min()) < float(out.max()) <= 1
    assert not torch.equal(out, images)


def test_a_scaled_pattern_is_the_pattern_between_its_own_pixels() -> None:
    pattern = torch.zeros(3, 2, 2)
    pattern[:, :, 1] = 1  # dark at the left, light at the right
    out = Blend(pattern=pattern, ratio=1.0).image(torch.zeros(1, 3, 4, 8))[0]
    expected = [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]  # pixel centres 0.125, 0.375 ... between the centres 0.5 and 1.5
    assert out[0, 0].tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(out, out[:1, :1].expand(3, 4, 8))


def test_a_scaled_warp_moves_by_the_same_share_of_the_image() -> None:
    field = torch.full((4, 4, 2), 0.25)
    big = Warp(field=torch.full((33, 17, 2), 0.25))
    images = pictures(2, 33, 17)
    assert torch.allclose(Warp(field=field).image(images), big.image(images), atol=1e-6)


def test_bad_values_fail_when_the_trigger_is_built() -> None:
    for share in (0.0, 1.5, math.nan):
        with pytest.raises(UsageError, match=f"got {share}"):
            ScaledPatch(share=share)
    for place in ((0.5, 1.5), (-0.1, 0.0), (0.5,)):
        with pytest.raises(UsageError, match="expected a place"):
            ScaledPatch(place=place)
    for setting in ({"delta": 0.0}, {"delta": 2.0}, {"frequency": 0.0}, {"fade": 1.0}, {"fade": -0.1}):
        with pytest.raises(UsageError, match="expected delta in"):
            Sinusoid(**setting)
    for strength in (0.0, 1.5):
        with pytest.raises(UsageError, match=f"got {strength}"):
            PhotoFilter(strength=strength)
    with pytest.raises(UsageError, match="at least 4 px for a patch, got 3 x 20"):
        ScaledPatch().image(torch.zeros(1, 3, 3, 20))
