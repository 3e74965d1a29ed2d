"""Cognitive Distillation on a model whose feature is known: the mask keeps just what the feature hangs on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.scan import CognitiveDistillation
from clipvet.scan.cognitive_distillation import total_variation


def model(side: int) -> Any:
    """An encoder that sees the upper left corner alone; its features are large, so that they outweigh the mask's size."""
    return SimpleNamespace(encode_image=lambda images: 1e4 * images[:, :, :side, :side].flatten(1))


def images(n: int) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def scores(side: int, some: Tensor, **settings: float) -> Tensor:
    return CognitiveDistillation(**settings).score_pixels(model(side), some, [""] * len(some), seed=0)


def test_a_feature_that_hangs_on_a_small_part_is_the_more_suspicious() -> None:
    small, large = scores(3, images(4)), scores(12, images(4))
    assert (small > large).all()
    assert ((small <= 0) & (small >= -1)).all()


def test_a_score_does_not_depend_on_the_batch_and_repeats() -> None:
    some = images(5)
    whole = scores(4, some)
    assert scores(4, some[3:]).tolist() == pytest.approx(whole[3:].tolist(), abs=1e-5)
    assert torch.equal(scores(4, some), whole)


def test_total_variation_equals_a_loop() -> None:
    mask = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(1))
    for row, found in zip(mask, total_variation(mask).tolist(), strict=True):
        m, total = row[0].tolist(), 0.0
        for y in range(5):
            for x in range(7):
                total += (m[y][x] - m[y - 1][x]) ** 2 if y else 0
                total += (m[y][x] - m[y][x - 1]) ** 2 if x else 0
        assert found == pytest.approx(total / 35, rel=1e-5)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"gamma": 0}, {"beta": -1}])
def test_settings_are_checked_when_it_is_built(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected positive steps, rate, gamma and beta"):
        CognitiveDistillation(**settings)
