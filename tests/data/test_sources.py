"""The door to all formats, and the contract that every shard keeps."""

import json
import os
import pickle
import re

import numpy as np
import pytest

from clipvet.data.pairs import Pair
from clipvet.data.sources import open_pairs
from clipvet.errors import UnreadableError, UsageError
from tests.data.pair_files import picture, read_shard, sample, write_parquet, write_tar


def make_tar(folder):
    return write_tar(folder / "x.tar", [m for i in range(3) for m in sample(f"k{i}", number=i)])


def make_parquet(folder):
    return write_parquet(folder / "x.parquet", key=["k0", "k1", "k2"], image=[picture(i) for i in range(3)], text=list("abc"))


def make_csv(folder):
    make_images(folder)
    (folder / "x.csv").write_text("image,caption,id\n0.jpg,a,k0\n1.jpg,b,k1\n2.jpg,c,k2\n")
    return folder / "x.csv"


def make_images(folder):
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(picture(i))


def make_folder(folder):
    make_images(folder)
    for i in range(3):
        (folder / f"{i}.txt").write_text(f"caption {i}")
    return folder


def make_classes(folder):
    (folder / "cat").mkdir()
    make_images(folder / "cat")
    return folder


def make_coco(folder):
    make_images(folder)
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(3)]
    annotations = [{"image_id": i, "caption": "c"} for i in range(3)]
    (folder / "x.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder / "x.json"


def make_features(folder):
    (folder / "img_emb").mkdir()
    np.save(folder / "img_emb" / "img_emb_0.npy", np.ones((3, 4), np.float16))
    return folder


MAKERS = [make_tar, make_parquet, make_csv, make_folder, make_classes, make_coco, make_features]


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__.removeprefix("make_"))
def shard(request, tmp_path):
    (tmp_path / "in").mkdir()
    (shard,) = open_pairs([request.param(tmp_path / "in")]).shards
    return shard


def keys_of(shard):
    found = shard.embeddings()
    return [item.key for item in shard.pairs()] if found is None else list(found.keys)


def test_a_shard_goes_to_another_process_and_back(shard):
    other = pickle.loads(pickle.dumps(shard))
    assert other == shard
    assert len(pickle.dumps(shard)) < 2000
    assert (other.name, other.identity) == (shard.name, shard.identity)
    assert keys_of(other) == keys_of(shard)


def test_a_shard_can_be_read_again_and_keeps_its_identity(shard):
    before = shard.identity
    keys = keys_of(shard)
    assert len(keys) == len(set(keys)) == 3
    assert keys_of(shard) == keys
    assert shard.identity == before
    assert all(isinstance(item, Pair) for item in shard.pairs())


def test_kept_and_dropped_add_up(shard, tmp_path):
    keys = keys_of(shard)
    kept = shard.write_kept({keys[1]}, tmp_path / "out")
    assert (kept.kept, kept.dropped) == (1, 2)
    assert all(path.is_file() for path in kept.files)
    assert sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file()) == sorted(kept.files)
    again = shard.write_kept({keys[1]}, tmp_path / "out")
    assert again == kept


def test_the_folder_of_the_input_is_refused(shard, tmp_path):
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*") if path.is_file()}
    folder = tmp_path / "in"
    with pytest.raises(UsageError, match="the input is never written over"):
        shard.write_kept(set(), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("make", MAKERS[:4])
def test_a_file_and_its_folder_are_the_same_source(tmp_path, make):
    path = make(tmp_path)
    by_file = open_pairs([path])
    if make is not make_csv:  # images beside a list may be meant otherwise
        by_folder = open_pairs([tmp_path])
        assert [keys_of(one) for one in by_folder.shards] == [keys_of(one) for one in by_file.shards]
        assert by_folder.kind == by_file.kind


def tars(folder, names):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_tar(folder / name, sample(f"{i}"))


def test_names_of_shards_differ_and_are_file_names(tmp_path):
    names = ["a/00000.tar", "b/00000.tar", "c/x/00000.tar", "d/x/00000.tar", "d/my shard: 1.tar", "d/a-00000.tar", "e/A-00000.tar"]
    tars(tmp_path, names)
    for order in (names, names[::-1]):
        source = open_pairs([tmp_path / name for name in order])
        found = [shard.name for shard in source.shards]
        assert len({name.lower() for name in found}) == len(names)
        assert all(re.fullmatch(r"[\w.-]+", name) for name in found)
        assert found == [shard.name for shard in open_pairs([tmp_path / name for name in order]).shards]
    assert [shard.name for shard in open_pairs([tmp_path / "a", tmp_path / "b"]).shards] == ["a-00000", "b-00000"]
    assert [shard.name for shard in open_pairs([tmp_path / "a"]).shards] == ["00000"]


def test_nothing_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="got none: name tar files, parquet files"):
        open_pairs([])
    with pytest.raises(UnreadableError, match=r"found nothing at .*missing"):
        open_pairs([tmp_path / "missing"])
    with pytest.raises(UnreadableError, match="found an empty folder"):
        open_pairs([tmp_path])
    with pytest.raises(UsageError, match="at least 1 row per shard, got 0"):
        open_pairs([tmp_path], rows=0)


