"""Reconstructed triggers put on images, pixel by pixel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.repair import Stamps
from clipvet.types import Evidence


def row(**tensors: Tensor) -> Evidence:
    return Evidence(target="cat", target_index=0, trigger=tensors)


def test_each_image_gets_its_trigger() -> None:
    generator = torch.Generator().manual_seed(0)
    delta = torch.rand(3, 2, 2, generator=generator) - 0.5
    mask, pattern = torch.rand(1, 2, 2, generator=generator), torch.rand(3, 2, 2, generator=generator)
    images = torch.rand(3, 3, 2, 2, generator=generator)
    stamps = Stamps.of([row(delta=delta), row(mask=mask, pattern=pattern)], 2)
    found = stamps.put(images, torch.tensor([1, 0, 1]))
    for image, which in enumerate([1, 0, 1]):
        for channel in range(3):
            for y in range(2):
                for x in range(2):
                    pixel = float(images[image, channel, y, x])
                    share = float(mask[0, y, x])
                    added = pixel + float(delta[channel, y, x])
                    mixed = (1 - share) * pixel + share * float(pattern[channel, y, x])
                    expected = mixed if which else min(1.0, max(0.0, added))
                    assert float(found[image, channel, y, x]) == pytest.approx(expected, abs=1e-6)
    assert torch.equal(stamps.put_one(images, 1)[0], found[0])
    assert len(stamps) == 2


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "at least one reconstructed trigger, got none"),
        ([Evidence(target="cat")], "for 'cat', got nothing"),
        ([row(delta=torch.zeros(3, 4, 4))], r"\(3, 2, 2\) for 'cat', got the shape \(3, 4, 4\)"),
        ([row(pattern=torch.zeros(3, 2, 2))], "for 'cat', got the shape"),
    ],
)
def test_what_is_no_trigger_for_this_model_is_one_sentence(rows: list[Evidence], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Stamps.of(rows, 2)
