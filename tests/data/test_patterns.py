import re

import pytest

from clipvet.data.sources import open_pairs
from clipvet.errors import UnreadableError, UsageError
from tests.data.pair_files import sample, write_tar


def keys_of(shard):
    return [item.key for item in shard.pairs()]


def tars(folder, names):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_tar(folder / name, sample(f"{i}"))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{00000..00002}.tar", "012"),
        ("{2..0}.tar", ""),
        ("0000{2..0}.tar", "210"),
        ("{00000,00002}.tar", "02"),
        ("0000[12].tar", "12"),
        ("*.tar", "012"),
        ("**/*.tar", "0123"),
        ("{sub/00003,0000{0,1}}.tar", "301"),
        ("00001.tar::{T}/00000.tar", "10"),
        ("{T}", "0123"),
    ],
)
def test_patterns(tmp_path, monkeypatch, pattern, expected):
    tars(tmp_path, ["00000.tar", "00001.tar", "00002.tar", "sub/00003.tar"])
    monkeypatch.chdir(tmp_path)
    pattern = pattern.replace("{T}", str(tmp_path))
    if not expected:
        with pytest.raises(UnreadableError, match=re.escape(f"found nothing at {pattern}")):
            open_pairs([pattern])
        return
    for source in (pattern, str(tmp_path / pattern) if "::" not in pattern else pattern):
        assert [keys_of(shard) for shard in open_pairs([source]).shards] == [[key] for key in expected]


def test_a_name_that_exists_is_no_pattern(tmp_path):
    tars(tmp_path, ["{0..1}.tar", "a[b].tar", "0.tar"])
    assert [shard.path.name for shard in open_pairs([tmp_path / "{0..1}.tar", str(tmp_path / "a[b].tar")]).shards] == [
        "{0..1}.tar",
        "a[b].tar",
    ]


def test_gaps_are_noted(tmp_path):
    tars(tmp_path, ["00000.tar", "00003.tar"])
    source = open_pairs([tmp_path / "{00000..00003}.tar"])
    assert len(source.shards) == 2
    assert source.notes == (
        f"2 of the files that {tmp_path}/{{00000..00003}}.tar stands for do not exist, the first being 00001.tar, 00002.tar.",
    )


def test_what_is_named_twice_is_read_once(tmp_path):
    tars(tmp_path, ["a.tar", "b.tar"])
    source = open_pairs([tmp_path / "a.tar", tmp_path / "b.tar", tmp_path / "." / "a.tar", tmp_path / "b*.tar"])
    assert [keys_of(shard) for shard in source.shards] == [["0"], ["1"]]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("pipe:curl http://x", "clipvet runs no commands"),
        ("a.tar::pipe:cat b.tar", "clipvet runs no commands"),
        ("https://example.org/{0..9}.tar", "nothing is fetched over the network"),
        ("s3://bucket/0.tar", "got the address s3://bucket/0.tar"),
        ("a.tar::hf://datasets/x", "got the address hf://"),
        ("", "got an empty name"),
        ("{0..99999999999}.tar", "at most 1,000,000 files"),
        ("{0..999}{0..999}{0..999}.tar", "at most 1,000,000 files"),
    ],
)
def test_what_is_no_local_file_is_refused(source, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        open_pairs([source])


def test_a_long_list_of_names_is_a_pattern(tmp_path, monkeypatch):
    tars(tmp_path, ["0.tar"])
    monkeypatch.chdir(tmp_path)
    assert len(open_pairs(["::".join(["0.tar"] * 2000)]).shards) == 1
