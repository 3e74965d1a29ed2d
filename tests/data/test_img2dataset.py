import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipvet.data.sources import open_pairs
from tests.data.pair_files import picture, read_shard, sample, write_parquet, write_tar


def download(folder, shard, keys, failed=(), stats=True):
    """One shard of a download: the tar holds the successes, the table every address."""
    every = sorted([*keys, *failed])
    write_tar(folder / f"{shard}.tar", [m for i, key in enumerate(keys) for m in sample(key, f"caption {key}", i)])
    record(folder, shard, every, failed)
    if stats:
        statistics(folder, shard, len(every), len(keys))


def record(folder, shard, every, failed, **columns):
    write_parquet(
        folder / f"{shard}.parquet",
        url=[f"http://example.org/{key}" for key in every],
        key=every,
        status=["failed_to_download" if key in failed else "success" for key in every],
        error_message=["404" if key in failed else None for key in every],
        **columns,
    )


def statistics(folder, shard, count, successes):
    (folder / f"{shard}_stats.json").write_text(json.dumps({"count": count, "successes": successes}))


def test_a_failed_download_is_counted_by_its_key(tmp_path):
    download(tmp_path, "00000", ["000000000", "000000002"], failed=["000000001", "000000003"])
    source = open_pairs([tmp_path])
    assert source.kind == "img2dataset (tar)"
    assert source.notes == ()
    pairs, unread = read_shard(source.shards[0])
    assert list(pairs) == ["000000000", "000000002"]
    assert pairs["000000002"].caption == "caption 000000002"
    assert unread == {"download failed": ["000000001", "000000003"]}


def test_what_only_the_tar_or_only_the_table_has_is_said(tmp_path):
    download(tmp_path, "00000", ["000000000", "000000001"])
    write_tar(tmp_path / "00000.tar", [*sample("000000001"), *sample("added1"), *sample("added2")])
    (shard,) = open_pairs([tmp_path]).shards
    pairs, unread = read_shard(shard)
    assert list(pairs) == ["000000001", "added1", "added2"]
    assert unread == {"not in the shard": ["000000000"], "not in the table of downloads": ["00000.parquet"]}
    assert [item.why for item in shard.pairs() if item.key == "00000.parquet"] == [
        "2 pairs of the shard have no row in it: added1, added2"
    ]


def test_unfinished_shards_are_noted(tmp_path):
    for i in range(3):
        download(tmp_path, f"0000{i}", [f"0000{i}0000"], stats=i == 0)
    record(tmp_path, "00003", ["000030000"], [])
    assert open_pairs([tmp_path]).notes == (
        "2 of 3 shards have no _stats.json, so their download is unfinished: 00001.tar, 00002.tar.",
        "1 tables of downloads have no tar file beside them: 00003.parquet.",
    )


@pytest.mark.parametrize("stats", [True, False])
def test_a_single_shard_is_unfinished_without_its_statistics(tmp_path, stats):
    download(tmp_path, "00000", ["000000000"], stats=stats)
    assert len(open_pairs([tmp_path]).notes) == (not stats)


def test_a_table_that_cannot_be_read_does_not_cost_the_tar(tmp_path):
    download(tmp_path, "00000", ["000000000"])
    data = (tmp_path / "00000.parquet").read_bytes()
    (tmp_path / "00000.parquet").write_bytes(data[:-100])
    pairs, unread = read_shard(open_pairs([tmp_path]).shards[0])
    assert list(pairs) == ["000000000"]
    assert unread == {"table of downloads cannot be read": ["00000.parquet"]}


def test_a_table_of_something_else_is_not_joined(tmp_path):
    write_tar(tmp_path / "x.tar", sample("a"))
    write_parquet(tmp_path / "x.parquet", a=[1])
    source = open_pairs([tmp_path])
    assert source.kind == "webdataset (tar)"
    assert read_shard(source.shards[0])[1] == {}


