import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipvet.data.images import load_image, load_images
from clipvet.errors import UnreadableError, UsageError
from clipvet.models._open_clip import open_clip


def noise(width, height, channels=3, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values.squeeze())


def png_of(width, height):
    """A PNG whose header promises what the file does not hold."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize(
    "shape", [(64, 64), (65, 64), (100, 37), (37, 101), (333, 250), (20, 33), (640, 483), (224, 224), (71, 70)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_open_clips(tmp_path, size, shape, channels):
    noise(*shape, channels).save(tmp_path / "a.png")
    steps = open_clip.image_transform(size, is_train=False).transforms
    assert type(steps[-1]).__name__ == "Normalize"
    expected = Image.open(tmp_path / "a.png")
    for step in steps[:-1]:
        expected = step(expected)
    assert torch.equal(load_image(tmp_path / "a.png", size), expected)


def test_a_photo_is_turned_as_its_camera_says(tmp_path):
    picture, exif = noise(48, 32), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    picture.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    assert torch.equal(load_image(tmp_path / "turned.png", 32), load_image(tmp_path / "upright.png", 32))


def test_damaged_exif_does_not_lose_the_picture(tmp_path):
    picture = noise(40, 40)
    picture.save(tmp_path / "bad.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    picture.save(tmp_path / "good.png")
    assert torch.equal(load_image(tmp_path / "bad.png", 40), load_image(tmp_path / "good.png", 40))


def test_cmyk(tmp_path):
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    assert load_image(tmp_path / "red.jpg", 32).mean((1, 2)).tolist() == pytest.approx([1, 0, 0], abs=0.03)


def test_a_palette_is_resized_as_colours(tmp_path):
    picture = Image.new("P", (64, 64))
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.putdata([(x + y) % 2 for y in range(64) for x in range(64)])
    picture.save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", 16).numpy() == pytest.approx(np.full((3, 16, 16), 0.5), abs=0.02)  # not a nearest pixel


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(tmp_path, mode):
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    picture = clear.convert("LA") if mode == "LA" else clear
    if mode == "P":
        picture = Image.new("P", (32, 32), 0)
        picture.putpalette([0, 0, 0, 10, 10, 10])
        picture.info["transparency"] = 0
    picture.save(tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png", 32) == 1).all()


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "a.gif", 32).mean((1, 2)).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.full((32, 32), 32896, np.uint16), 128 / 255),
        (np.full((32, 32), 65535, np.uint16), 1.0),
        (np.full((32, 32), 40000, np.int32), 156 / 255),
        (np.full((32, 32), 51, np.int32), 0.2),
        (np.full((32, 32), 0.6, np.float32), 0.6),
        (np.full((32, 32), np.nan, np.float32), 0.0),
        (np.full((32, 32), 51.0, np.float32), 0.2),
    ],
)
def test_deep_grey_is_scaled_not_cut(tmp_path, values, expected):
    Image.fromarray(values).save(tmp_path / "a.tiff")
    assert load_image(tmp_path / "a.tiff", 32).mean().item() == pytest.approx(expected, abs=1e-3)


def test_sixteen_bit_png(tmp_path):
    Image.fromarray(np.full((32, 32), 32896, np.uint16)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", 32).mean().item() == pytest.approx(128 / 255, abs=1e-6)


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    noise(40, 30).save(tmp_path / "deep" / "er" / "good.jpg")
    noise(300, 300).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:4000])
    (tmp_path / "whole.jpg").unlink()
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "bomb.png").write_bytes(png_of(60_000, 60_000))
    (tmp_path / "large.png").write_bytes(png_of(10_000, 9_000))
    (tmp_path / "hollow.png").write_bytes(png_of(100, 100))
    (tmp_path / "postscript.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    noise(2, 900).save(tmp_path / "strip.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    images, skipped = load_images(tmp_path, 32)
    assert images.shape == (1, 3, 32, 32)
    reasons = {Path(one.what).name: one.why for one in skipped}
    assert list(reasons) == sorted(
        [
            "cut.jpg",
            "notes.txt",
            "empty.png",
            "bomb.png",
            "large.png",
            "hollow.png",
            "postscript.eps",
            "strip.png",
            "gone.png",
            "pipe.png",
        ]
    )
    assert "truncated" in reasons["cut.jpg"]
    assert "10000 x 9000" in reasons["large.png"]
    assert "2 x 900" in reasons["strip.png"]
    assert "dead link" in reasons["gone.png"]
    assert "pipe" in reasons["pipe.png"]
    assert "cannot identify" in reasons["postscript.eps"]


def test_a_limit_draws_the_same_files_again_and_says_what_is_left(tmp_path):
    for i in range(12):
        Image.new("RGB", (32, 32), (i * 20, 0, 0)).save(tmp_path / f"{i:02}.png")
    images, skipped = load_images(tmp_path, 32, limit=5, seed=1)
    red = (images[:, 0, 0, 0] * 255 / 20).round().int().tolist()
    assert len(images) == 5
    assert red == sorted(set(red))
    assert [one.what for one in skipped] == [f"7 more files in {tmp_path}"]
    assert "limit of 5" in skipped[0].why
    assert torch.equal(images, load_images(tmp_path, 32, limit=5, seed=1)[0])
    assert any(not torch.equal(images, load_images(tmp_path, 32, limit=5, seed=s)[0]) for s in (2, 3))
    everything, none = load_images(tmp_path, 32, limit=12)
    assert len(everything) == 12
    assert none == []


def test_an_unreadable_file_does_not_use_the_limit_up(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text("x")
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    images, skipped = load_images(tmp_path, 8, limit=6)
    assert len(images) == 6
    assert sum(one.what.endswith(".txt") for one in skipped) == len(skipped) - ("more files" in skipped[-1].what)


def test_a_file_and_a_list_of_files(tmp_path):
    for name in ("b.png", "a.png"):
        noise(9, 9, seed=ord(name[0])).save(tmp_path / name)
    one, _ = load_images(tmp_path / "a.png", 8)
    both, _ = load_images([str(tmp_path / "b.png"), tmp_path / "a.png"], 8)
    assert torch.equal(one[0], both[0])
    assert len(both) == 2
    partly, skipped = load_images([tmp_path / "a.png", tmp_path / "c.png"], 8)
    assert len(partly) == 1
    assert "found nothing" in skipped[0].why


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(UnreadableError, match=r"found nothing at .*missing"):
        load_images(tmp_path / "missing", 8)
    with pytest.raises(UnreadableError, match="found no file in"):
        load_images(tmp_path, 8)
    with pytest.raises(UnreadableError, match="found no file in the given files"):
        load_images([], 8)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UnreadableError, match=r"could read none of 1 files.*a\.txt"):
        load_images(tmp_path, 8)


@pytest.mark.parametrize(("size", "limit"), [(0, None), (8, 0)])
def test_sizes_and_limits_are_positive(tmp_path, size, limit):
    with pytest.raises(UsageError, match=f"size={size}, limit={limit}"):
        load_images(tmp_path, size, limit)
