"""Probe images made from nothing: dead leaves, fractals, gradients and textures.

They stand in where no picture may be used. Each image has its own random stream, drawn from (seed, position), and the kinds take
turns; so the first k images are the same for any n, at any batch size.

Reference:
    Baradad et al., "Learning to See by Looking at Noise", 2021 (dead leaves and spectra as stand-ins for pictures).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.errors import UsageError

__all__ = ["KINDS", "generate_probes"]

_CHUNK_PIXELS = 1 << 20
_LEAVES = 90
_JULIA_STEPS = 40
_IFS_MAPS, _IFS_POINTS, _IFS_SPLIT = 4, 96, 5  # 96 starting points, 4 ** 5 words of maps: 98,304 points
_CELLS = 24


def generate_probes(n: int, size: int, seed: int = 0) -> Tensor:
    """Generate probe images.

    Args:
        n: how many.
        size: height and width in pixels.
        seed: other seeds give other images.

    Returns:
        ``float (n, 3, size, size)`` in [0, 1]; image i is of kind ``KINDS[i % len(KINDS)]``.

    Raises:
        UsageError: n or size is not positive.
    """
    if n < 1 or size < 1:
        raise UsageError(f"expected at least 1 probe image of at least 1 pixel, got n={n}, size={size}")
    images = torch.empty(n, 3, size, size)
    chunk = max(1, _CHUNK_PIXELS // size**2)
    for kind, draw in enumerate(KINDS.values()):
        positions = torch.arange(n)[kind :: len(KINDS)]
        for part in positions.split(chunk) if len(positions) else ():
            images[part] = draw([_stream(seed, i) for i in part.tolist()], size).clamp(0, 1)
    return images


def _stream(seed: int, position: int) -> torch.Generator:
    mixed = np.random.SeedSequence([seed % 2**63, position]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed) >> 1)


def _rand(streams: list[torch.Generator], *shape: int) -> Tensor:
    """Draw ``(len(streams), *shape)`` uniform numbers, one stream per image."""
    return torch.stack([torch.rand(shape, generator=stream) for stream in streams])


def _grid(size: int) -> tuple[Tensor, Tensor]:
    """Return y and x of every pixel's centre, ``(size, size)`` each, from -1 to 1."""
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return y, x


def _palette(height: Tensor, colours: Tensor) -> Tensor:
    """Colour ``height (n, h, w)`` in [0, 1] by the ramp ``colours (n, k, 3)``: ``(n, 3, h, w)``."""
    last = colours.shape[1] - 1
    place = height.clamp(0, 1) * last
    low = place.floor().clamp(max=last - 1)
    share = (place - low)[..., None]
    index = low.long().flatten(1)[..., None].expand(-1, -1, 3)  # (n, h*w, 3)
    below, above = colours.gather(1, index), colours.gather(1, index + 1)
    return (below + (above - below) * share.flatten(1, 2)).view(*height.shape, 3).permute(0, 3, 1, 2)


def _unit(values: Tensor) -> Tensor:
    """Stretch every image ``(n, h, w)`` to [0, 1]."""
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    return (values - low) / (high - low).clamp(min=1e-6)


def dead_leaves(streams: list[torch.Generator], size: int) -> Tensor:
    """Let discs, squares and bars fall on each other, their sizes after a power law."""
    y, x = _grid(size)
    where, look = _rand(streams, _LEAVES, 2) * 2.4 - 1.2, _rand(streams, _LEAVES, 4)
    colour = _rand(streams, _LEAVES + 1, 3)
    radius = 0.09 / (1 - look[..., 0] * (1 - (0.09 / 0.8) ** 2)).sqrt()  # density ~ r^-3 between 0.09 and 0.8
    canvas = colour[:, -1, :, None, None].expand(-1, -1, size, size).clone()
    for leaf in range(_LEAVES):
        angle, r = (look[:, leaf, 1] * math.pi).view(-1, 1, 1), radius[:, leaf].view(-1, 1, 1)
        dy, dx = y - where[:, leaf, 0].view(-1, 1, 1), x - where[:, leaf, 1].view(-1, 1, 1)
        u, v = angle.cos() * dx + angle.sin() * dy, (angle.cos() * dy - angle.sin() * dx)
        v = v * torch.where(look[:, leaf, 2] < 0.3, 2.5, 1.0).view(-1, 1, 1)
        round_ = (look[:, leaf, 3] < 0.6).view(-1, 1, 1)
        inside = torch.where(round_, u**2 + v**2 < r**2, torch.maximum(u.abs(), v.abs()) < r * 0.85)
        canvas = torch.where(inside[:, None], colour[:, leaf, :, None, None], canvas)
    return canvas


