import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from clipvet.data.compose import Placement, compose

STILL = Placement(smallest=1, largest=1, angle=0, shift=0, shear=0, flip=0, jitter=0, gray=0, plain=1)


def pictures(n=6):
    return torch.randint(0, 256, (n, 4, 32, 32), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def rendered(placement, seed=0, rgba=None):
    return compose(pictures() if rgba is None else rgba, placement, torch.Generator().manual_seed(seed))


def on_white(rgba):
    picture = Image.fromarray(rgba.permute(1, 2, 0).numpy())
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return torch.from_numpy(np.array(Image.alpha_composite(white, picture).convert("RGB"))).permute(2, 0, 1) / 255


def test_a_still_placement_is_the_picture_on_white():
    images = rendered(STILL)
    assert images.shape == (6, 3, 32, 32)
    for rgba, image in zip(pictures(), images, strict=True):
        assert (image - on_white(rgba)).abs().max() <= 1.01 / 255  # Pillow rounds to bytes


def test_a_flipped_placement_is_the_mirrored_picture():
    assert torch.allclose(rendered(dataclasses.replace(STILL, flip=1.0)), rendered(STILL).flip(3), atol=1e-4)


def test_half_size_covers_the_middle_quarter():
    black = torch.zeros(4, 4, 32, 32, dtype=torch.uint8)
    black[:, 3] = 255
    dark = 1 - rendered(dataclasses.replace(STILL, smallest=0.5, largest=0.5), rgba=black)
    assert dark.mean((1, 2, 3)).numpy() == pytest.approx([0.25] * 4, abs=0.01)
    assert dark[:, :, 9:23, 9:23].min() > 0.99


def test_a_grey_placement_has_no_colour():
    opaque = pictures()
    opaque[:, 3] = 255
    images = rendered(dataclasses.replace(STILL, gray=1.0), rgba=opaque)
    assert (images.amax(1) - images.amin(1)).max() < 1e-5
    assert not torch.allclose(images, rendered(STILL, rgba=opaque), atol=0.05)


def test_the_seed_decides_everything():
    moving, before = Placement(flip=0.5, gray=0.2), pictures()
    assert torch.equal(rendered(moving, 1), rendered(moving, 1))
    assert not torch.equal(rendered(moving, 1), rendered(moving, 2))
    assert torch.equal(before, pictures())
    assert rendered(moving).min() >= 0 and rendered(moving).max() <= 1


@pytest.mark.parametrize("plain", [0.0, 0.3, 1.0])
def test_the_share_of_white_backgrounds(plain):
    clear = torch.zeros(600, 4, 8, 8, dtype=torch.uint8)
    white = rendered(dataclasses.replace(STILL, plain=plain), rgba=clear).flatten(1).amin(1) == 1
    assert white.float().mean().item() == pytest.approx(plain, abs=0.06)