def test_the_table_is_filtered_beside_the_tar(tmp_path):
    download(tmp_path, "00000", [f"{i:09}" for i in range(5)], failed=["000000009"])
    (shard,) = open_pairs([tmp_path]).shards
    kept = shard.write_kept({"000000001", "000000003", "000000009"}, tmp_path / "out")
    assert [path.name for path in kept.files] == ["00000.tar", "00000.parquet", "00000_stats.json"]
    assert (kept.kept, kept.dropped) == (2, 3)
    before, after = pq.read_table(tmp_path / "00000.parquet"), pq.read_table(tmp_path / "out" / "00000.parquet")
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.to_pylist() == [row for row in before.to_pylist() if row["key"] in ("000000001", "000000003")]
    assert (tmp_path / "out" / "00000_stats.json").read_bytes() == (tmp_path / "00000_stats.json").read_bytes()
    pairs, unread = read_shard(open_pairs([tmp_path / "out"]).shards[0])
    assert list(pairs) == ["000000001", "000000003"]
    assert unread == {}


def files(folder, shard, keys, failed=()):
    (folder / shard).mkdir()
    for i, key in enumerate(keys):
        (folder / shard / f"{key}.jpg").write_bytes(picture(i))
        (folder / shard / f"{key}.txt").write_text(f"caption {key}")
        (folder / shard / f"{key}.json").write_text(json.dumps({"uid": f"u{key}", "caption": "other"}))
    record(folder, shard, sorted([*keys, *failed]), failed)
    statistics(folder, shard, len(keys) + len(failed), len(keys))


def test_the_layout_of_files(tmp_path):
    files(tmp_path, "00000", ["000000000", "000000001"], failed=["000000002"])
    files(tmp_path, "00001", ["000010000"])
    source = open_pairs([tmp_path], rows=1)  # a table is joined to a whole folder
    assert source.kind == "img2dataset (files)"
    assert [shard.name for shard in source.shards] == ["00000", "00001"]
    assert source.notes == ()
    pairs, unread = read_shard(source.shards[0])
    assert [(p.key, p.image, p.caption, p.uid, p.path) for p in pairs.values()] == [
        (f"00000000{i}", picture(i), f"caption 00000000{i}", f"u00000000{i}", tmp_path / "00000" / f"00000000{i}.jpg")
        for i in range(2)
    ]
    assert unread == {"download failed": ["000000002"]}


def test_no_folder_of_a_download_is_left_out(tmp_path):
    files(tmp_path, "00000", ["000000000"])
    files(tmp_path, "00001", ["000010000"])
    for rest in ("00001.parquet", "00001_stats.json"):
        (tmp_path / rest).unlink()
    source = open_pairs([tmp_path])
    assert [list(read_shard(shard)[0]) for shard in source.shards] == [["000000000"], ["000010000"]]
    assert source.notes == ("1 of 2 shards have no _stats.json, so their download is unfinished: 00001.",)
    (tmp_path / "loose.jpg").write_bytes(picture(0))
    (shard,) = open_pairs([tmp_path]).shards
    assert read_shard(shard)[1] == {"no caption": ["loose"]}


@pytest.mark.parametrize("encoding", ["jpg", "png", "webp"])
def test_the_layout_of_parquet(tmp_path, encoding):
    keys = [f"{i:09}" for i in range(3)]
    record(
        tmp_path,
        "00000",
        keys,
        failed=["000000001"],
        txt=["one", None, "three"],
        **{encoding: pa.array([picture(0), None, picture(2)], pa.binary())},
    )
    statistics(tmp_path, "00000", 3, 2)
    source = open_pairs([tmp_path])
    assert source.kind == "img2dataset (parquet)"
    assert source.mapping == {"image": encoding, "caption": "txt", "id": "key"}
    pairs, unread = read_shard(source.shards[0])
    assert [(p.key, p.image, p.caption) for p in pairs.values()] == [
        ("000000000", picture(0), "one"),
        ("000000002", picture(2), "three"),
    ]
    assert unread == {"download failed": ["000000001"]}
