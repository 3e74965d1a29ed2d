"""Pixel-Backdoor's trigger: what each pixel gains and loses, and how many pixels change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from clipvet.inspection.pixel_backdoor import PixelShape
from tests.inspection.toys import SIZE, noisy_images


def shaped(**pixels: tuple[int, int, int, float]) -> PixelShape:
    """A trigger that is nothing but a value at (channel, row, column) of each variable that is named."""
    shape = PixelShape([0], SIZE, 0)
    state = {name: torch.full_like(value, -0.3) for name, value in shape.state().items()}
    for name, (channel, row, column, value) in pixels.items():
        state[name][0, channel, row, column] = value
    shape.load(state)
    return shape


def test_changes_begin_uniform_on_every_pixel() -> None:
    shape = PixelShape(list(range(12)), 16, 3)
    assert {name: tuple(value.shape) for name, value in shape.state().items()} == {
        "positive": (12, 3, 16, 16),
        "negative": (12, 3, 16, 16),
    }
    for value in shape.state().values():
        assert kstest(value.numpy().ravel(), "uniform").pvalue > 0.01
    assert shape.size(shape.state()).tolist() == [256.0] * 12


def test_images_gain_and_lose_and_stay_images() -> None:
    shape, images = PixelShape([4, 1], SIZE, 0), noisy_images(5)
    shape.load({name: value * 2 - 0.5 for name, value in shape.state().items()})  # beyond 0 and 1 on both sides
    state = shape.state()
    found = shape.apply(images, torch.tensor([1])).detach()[0]
    change = state["positive"][1].numpy().clip(0, 1) - state["negative"][1].numpy().clip(0, 1)
    assert found.numpy() == pytest.approx((images.numpy() + change).clip(0, 1), abs=1e-6)
    delta = shape.tensors(1)["delta"].numpy()
    assert np.abs(delta - change).max() < 1 / 255
    assert shape.size(state)[1] == np.count_nonzero(np.abs(delta).sum(0))


@pytest.mark.parametrize(
    ("pixels", "count"),
    [
        ({}, 0),
        ({"positive": (0, 2, 3, 0.5)}, 1),
        ({"positive": (0, 2, 3, 0.5), "negative": (2, 2, 3, 0.5)}, 1),  # two channels of one pixel
        ({"positive": (0, 2, 3, 0.5), "negative": (0, 2, 3, 0.5)}, 0),  # what is gained is lost
        ({"positive": (0, 2, 3, 0.5), "negative": (0, 2, 4, 0.5)}, 2),
        ({"positive": (1, 7, 0, 0.9 / 255)}, 0),
        ({"positive": (1, 7, 0, 1.1 / 255)}, 1),
    ],
)
def test_a_pixel_counts_once_and_from_one_step_of_a_channel_on(pixels: dict[str, tuple[int, int, int, float]], count: int) -> None:
    shape = shaped(**pixels)
    assert shape.size(shape.state()).tolist() == [count]
    kept = shape.pruned(shape.state())
    assert all(bool(((value == 0) | (value >= 1 / 255)).all()) for value in kept.values())
    assert shape.size(kept).tolist() == [count]


def test_the_loss_holds_a_smooth_count_of_both_signs() -> None:
    shape = PixelShape([4, 1], SIZE, 0)
    expected = np.zeros(2)
    for value in shape.state().values():
        expected += (np.tanh(value.double().numpy() / 10) / 2 + 0.5).max(1).sum((1, 2))
    assert shape.cost().detach().numpy() == pytest.approx(expected, rel=1e-5)
    assert shape.cost().requires_grad