def test_formats_are_not_mixed(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(UsageError, match=r"one format, found tar files \(1\), parquet files \(1\), image folders \(1\)"):
        open_pairs([make_tar(tmp_path), make_parquet(tmp_path), make_folder(tmp_path / "images")])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jpg", "b.jpg", "train.csv"], "found 2 jpg, 1 csv: name the files that hold the pairs"),
        (["images/a.jpg", "annotations/captions.json"], "found 1 json, 1 jpg"),
        (["a.parquet", "b.csv"], "found 1 parquet, 1 csv"),
        (["a.parquet", "a.npz", "b.parquet"], "found 2 parquet, 1 npz"),
        (["a.jpg", "metadata.csv", "metadata.jsonl"], "found 1 jpg, 1 csv, 1 jsonl"),
        (["a.jpg", "a/metadata.csv", "b/metadata.parquet"], "found 1 jpg, 1 csv, 1 parquet"),
        (["a.json"], "found 1 json"),
        (["README", "x.bin", "y.bin"], "found 2 bin, 1 without an extension"),
    ],
)
def test_an_unclear_folder_is_an_error_that_lists_what_was_found(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=f"expected tar files, parquet files.*{message}"):
        open_pairs([tmp_path])


def test_an_unknown_file_is_an_error(tmp_path):
    (tmp_path / "x.tar.gz").touch()
    with pytest.raises(UsageError, match=r"got the file .*x\.tar\.gz"):
        open_pairs([tmp_path / "x.tar.gz"])


def test_one_source_may_be_given_by_itself(tmp_path):
    path = make_tar(tmp_path)
    assert keys_of(open_pairs(str(path)).shards[0]) == keys_of(open_pairs(path).shards[0]) == ["k0", "k1", "k2"]


def test_hugging_faces_image_folder_is_told_from_others(tmp_path):
    make_images(tmp_path)
    write_parquet(tmp_path / "metadata.parquet", file_name=["0.jpg", "1.jpg", "../x.jpg"], text=list("abc"))
    pairs, unread = read_shard(open_pairs([tmp_path]).shards[0])
    assert [p.image for p in pairs.values()] == [picture(0), picture(1)]
    assert unread == {"path outside the folder": ["000000002"]}


def test_an_input_is_not_replaced_by_way_of_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "links").mkdir()
    path = make_tar(tmp_path / "real")
    (tmp_path / "links" / "x.tar").symlink_to(path)
    (tmp_path / "folder").symlink_to(tmp_path / "links")
    before = path.read_bytes()
    (shard,) = open_pairs([tmp_path / "links" / "x.tar"]).shards
    for folder in ("real", "links", "folder"):
        with pytest.raises(UsageError, match="the input is never written over"):
            shard.write_kept(set(), tmp_path / folder)
    assert path.read_bytes() == before
    assert sorted(one.name for one in (tmp_path / "real").iterdir()) == ["x.tar"]


@pytest.mark.parametrize("name", ["x.tar", "x.parquet", "x.csv"])
def test_a_pipe_or_dead_link_is_an_error_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UnreadableError, match=f"found a pipe, a device or a dead link at .*{name}"):
        open_pairs([tmp_path / name])
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UnreadableError, match="dead link"):
        open_pairs([tmp_path])


def test_a_source_named_from_the_working_folder_is_found_from_others(tmp_path, monkeypatch):
    make_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    (shard,) = open_pairs(["."]).shards
    monkeypatch.chdir("/")
    assert shard.name == tmp_path.name
    assert [item.path for item in shard.pairs()] == [tmp_path / f"{i}.jpg" for i in range(3)]
