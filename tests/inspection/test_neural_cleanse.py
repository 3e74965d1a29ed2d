"""Neural Cleanse's trigger: a mask and a pattern, both between 0 and 1, and the mask's L1 norm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from clipvet.inspection.neural_cleanse import MaskShape
from tests.inspection.toys import SIZE, noisy_images


def unit(values: torch.Tensor) -> np.ndarray:
    return np.asarray(np.tanh(values.double().numpy()) / 2 + 0.5)


def test_masks_and_patterns_begin_uniform() -> None:
    state = MaskShape(list(range(12)), 16, 3).state()
    assert {name: tuple(value.shape) for name, value in state.items()} == {"mask": (12, 1, 16, 16), "pattern": (12, 3, 16, 16)}
    for value in state.values():
        assert bool(value.isfinite().all())
        assert kstest(unit(value).ravel(), "uniform").pvalue > 0.01


def test_images_are_mixed_with_the_pattern_where_the_mask_is() -> None:
    shape, images = MaskShape([4, 1, 2], SIZE, 0), noisy_images(5)
    state = shape.state()
    mask, pattern = unit(state["mask"]), unit(state["pattern"])
    found = shape.apply(images, torch.tensor([2, 0])).detach()
    assert found.shape == (2, 5, 3, SIZE, SIZE)
    for at, trigger in enumerate((2, 0)):
        expected = images.numpy() * (1 - mask[trigger]) + pattern[trigger] * mask[trigger]
        assert found[at].numpy() == pytest.approx(expected, abs=1e-5)
    shown = shape.tensors(2)
    assert shown["mask"].numpy() == pytest.approx(mask[2], abs=1e-6)
    assert shown["pattern"].numpy() == pytest.approx(pattern[2], abs=1e-6)


def test_the_size_is_the_l1_norm_and_what_the_loss_holds() -> None:
    shape = MaskShape([4, 1], SIZE, 0)
    expected = np.abs(unit(shape.state()["mask"])).sum((1, 2, 3))
    assert shape.size(shape.state()).numpy() == pytest.approx(expected, rel=1e-5)
    assert shape.cost().detach().numpy() == pytest.approx(expected, rel=1e-5)
    assert shape.cost().requires_grad


def test_a_trigger_depends_on_its_class_and_the_seed_alone() -> None:
    one, other, seeded = MaskShape([4, 1], SIZE, 0).state(), MaskShape([1], SIZE, 0).state(), MaskShape([1], SIZE, 1).state()
    assert all(torch.equal(one[name][1], other[name][0]) for name in one)
    assert not any(torch.equal(other[name], seeded[name]) for name in one)
