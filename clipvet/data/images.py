"""Read pictures as a model's input: a user's own probe images, and the images of training pairs.

The preprocessing is open_clip's (``image_transform(size, is_train=False)``: shorter side to ``size``, bicubic, centre crop), and
stops before the normalisation, which belongs to the model wrapper.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from clipvet.errors import ImageError, UnreadableError, UsageError
from clipvet.types import Skipped

__all__ = ["decode_image", "load_image", "load_images"]

# Formats that Pillow decodes itself: EPS, for one, would start Ghostscript on a stranger's file.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "AVIF", "JPEG2000", "TGA", "ICO")
_MAX_PIXELS = 89_478_485  # Pillow's own limit of 2024: a quarter of a gigabyte as RGB
_MAX_BYTES = 1 << 30  # of a file: no picture of so few pixels needs more
_TOO_LARGE = "image too large"
_LONGEST_SHAPE = 100  # a 1 x 100,000 strip would become an image of 64 x 6,400,000 before it is cropped


def load_images(
    source: str | Path | Iterable[str | Path], size: int, limit: int | None = None, seed: int = 0
) -> tuple[Tensor, list[Skipped]]:
    """Read pictures for a model's input.

    Args:
        source: a folder, searched with all below it, one file, or files.
        size: height and width of the model's input.
        limit: read at most this many, drawn at random; the drawing depends on the names and the seed alone.
        seed: of that drawing.

    Returns:
        ``float (n, 3, size, size)`` in [0, 1], in the order of the files' names, and what was not read, each with its reason.

    Raises:
        UsageError: size or limit is not positive.
        UnreadableError: there is nothing under ``source``, or nothing in it could be read.
    """
    if size < 1 or (limit is not None and limit < 1):
        raise UsageError(f"expected a positive size and limit, got size={size}, limit={limit}")
    files = _files(source)
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
    wanted = len(files) if limit is None else limit
    read: dict[int, Tensor] = {}
    skipped: dict[int, Skipped] = {}
    for i in order if wanted < len(files) else range(len(files)):
        if len(read) == wanted:
            break
        try:
            read[i] = load_image(files[i], size)
        except UnreadableError as error:
            skipped[i] = Skipped(what=str(files[i]), why=str(error))
    named = [skipped[i] for i in sorted(skipped)]
    if not read:
        raise UnreadableError(
            f"expected pictures in {_shown(source)}, could read none of {len(files)} files; first: {named[0].why}"
        )
    left = len(files) - len(read) - len(skipped)
    if left:
        named.append(Skipped(what=f"{left} more files in {_shown(source)}", why=f"the limit of {limit} images was reached"))
    return torch.stack([read[i] for i in sorted(read)]), named


def load_image(path: str | Path, size: int) -> Tensor:
    """Read one picture: ``float (3, size, size)`` in [0, 1]; see :func:`decode_image`.

    Raises:
        ImageError: not a file, not a picture, damaged, or too large to be decoded safely.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: expected a regular file, found {_kind(path)}; give pictures", "no image file")
    try:
        length = path.stat().st_size
        data = path.read_bytes() if length <= _MAX_BYTES else b""
    except OSError as error:
        raise _undecodable(str(path), error) from error
    if length > _MAX_BYTES:
        raise ImageError(f"{path}: expected at most {_MAX_BYTES:,} bytes, found {length:,}; scale it down", _TOO_LARGE)
    return decode_image(data, str(path), size)


def decode_image(data: bytes, name: str, size: int) -> Tensor:
    """Decode one picture: ``float (3, size, size)`` in [0, 1].

    Turned as its EXIF data says; the first frame of an animation; transparency on white; 16 bits scaled to 8.

    Args:
        data: the file's bytes.
        name: what messages call it.
        size: height and width of the model's input.

    Raises:
        ImageError: not a picture, damaged, or too large to be decoded safely; its ``kind`` says which.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; what matters is whether pixels come out
            with Image.open(BytesIO(data), formats=[f for f in _FORMATS if f in _known()]) as image:
                _refuse_huge(image, name)
                return _fit(_to_rgb(_upright(image)), size)
    except ImageError:
        raise
    except Exception as error:  # decoders of a stranger's bytes raise anything: OSError, SyntaxError, struct.error, IndexError ...
        raise _undecodable(name, error) from error


def _undecodable(name: str, error: Exception) -> ImageError:
    why = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):  # its own text shows a buffer's address
        why = "cannot identify the format"
    message = f"{name}: expected a picture, could not decode it ({why}); convert or remove the file"
    return ImageError(message, _TOO_LARGE) if isinstance(error, Image.DecompressionBombError) else ImageError(message)


def _files(source: str | Path | Iterable[str | Path]) -> list[Path]:
    if not isinstance(source, str | Path):
        files = sorted({Path(one) for one in source})
    elif Path(source).is_dir():
        files = sorted(path for path in Path(source).rglob("*") if not path.is_dir())
    elif Path(source).exists():
        files = [Path(source)]
    else:
        raise UnreadableError(f"expected a folder of pictures, found nothing at {source}; check the path")
    if not files:
        raise UnreadableError(f"expected a folder of pictures, found no file in {_shown(source)}; give a folder with pictures")
    return files


def _shown(source: str | Path | Iterable[str | Path]) -> str:
    return str(source) if isinstance(source, str | Path) else "the given files"


def _kind(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    if path.exists():
        return "a device or pipe"
    return "a dead link" if path.is_symlink() else "nothing"


def _known() -> Iterator[str]:
    Image.init()
    yield from Image.OPEN


def _refuse_huge(image: Image.Image, name: str) -> None:
    """Look at the size in the header before a pixel is decoded."""
    width, height = image.size
    if width * height > _MAX_PIXELS or max(width, height) > _LONGEST_SHAPE * min(width, height):
        raise ImageError(
            f"{name}: expected at most {_MAX_PIXELS:,} pixels and sides of at most {_LONGEST_SHAPE}:1, "
            f"found {width} x {height}; scale it down or crop it",
            _TOO_LARGE,
        )


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data says nothing about the pixels, which have been decoded above
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point grey; Pillow's own conversion would cut everything above 255 off."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    high = float(values.max(initial=0.0))
    if image.mode == "F":
        top = 1.0 if high <= 1 else 255.0
    elif image.mode.startswith("I;16"):
        top = 65535.0
    else:
        top = 255.0 if high <= 255 else 65535.0
    top = max(top, high)
    return Image.fromarray(np.round(values.clip(0, top) * (255 / top)).astype(np.uint8))


def _fit(image: Image.Image, size: int) -> Tensor:
    """Resize the shorter side and crop the centre with torchvision's rounding, so that pixels agree to the bit."""
    width, height = image.size
    scaled = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BICUBIC)
    left, top = round((scaled[0] - size) / 2.0), round((scaled[1] - size) / 2.0)
    pixels = np.array(image.crop((left, top, left + size, top + size)))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
