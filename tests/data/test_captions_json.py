import json

import pytest

from clipvet.data.sources import open_pairs
from clipvet.errors import UnreadableError, UsageError
from tests.data.pair_files import picture, read_shard


def coco(path, images, annotations, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "info": {"year": 2014},
        "images": [{"id": key, "file_name": name, "height": 8} for key, name in images],
        "annotations": [{"id": i, "image_id": key, "caption": caption} for i, (key, caption) in enumerate(annotations)],
        **more,
    }
    path.write_text(json.dumps(document))
    return path


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def only_shard(path, **columns):
    (shard,) = open_pairs([path], **columns).shards
    return shard


@pytest.mark.parametrize("place", ["annotations/../val2014", "annotations", "annotations/images", "annotations/train2014"])
def test_every_caption_of_an_image_is_a_pair(tmp_path, place):
    names = [f"COCO_{i:012}.jpg" for i in (9, 5)]
    for i, name in enumerate(names):
        put(tmp_path / place / name, picture(i))
    path = coco(
        tmp_path / "annotations" / "captions_val2014.json",
        [(9, names[0]), (5, names[1])],
        [(5, "five a"), (9, "nine a"), (5, "five b"), (9, "nine b"), (9, "nine c")],
    )
    source = open_pairs([path])
    assert source.kind == "COCO captions"
    assert [(p.key, p.image, p.caption) for p in source.shards[0].pairs()] == [
        *((f"9-{n}", picture(0), f"nine {x}") for n, x in enumerate("abc")),
        *((f"5-{n}", picture(1), f"five {x}") for n, x in enumerate("ab")),
    ]


def test_what_is_no_pair_is_counted(tmp_path):
    put(tmp_path / "in" / "a.jpg", b"i")
    put(tmp_path / "secret.jpg", b"i")
    images = [(1, "a.jpg"), (2, "gone.jpg"), (3, "../secret.jpg"), (4, str(tmp_path / "secret.jpg")), (5, "a.jpg"), (6, None)]
    annotations = [(1, "good"), (1, None), (1, "\ud800"), (2, "c"), (3, "c"), (4, "c"), (6, "c"), (99, "whose?")]
    pairs, unread = read_shard(only_shard(coco(tmp_path / "in" / "x.json", images, annotations)))
    assert list(pairs) == ["1-0"]
    assert unread == {
        "no caption": ["1-1", "5"],
        "caption is not UTF-8": ["1-2"],
        "file not found": ["2-0"],
        "path outside the folder": ["3-0", "4-0"],
        "no image": ["6-0", "99-0"],
    }


def test_karpathys_splits(tmp_path):
    put(tmp_path / "val2014" / "a.jpg", b"a")
    put(tmp_path / "flickr30k-images" / "b.jpg", b"b")
    images = [
        {"filepath": "val2014", "filename": "a.jpg", "imgid": 0, "cocoid": 77, "split": "val", "sentids": [7, 8], "sentences": [
            {"raw": "a one", "tokens": ["a", "one"]}, {"raw": "a two"}]},
        {"filename": "b.jpg", "imgid": 1, "sentids": [9], "sentences": [{"raw": "b one"}]},
        {"filename": "b.jpg", "imgid": 2, "sentences": []},
    ]  # fmt: skip
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    source = open_pairs([tmp_path / "dataset_coco.json"])
    assert source.kind == "Karpathy captions"
    pairs, unread = read_shard(source.shards[0])
    assert [(p.key, p.image, p.caption) for p in pairs.values()] == [
        ("77-0", b"a", "a one"),
        ("77-1", b"a", "a two"),
        ("1-0", b"b", "b one"),
    ]
    assert unread == {"no caption": ["2"]}
    kept = source.shards[0].write_kept({"77-1"}, tmp_path / "out")
    assert json.loads(kept.files[0].read_text()) == {
        "images": [{**images[0], "sentids": [8], "sentences": [{"raw": "a two"}]}],
        "dataset": "coco",
    }
    assert (kept.kept, kept.dropped) == (1, 3)


def test_captions_of_one_image_stay_in_one_shard(tmp_path):
    put(tmp_path / "a.jpg", b"i")
    annotations = [(key, f"{key} {n}") for key in range(6) for n in range(5)]
    path = coco(tmp_path / "x.json", [(key, "a.jpg") for key in range(6)], annotations)
    shards = open_pairs([path], rows=7).shards
    assert [shard.name for shard in shards] == ["x-00000", "x-00001", "x-00002"]
    assert [[p.key for p in shard.pairs()] for shard in shards] == [
        [f"{key}-{n}" for key in keys for n in range(5)] for keys in ((0, 1), (2, 3), (4, 5))
    ]
    assert len({shard.identity for shard in shards}) == 3


def test_kept_captions_keep_their_images_and_nothing_else(tmp_path):
    put(tmp_path / "a.jpg", b"i")
    path = coco(tmp_path / "x.json", [(1, "a.jpg"), (2, "a.jpg"), (3, "a.jpg")], [(1, "a"), (2, "b"), (1, "c")], licenses=["l"])
    kept = only_shard(path).write_kept({"1-1", "3"}, tmp_path / "out")
    before, after = json.loads(path.read_text()), json.loads((tmp_path / "out" / "x.json").read_text())
    assert after == {**before, "images": [before["images"][0]], "annotations": [before["annotations"][2]]}
    assert (kept.kept, kept.dropped) == (1, 3)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "Expecting value"),
        ("[" * 10**5, "recursion"),
        ("[1]", "found list"),
        ('{"info": {}}', "an object with info"),
        ('{"images": [], "annotations": [{"bbox": [], "image_id": 1}]}', "annotations with bbox, image_id"),
        ('{"images": [1], "annotations": []}', "images that is no list of objects"),
        ('{"images": [{"sentences": "x"}]}', "sentences that is no list of objects"),
    ],
)
def test_another_layout_is_one_error(tmp_path, content, found):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UnreadableError, match=found):
        open_pairs([tmp_path / "x.json"])


def test_fields_are_fixed(tmp_path):
    with pytest.raises(UsageError, match="fixed"):
        open_pairs([coco(tmp_path / "x.json", [], [])], caption_col="title")
