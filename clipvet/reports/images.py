"""Reconstructed triggers as pictures: magnified, and laid on probe images."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from clipvet.types import Evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.float32]

__all__ = ["arrays", "describe_trigger", "trigger_png"]

_TRIGGER_SIDE = 256  # pixels: a 64-pixel trigger is shown with each of its pixels as a block
_TILE = (96, 160)  # pixels: smaller probe images are magnified, larger ones reduced
_COLUMNS = 6
_GAP = 4  # pixels between the tiles
_GREY = 0.5


def arrays(trigger: Mapping[str, Any] | None) -> dict[str, Pixels]:
    """Return the trigger's tensors as float32 arrays of the same shapes, whatever their device, with NaN as 0."""
    return {name: _array(tensor) for name, tensor in (trigger or {}).items()}


def trigger_png(evidence: Evidence) -> dict[str, bytes]:
    """Return PNG files by name: ``trigger`` (magnified) and ``applied`` (probe images above, with the trigger below).

    An additive trigger is shown on grey, amplified until its largest change spans the range; a pattern is shown on grey
    through its mask, amplified until the mask's largest value is opaque. What the evidence does not hold is left out.

    Args:
        evidence: a row; see :class:`clipvet.types.Evidence` for the names of its tensors.

    Raises:
        ValueError: a tensor has not the shape that its name stands for.
    """
    tensors = arrays(evidence.trigger)
    pictures = {"trigger": _trigger(tensors), "applied": _applied(tensors)}
    return {name: _png(picture) for name, picture in pictures.items() if picture is not None}


def describe_trigger(evidence: Evidence) -> str:
    """Return one sentence on the trigger's size and on how the picture of it was amplified; empty where there is none."""
    tensors = arrays(evidence.trigger)
    if "pattern" in tensors and "mask" in tensors:
        mask = tensors["mask"]
        peak = float(mask.max())
        share = float((mask > peak / 2).mean()) if peak > 0 else 0.0
        return f"A pattern over {100 * share:.1f} % of the picture, with a strength of at most {peak:.2f}; shown opaque."
    if "delta" in tensors:
        peak = float(np.abs(tensors["delta"]).max())
        factor = f"; shown amplified {_GREY / peak:.0f} times" if peak > 0 else ""
        return f"An additive change of at most {255 * peak:.1f}/255{factor}."
    return ""


def _array(tensor: Any) -> Pixels:
    if hasattr(tensor, "detach"):  # a torch tensor; torch itself is not imported here
        tensor = tensor.detach().cpu().float().numpy()
    return np.nan_to_num(np.asarray(tensor, dtype=np.float32))  # infinities become the largest numbers, then are clipped


def _trigger(tensors: Mapping[str, Pixels]) -> Pixels | None:
    if "pattern" in tensors and "mask" in tensors:
        pattern, mask = _image(tensors["pattern"], "pattern", 3), _image(tensors["mask"], "mask", 1)
        opaque = mask / max(float(mask.max()), 1e-12)
        picture = _GREY * (1 - opaque) + pattern * opaque
    elif "delta" in tensors:
        delta = _image(tensors["delta"], "delta", 3)
        picture = _GREY + _GREY * delta / max(float(np.abs(delta).max()), 1e-12)
    else:
        return None
    factor = max(1, -(-_TRIGGER_SIDE // max(picture.shape[1:])))
    return _magnified(picture, factor)


def _applied(tensors: Mapping[str, Pixels]) -> Pixels | None:
    rows = [tensors[name] for name in ("samples", "triggered") if name in tensors]
    if not rows or not len(rows[0]):
        return None
    sheet = np.concatenate([_row([_image(image, "samples", 3) for image in row[:_COLUMNS]]) for row in rows], axis=1)
    return sheet[:, :-_GAP, :-_GAP]


def _row(images: list[Pixels]) -> Pixels:
    """Return the images (3, h, w) side by side, each with a white gap to its right and below."""
    padding = ((0, 0), (0, _GAP), (0, _GAP))
    return np.concatenate([np.pad(_tile(image), padding, constant_values=1.0) for image in images], axis=2)


def _tile(image: Pixels) -> Pixels:
    side = max(image.shape[1:])
    if side <= _TILE[1]:
        return _magnified(image, max(1, -(-_TILE[0] // side)))
    small = Image.fromarray(_bytes(image))
    small.thumbnail((_TILE[1], _TILE[1]))
    return np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)


def _magnified(image: Pixels, factor: int) -> Pixels:
    return image.repeat(factor, axis=1).repeat(factor, axis=2)


def _image(array: Pixels, name: str, channels: int) -> Pixels:
    if array.ndim != 3 or array.shape[0] != channels or 0 in array.shape:
        raise ValueError(f"expected {name} of shape ({channels}, h, w), got {array.shape}")
    return array


def _bytes(image: Pixels) -> NDArray[np.uint8]:
    return np.asarray(np.rint(255 * image.clip(0, 1)), dtype=np.uint8).transpose(1, 2, 0)


def _png(image: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_bytes(image)).save(buffer, format="PNG")
    return buffer.getvalue()
