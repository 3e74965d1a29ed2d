import os

import pytest

from clipvet.data.sources import open_pairs
from clipvet.errors import UsageError
from tests.data.pair_files import picture, read_shard


def only_shard(path, **columns):
    (shard,) = open_pairs([path], **columns).shards
    return shard


def put(path, data=b"i"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_images_with_texts_beside_them(tmp_path):
    for i, name in enumerate(["b.jpg", "a.PNG", "deep/er/my.photo.webp"]):
        put(tmp_path / name, picture(i))
        put((tmp_path / name).with_suffix(".txt"), f"caption {i}".encode())
    source = open_pairs([tmp_path])
    assert source.kind == "images with captions (files)"
    assert source.mapping == {"image": "jpg|png|webp", "caption": "txt", "id": "(path)", "uid": "json: uid"}
    (shard,) = source.shards
    assert shard.name == tmp_path.name
    assert shard.embeddings() is None
    assert [(p.key, p.image, p.caption, p.path) for p in shard.pairs()] == [
        ("a", picture(1), "caption 1", tmp_path / "a.PNG"),
        ("b", picture(0), "caption 0", tmp_path / "b.jpg"),
        ("deep/er/my.photo", picture(2), "caption 2", tmp_path / "deep/er/my.photo.webp"),
    ]


def test_what_is_no_pair_is_counted_or_noted(tmp_path):
    put(tmp_path / "good.jpg")
    put(tmp_path / "good.txt", b"c")
    put(tmp_path / "no-caption.jpg")
    put(tmp_path / "no-image.txt")
    put(tmp_path / "two.jpg")
    put(tmp_path / "two.png")
    put(tmp_path / "two.txt")
    put(tmp_path / "latin.jpg")
    put(tmp_path / "latin.txt", b"caf\xe9")
    put(tmp_path / "line\nbreak.jpg")
    put(tmp_path / "line\nbreak.txt")
    put(tmp_path / "dead.txt")
    (tmp_path / "dead.jpg").symlink_to(tmp_path / "nowhere.jpg")
    put(tmp_path / "pipe.txt")
    os.mkfifo(tmp_path / "pipe.jpg")
    put(tmp_path / "._good.jpg")
    put(tmp_path / "notes.md")
    put(tmp_path / "config.json")
    put(tmp_path / ".hidden" / "x.jpg")
    source = open_pairs([tmp_path])
    pairs, unread = read_shard(source.shards[0])
    assert list(pairs) == ["good"]
    assert unread == {
        "no caption": ["no-caption"],
        "no image": ["no-image"],
        "several images": ["two"],
        "caption is not UTF-8": ["latin"],
        "macOS metadata": ["._good"],
        "line break in the name": ["line\nbreak"],
        "file not found": ["dead", "pipe"],
    }
    assert source.notes == ("2 other files are no images and no captions: config.json, notes.md.",)


def test_the_folder_of_a_class_gives_the_caption(tmp_path):
    for i, name in enumerate(["train/cat/1.jpg", "train/cat/1.png", "train/dog/1.jpg", "loose.jpg"]):
        put(tmp_path / name, picture(i))
    source = open_pairs([tmp_path])
    assert source.kind == "class folders"
    assert source.mapping["caption"] == "(name of the folder)"
    assert source.notes == ("No image has a caption of its own, so the name of its folder is taken for one.",)
    pairs, unread = read_shard(source.shards[0])
    assert [(p.key, p.image, p.caption) for p in pairs.values()] == [
        ("train/cat/1.jpg", picture(0), "cat"),
        ("train/cat/1.png", picture(1), "cat"),
        ("train/dog/1.jpg", picture(2), "dog"),
    ]
    assert unread == {"no caption": ["loose.jpg"]}


def test_a_folder_is_cut_in_the_order_of_its_names(tmp_path):
    for i in range(7):
        put(tmp_path / f"{i}.jpg", picture(i))
        put(tmp_path / f"{i}.txt", b"c")
    shards = open_pairs([tmp_path], rows=3).shards
    assert [shard.name for shard in shards] == [f"{tmp_path.name}-0000{i}" for i in range(3)]
    assert [[p.key for p in shard.pairs()] for shard in shards] == [list("012"), list("345"), list("6")]
    before = [shard.identity for shard in shards]
    assert len(set(before)) == 3
    put(tmp_path / "4.txt", b"another caption")
    assert [one == other for one, other in zip(before, (s.identity for s in shards), strict=True)] == [True, False, True]


def test_linked_folders_are_read_and_circles_are_not_followed_for_ever(tmp_path):
    put(tmp_path / "elsewhere" / "a.jpg")
    put(tmp_path / "elsewhere" / "a.txt")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "data")
    assert [p.key for p in only_shard(tmp_path / "data").pairs()] == ["link/a"]


def test_kept_images_are_listed_by_path(tmp_path):
    for name in ("a", "b", "caf\udce9", "c"):
        put(tmp_path / "in" / f"{name}.jpg")
        put(tmp_path / "in" / f"{name}.txt")
    shard = only_shard(tmp_path / "in")
    assert "caf\\udce9" in read_shard(shard)[0]
    kept = shard.write_kept({"b", "caf\\udce9"}, tmp_path / "out")
    assert kept.files == (tmp_path / "out" / "in.kept.txt",)
    assert kept.files[0].read_bytes() == b"".join(os.fsencode(tmp_path / "in" / f"{n}.jpg") + b"\n" for n in ("b", "caf\udce9"))
    assert (kept.kept, kept.dropped) == (2, 2)
    with pytest.raises(UsageError, match="another folder"):
        shard.write_kept(set(), tmp_path / "in")


def test_a_file_or_field_can_be_named(tmp_path):
    put(tmp_path / "a.jpg", b"jpg")
    put(tmp_path / "a.png", b"png")
    put(tmp_path / "a.json", b'{"alt": "words", "id": 3}')
    (pair,) = only_shard(tmp_path, image_col="png", caption_col="alt", id_col="id").pairs()
    assert (pair.image, pair.caption, pair.uid, pair.path) == (b"png", "words", "3", tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"'title' in .*, found jpg, json, png, alt, id"):
        open_pairs([tmp_path], caption_col="title")


def test_a_file_larger_than_any_image_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("clipvet.data._reading.LIMIT", 1000)
    put(tmp_path / "a.jpg", bytes(1001))
    put(tmp_path / "a.txt")
    put(tmp_path / "b.jpg", bytes(1000))
    put(tmp_path / "b.txt")
    pairs, unread = read_shard(only_shard(tmp_path))
    assert list(pairs) == ["b"]
    assert unread == {"file too large": ["a"]}
