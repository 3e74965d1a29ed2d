import io
import tarfile

import pytest

from clipvet.data.sources import open_pairs
from clipvet.errors import UnreadableError
from tests.data.pair_files import member, read_shard, sample, write_tar


def only_shard(path):
    (shard,) = open_pairs([path]).shards
    return shard


def test_wherever_a_tar_is_cut_off_that_is_said_and_what_was_whole_is_read(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", [m for i in range(3) for m in sample(f"k{i}", number=i)])
    with tarfile.open(whole) as archive:
        ends = [info.offset_data + -(-info.size // 512) * 512 for info in archive.getmembers()]
    for length in range(512, ends[-1] + 512, 128):
        (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:length])
        pairs, unread = read_shard(only_shard(tmp_path / "cut.tar"))
        complete = sum(length >= ends[i] for i in (2, 5, 8))
        assert complete <= len(pairs) <= complete + 1  # the last may lack its padding only
        assert len(unread["archive cut off"]) == 1, length
        assert set(unread) <= {"archive cut off", "no image", "no caption"}


def test_damage_in_the_middle_is_said(tmp_path):
    path = write_tar(tmp_path / "x.tar", [*sample("a"), *sample("b")])
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        second = archive.getmember("b.jpg").offset
    data[second + 150] ^= 0xFF  # in the header's checksum
    path.write_bytes(data)
    pairs, unread = read_shard(only_shard(path))
    assert list(pairs) == ["a"]
    assert unread == {"archive cut off": ["x.tar"]}


def test_data_after_the_end_is_said(tmp_path):
    first, second = write_tar(tmp_path / "a.tar", sample("a")), write_tar(tmp_path / "b.tar", sample("b"))
    (tmp_path / "x.tar").write_bytes(first.read_bytes() + second.read_bytes())
    pairs, unread = read_shard(only_shard(tmp_path / "x.tar"))
    assert list(pairs) == ["a"]
    assert unread == {"data after the end": ["x.tar"]}


def header_with(size_field, kind=tarfile.REGTYPE):
    """A header whose field for the size holds anything."""
    block = bytearray(member("a.jpg", type=kind)[0].tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = size_field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (b"\xff" * 12, tarfile.REGTYPE),  # -1
        (b"\xff" * 10 + b"\x00\x00", tarfile.REGTYPE),  # -65,536: back over the whole file
        (b"\x80" + b"\0" * 7 + b"\x10\0\0\0", tarfile.REGTYPE),
        (b"\x80" + b"\xff" * 11, tarfile.REGTYPE),
        (b"\x80" + b"\0" * 6 + b"\x10\0\0\0\0", tarfile.XHDTYPE),  # 64 GiB of attributes, which would be read whole
        (b"\xff" * 12, tarfile.XHDTYPE),
        (b"\x80" + b"\xff" * 11, tarfile.GNUTYPE_LONGNAME),
    ],
)
def test_sizes_that_lie_cost_neither_memory_nor_time(tmp_path, size, kind):
    data = write_tar(tmp_path / "a.tar", sample("good"), tail=b"").read_bytes()
    (tmp_path / "x.tar").write_bytes(data + header_with(size, kind) + bytes(4096))
    pairs, unread = read_shard(only_shard(tmp_path / "x.tar"))
    assert list(pairs) == ["good"]
    assert list(unread) == ["archive cut off"]


def test_an_endless_chain_of_attributes_ends(tmp_path):
    data = write_tar(tmp_path / "a.tar", sample("good"), tail=b"").read_bytes()
    (tmp_path / "x.tar").write_bytes(data + header_with(b"00000000000\0", tarfile.XHDTYPE) * 3000 + bytes(1024))
    pairs, unread = read_shard(only_shard(tmp_path / "x.tar"))
    assert list(pairs) == ["good"]
    assert list(unread) == ["archive cut off"]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "empty"),
        (b"not a tar" * 100, "found none"),
        (b"\x1f\x8b\x08" + bytes(600), "gzip"),
        (b"\x28\xb5\x2f\xfd" * 200, "zstd"),
    ],
)
def test_what_is_no_tar_is_one_error(tmp_path, data, found):
    (tmp_path / "x.tar").write_bytes(data)
    shard = only_shard(tmp_path / "x.tar")
    with pytest.raises(UnreadableError, match=rf"x\.tar: expected a tar file.*{found}"):
        list(shard.pairs())


def test_a_tar_that_vanished_is_one_error(tmp_path):
    shard = only_shard(write_tar(tmp_path / "x.tar", sample("a")))
    (tmp_path / "x.tar").unlink()
    assert "missing" in shard.identity
    with pytest.raises(UnreadableError, match="No such file"):
        list(shard.pairs())


def test_attributes_larger_than_any_header_are_not_read(tmp_path):
    (info, data), *others = sample("a")
    info.pax_headers = {"comment": "x" * (2 << 20)}
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for one, content in [*sample("good"), (info, data), *others]:
            archive.addfile(one, io.BytesIO(content))
    pairs, unread = read_shard(only_shard(tmp_path / "x.tar"))
    assert list(pairs) == ["good"]
    assert unread == {"archive cut off": ["x.tar"]}


def test_a_file_with_holes_is_no_plain_file(tmp_path):
    holes = member("a.jpg", type=tarfile.GNUTYPE_SPARSE)
    write_tar(tmp_path / "x.tar", [holes, member("a.txt", b"c"), *sample("good")])
    pairs, unread = read_shard(only_shard(tmp_path / "x.tar"))
    assert list(pairs) == ["good"]
    assert unread == {"not a plain file": ["a.jpg"], "no image": ["a"]}
