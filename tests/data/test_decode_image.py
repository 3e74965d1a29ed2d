import io
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from clipvet.data.images import decode_image, load_image
from clipvet.errors import ImageError, UnreadableError


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(picture, kind="PNG", **options):
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


def bomb(width, height):
    """A PNG of a few bytes that declares any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("shape", [(300, 40), (500, 700), (32, 32)])
def test_bytes_and_file_give_the_same_pixels(tmp_path, kind, shape):
    data = encoded(noise(*shape), kind)
    (tmp_path / "a").write_bytes(data)
    assert torch.equal(decode_image(data, "a", 32), load_image(tmp_path / "a", 32))


def test_a_large_jpeg_is_scaled_from_all_its_pixels(tmp_path):
    """Decoding at a fraction of the size would be faster, and give other pixels; the oracle is Pillow alone."""
    data = encoded(noise(1024, 1024), "JPEG", quality=95)
    whole = Image.open(io.BytesIO(data)).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
    assert torch.equal(decode_image(data, "a", 32), torch.from_numpy(np.array(whole)).permute(2, 0, 1).float() / 255)


def test_cmyk():
    data = encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95)
    assert decode_image(data, "a", 32).mean((1, 2)).tolist() == pytest.approx([1, 0, 0], abs=0.03)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation(kind):
    red, blue = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(red, kind, save_all=True, append_images=[blue], **options)
    assert decode_image(data, "a", 32).mean((1, 2)).tolist() == [1, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_photo_is_turned_as_its_camera_says(kind):
    picture, exif = noise(48, 32), Image.Exif()
    exif[0x0112] = 6
    turned = encoded(picture.transpose(Image.Transpose.ROTATE_270))
    assert torch.equal(decode_image(encoded(picture, kind, exif=exif), "a", 32), decode_image(turned, "b", 32))


WHOLE = encoded(noise(200, 200), "JPEG")


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (WHOLE[: len(WHOLE) // 2], "image cannot be decoded", "truncated"),
        (encoded(noise(200, 200))[:-5000], "image cannot be decoded", "truncated"),
        (b"", "image cannot be decoded", "cannot identify"),
        (b"<html>404</html>", "image cannot be decoded", "cannot identify"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "image cannot be decoded", "cannot identify"),
        (bomb(100, 100), "image cannot be decoded", "could not decode"),
        (bomb(60_000, 60_000), "image too large", "exceeds limit"),
        (bomb(10_000, 9_000), "image too large", "10000 x 9000"),
        (bomb(2, 900), "image too large", "2 x 900"),
    ],
)
def test_what_cannot_be_used_is_told_by_a_fixed_kind(data, kind, message):
    with pytest.raises(ImageError, match=f"^0001: expected.*{message}") as caught:
        decode_image(data, "0001", 32)
    assert caught.value.kind == kind
    assert "0x" not in str(caught.value)  # the same sentence in every run
    again = pickle.loads(pickle.dumps(caught.value))  # as it comes from a worker
    assert (str(again), again.kind, type(again)) == (str(caught.value), kind, ImageError)


def test_a_missing_file_has_a_kind_of_its_own(tmp_path):
    with pytest.raises(UnreadableError, match="found nothing") as caught:
        load_image(tmp_path / "gone.png", 32)
    assert caught.value.kind == "no image file"


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("clipvet.data.images._MAX_BYTES", 1000)
    (tmp_path / "a.png").write_bytes(bytes(1001))
    with pytest.raises(ImageError, match="at most 1,000 bytes, found 1,001") as caught:
        load_image(tmp_path / "a.png", 32)
    assert caught.value.kind == "image too large"
