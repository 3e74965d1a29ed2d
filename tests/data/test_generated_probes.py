import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from clipvet.data import generated
from clipvet.data.generated import KINDS, generate_probes
from clipvet.errors import UsageError


def streams(kind, n, seed=0):
    first = list(KINDS).index(kind)
    return [generated._stream(seed, first + i * len(KINDS)) for i in range(n)]


def test_the_first_images_are_the_same_for_any_n():
    many = generate_probes(60, 64, seed=5)
    assert many.shape == (60, 3, 64, 64)
    assert torch.equal(many[:17], generate_probes(17, 64, seed=5))
    assert torch.equal(many[:1], generate_probes(1, 64, seed=5))  # fewer than there are kinds
    assert torch.equal(many, generate_probes(60, 64, seed=5))


def test_chunks_do_not_change_an_image(monkeypatch):
    whole = generate_probes(40, 32)
    monkeypatch.setattr(generated, "_CHUNK_PIXELS", 3 * 32**2)
    assert torch.equal(whole, generate_probes(40, 32))


def test_every_image_is_another_and_has_something_in_it():
    images, others = generate_probes(70, 32, seed=0), generate_probes(70, 32, seed=1)
    assert images.isfinite().all()
    assert images.min() >= 0 and images.max() <= 1
    flat = torch.cat([images, others]).flatten(1)
    distance = torch.cdist(flat, flat).fill_diagonal_(torch.inf)
    assert distance.min() > 1
    assert (flat.std(1) > 0.01).all()


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_draws_at_the_sizes_that_models_take(kind):
    for size in (1, 64, 224):
        images = KINDS[kind](streams(kind, 2), size)
        assert images.shape == (2, 3, size, size)
        assert images.isfinite().all()


def test_kinds_take_turns():
    images = generate_probes(2 * len(KINDS), 48, seed=9)
    for kind, name in enumerate(KINDS):
        assert torch.equal(images[kind :: len(KINDS)], KINDS[name](streams(name, 2, seed=9), 48).clamp(0, 1))


def test_dead_leaves_show_the_colours_that_were_drawn_and_no_other():
    image = generated.dead_leaves(streams("dead leaves", 1), 64)[0]
    stream = streams("dead leaves", 1)[0]
    torch.rand((90, 2), generator=stream), torch.rand((90, 4), generator=stream)
    drawn = {tuple(c) for c in torch.rand((91, 3), generator=stream).tolist()}
    shown = {tuple(c) for c in image.flatten(1).T.tolist()}
    assert shown <= drawn
    assert len(shown) > 20


def test_cells_belong_to_the_nearest_seed():
    image = generated.cells(streams("cells", 8), 40)
    flat = 0
    for i, stream in enumerate(streams("cells", 8)):
        points, colours = torch.rand((24, 2), generator=stream) * 2.2 - 1.1, torch.rand((24, 3), generator=stream)
        if torch.rand((1, 1), generator=stream) < 0.6:
            continue  # shaded towards the edges
        axis = (np.arange(40) + 0.5) / 20 - 1
        owner = cKDTree(points.numpy()).query(np.stack(np.meshgrid(axis, axis, indexing="ij"), -1))[1]
        assert (image[i].permute(1, 2, 0).numpy() == colours.numpy()[owner]).all(-1).mean() > 0.999  # ties may fall either way
        flat += 1
    assert flat >= 2


def test_spectral_noise_has_the_slope_that_was_drawn():
    size = 128
    images = generated.spectral_noise(streams("spectral noise", 6), size).double()
    frequency = np.fft.fftfreq(size)
    radius = np.hypot(frequency[:, None], frequency[None]).ravel()
    band = (radius > 0.03) & (radius < 0.45)
    for image, stream in zip(images, streams("spectral noise", 6), strict=True):
        torch.rand((3, size, size), generator=stream)
        drawn = 0.8 + 1.4 * torch.rand((1, 1, 1), generator=stream).item()
        power = np.log(np.abs(np.fft.fft2(image.numpy())).mean(0).ravel()[band])
        assert -np.polyfit(np.log(radius[band]), power, 1)[0] == pytest.approx(drawn, abs=0.1)


def test_the_palette_interpolates_between_its_colours():
    height = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(0))
    colours = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(1))
    image = generated._palette(height, colours)
    for i in range(2):
        for channel in range(3):
            expected = np.interp(height[i].numpy() * 3, [0, 1, 2, 3], colours[i, :, channel].numpy())
            assert image[i, channel].numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("n", "size"), [(0, 64), (3, 0), (-1, 64)])
def test_nothing_to_draw_is_an_error(n, size):
    with pytest.raises(UsageError, match=f"n={n}, size={size}"):
        generate_probes(n, size)