def spectral_noise(streams: list[torch.Generator], size: int) -> Tensor:
    """Shape noise to the spectrum 1/f^a of natural pictures, a from 0.8 to 2.2, with colours that go together."""
    noise, slope = _rand(streams, 3, size, size) - 0.5, 0.8 + 1.4 * _rand(streams, 1, 1, 1)
    fy, fx = torch.fft.fftfreq(size), torch.fft.rfftfreq(size)
    radius = (fy[:, None] ** 2 + fx[None] ** 2).sqrt()
    radius[0, 0] = 1 / size
    shaped: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) * radius**-slope, s=(size, size))
    shaped = (shaped - shaped.mean((2, 3), keepdim=True)) / shaped.flatten(2).std(2, correction=0)[..., None, None].clamp(min=1e-6)
    mix, offset = _rand(streams, 3, 3) - 0.35, _rand(streams, 3, 1, 1)
    return 0.25 + 0.5 * offset + 0.3 * torch.einsum("nij,njhw->nihw", mix, shaped)


def julia(streams: list[torch.Generator], size: int) -> Tensor:
    """Iterate z^2 + c, with c near the edge of the Mandelbrot set, and colour by the smoothed time of escape."""
    y, x = _grid(size)
    look, colours = _rand(streams, 5), _rand(streams, 5, 3)
    turn = look[:, 0] * 2 * math.pi
    edge = 1.0 + 0.08 * look[:, 1]  # the main cardioid's rim, a little outside
    c_re = edge * (turn.cos() / 2 - (2 * turn).cos() / 4)
    c_im = edge * (turn.sin() / 2 - (2 * turn).sin() / 4)
    zoom, tilt = (0.5 + look[:, 2]).view(-1, 1, 1), (look[:, 3] * math.pi).view(-1, 1, 1)
    re, im = zoom * (tilt.cos() * x - tilt.sin() * y), zoom * (tilt.sin() * x + tilt.cos() * y)
    c_re, c_im = c_re.view(-1, 1, 1), c_im.view(-1, 1, 1)
    time = torch.zeros_like(re)
    for _ in range(_JULIA_STEPS):
        re, im = (re**2 - im**2 + c_re).clamp(-1e4, 1e4), (2 * re * im + c_im).clamp(-1e4, 1e4)
        time += torch.exp(-(re**2 + im**2))  # smooth in z, unlike a count of steps
    return _palette(_unit(time), colours)


def ifs(streams: list[torch.Generator], size: int) -> Tensor:
    """Draw the attractor of four random contracting affine maps: every word of five maps is applied to a cloud of points."""
    numbers, points = _rand(streams, _IFS_MAPS, 6), _rand(streams, _IFS_POINTS, 2) * 2 - 1
    colours = _rand(streams, 5, 3)
    turn, scale = (numbers[..., 0] - 0.5) * 2 * math.pi, 0.35 + 0.4 * numbers[..., 1:3]
    cos, sin = turn.cos(), turn.sin()
    rotation = torch.stack([cos, -sin, sin, cos], dim=-1).view(-1, 1, _IFS_MAPS, 2, 2)
    matrix, shift = rotation * scale[:, None, :, None], (numbers[..., 3:5] * 1.6 - 0.8)[:, None]
    for _ in range(_IFS_SPLIT):
        moved = (matrix * points[:, :, None, None]).sum(-1) + shift  # (n, points, maps, 2)
        points = moved.flatten(1, 2)
    low, high = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
    cell = ((points - low) / (high - low).clamp(min=1e-6) * 0.92 + 0.04) * size
    index = cell[..., 1].long().clamp(0, size - 1) * size + cell[..., 0].long().clamp(0, size - 1)
    counts = torch.zeros(len(streams), size * size).scatter_add_(1, index, torch.ones_like(cell[..., 0]))
    return _palette(_unit(counts.log1p().view(-1, size, size)).sqrt(), colours)


def gradients(streams: list[torch.Generator], size: int) -> Tensor:
    """Blend colours linearly or in rings; every second image adds a soft random surface."""
    y, x = _grid(size)
    look, colours, coarse = _rand(streams, 5), _rand(streams, 4, 3), _rand(streams, 1, 4, 4)
    angle = (look[:, 0] * 2 * math.pi).view(-1, 1, 1)
    line = (angle.cos() * x + angle.sin() * y) / 2.83 + 0.5
    ring = ((y - look[:, 1].view(-1, 1, 1) * 2 + 1) ** 2 + (x - look[:, 2].view(-1, 1, 1) * 2 + 1) ** 2).sqrt() / 2.83
    height = torch.where((look[:, 3] < 0.5).view(-1, 1, 1), line, ring)
    surface = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)[:, 0]
    return _palette(torch.where((look[:, 4] < 0.5).view(-1, 1, 1), height, (height + surface) / 2), colours)


def waves(streams: list[torch.Generator], size: int) -> Tensor:
    """Add warped gratings up: stripes, checks and moire."""
    y, x = _grid(size)
    look, colours = _rand(streams, 3, 4), _rand(streams, 4, 3)
    depth, offset, pace = _rand(streams, 3, 1, 1).unbind(1)
    bend = 0.25 * depth * torch.sin(math.pi * (y + 2 * offset) * (1 + 2 * pace))
    total = torch.zeros(len(streams), size, size)
    for one in look.unbind(1):
        angle, phase = (one[:, 0] * math.pi).view(-1, 1, 1), (one[:, 1] * 2 * math.pi).view(-1, 1, 1)
        pitch = (2 * math.pi * 0.75 * 8 ** one[:, 2]).view(-1, 1, 1)  # 1.5 to 12 periods over the width
        wave = torch.sin(pitch * (angle.cos() * (x + bend) + angle.sin() * y) + phase)
        total += torch.where((one[:, 3] < 0.4).view(-1, 1, 1), wave.sign(), wave)
    return _palette(_unit(total), colours)


def cells(streams: list[torch.Generator], size: int) -> Tensor:
    """Cut the plane into Voronoi cells; some images are shaded by the distance to the next edge."""
    y, x = _grid(size)
    seeds, colours, shade = _rand(streams, _CELLS, 2) * 2.2 - 1.1, _rand(streams, _CELLS, 3), _rand(streams, 1, 1)
    nearest = torch.full((len(streams), size, size), torch.inf)
    second, owner = nearest.clone(), torch.zeros_like(nearest, dtype=torch.long)
    for k in range(_CELLS):
        distance = (y - seeds[:, k, 0].view(-1, 1, 1)) ** 2 + (x - seeds[:, k, 1].view(-1, 1, 1)) ** 2
        closer = distance < nearest
        second = torch.where(closer, nearest, torch.minimum(second, distance))
        owner, nearest = torch.where(closer, k, owner), torch.minimum(nearest, distance)
    flat = colours.gather(1, owner.flatten(1)[..., None].expand(-1, -1, 3)).view(-1, size, size, 3).permute(0, 3, 1, 2)
    rim = ((second.sqrt() - nearest.sqrt()) * 6).clamp(0, 1)
    return flat * torch.where(shade < 0.6, rim, torch.ones(()))[:, None]


KINDS: dict[str, Callable[[list[torch.Generator], int], Tensor]] = {
    "dead leaves": dead_leaves,
    "spectral noise": spectral_noise,
    "julia": julia,
    "ifs": ifs,
    "gradients": gradients,
    "waves": waves,
    "cells": cells,
}
