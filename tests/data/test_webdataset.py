import io
import json
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipvet.data.pairs import Unread
from clipvet.data.sources import open_pairs
from clipvet.errors import UnwritableError, UsageError
from tests.data.pair_files import member, picture, read_shard, sample, write_tar


def only_shard(path, **columns):
    (shard,) = open_pairs([path], **columns).shards
    return shard


def test_samples_become_pairs_in_their_order(tmp_path):
    write_tar(tmp_path / "00000.tar", [m for i in range(3) for m in sample(f"{i:09}", f"caption {i}", i, uid=f"{i:032x}")])
    source = open_pairs([tmp_path / "00000.tar"])
    (shard,) = source.shards
    assert shard.name == "00000"
    assert shard.embeddings() is None
    assert source.kind == "webdataset (tar)"
    assert source.mapping == {"image": "jpg", "caption": "txt", "id": "(name of the member)", "uid": "json: uid"}
    assert [(p.key, p.image, p.caption, p.uid, p.path) for p in shard.pairs()] == [
        (f"{i:09}", picture(i), f"caption {i}", f"{i:032x}", None) for i in range(3)
    ]


def test_the_key_ends_at_the_first_dot_of_the_last_part_and_keeps_the_folder(tmp_path):
    names = ["./a.b/c.jpg", "./a.b/c.txt", "a.b/d.jpg", "a.b/d.seg.png", "a.b/d.txt", "e.JPG", "e.Txt"]
    write_tar(tmp_path / "x.tar", [member(name, b"words") for name in names])
    pairs, unread = read_shard(only_shard(tmp_path / "x.tar"))
    assert list(pairs) == ["a.b/c", "a.b/d", "e"]
    assert unread == {}


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "PNG"])
@pytest.mark.parametrize("caption", ["txt", "text", "caption"])
def test_extensions_of_images_and_captions(tmp_path, extension, caption):
    write_tar(tmp_path / "x.tar", [member(f"a.{extension}", b"i"), member(f"a.{caption}", b"c")])
    pairs, _ = read_shard(only_shard(tmp_path / "x.tar"))
    assert (pairs["a"].image, pairs["a"].caption) == (b"i", "c")


def test_a_caption_may_stand_in_the_record(tmp_path):
    record = {"caption": "of the record", "top_caption": "other", "id": 7}
    members = [member("a.jpg", b"i"), member("a.json", json.dumps(record).encode())]
    write_tar(tmp_path / "x.tar", members)
    assert read_shard(only_shard(tmp_path / "x.tar"))[0]["a"].caption == "of the record"
    pair = read_shard(only_shard(tmp_path / "x.tar", caption_col="top_caption", id_col="id"))[0]["a"]
    assert (pair.caption, pair.uid) == ("other", "7")


def test_a_member_can_be_named_where_there_are_several(tmp_path):
    members = [member(f"a.{name}", name.encode()) for name in ("jpg", "png", "txt", "text")]
    write_tar(tmp_path / "x.tar", members)
    assert read_shard(only_shard(tmp_path / "x.tar"))[1] == {"several images": ["a"]}
    assert read_shard(only_shard(tmp_path / "x.tar", image_col="png"))[1] == {"several captions": ["a"]}
    pair = read_shard(only_shard(tmp_path / "x.tar", image_col="png", caption_col="text"))[0]["a"]
    assert (pair.image, pair.caption) == (b"png", "text")


def test_an_unknown_member_is_an_error_that_lists_what_there_is(tmp_path):
    write_tar(tmp_path / "x.tar", sample("a"))
    with pytest.raises(UsageError, match=r"'alt' in x\.tar, found jpg, json, txt, caption, key: name one"):
        open_pairs([tmp_path / "x.tar"], caption_col="alt")
    with pytest.raises(UsageError, match="'webp'"):
        open_pairs([tmp_path / "x.tar"], image_col="webp")


IMAGE, TEXT = ("a.jpg", b"i"), ("a.txt", b"c")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([IMAGE], {"no caption": ["a"]}),
        ([TEXT], {"no image": ["a"]}),
        ([("a.md", b"x")], {"no image": ["a"]}),
        ([IMAGE, ("a.json", b'{"caption": ["x"]}')], {"no caption": ["a"]}),
        ([IMAGE, ("a.json", b"{"), TEXT], {"JSON cannot be read": ["a"]}),
        ([IMAGE, ("a.json", b"[" * 10**6), TEXT], {"JSON cannot be read": ["a"]}),
        ([IMAGE, ("a.json", b"[]"), TEXT], {"JSON cannot be read": ["a"]}),
        ([IMAGE, ("a.txt", b"\xff")], {"caption is not UTF-8": ["a"]}),
        ([IMAGE, ("a.json", b'{"caption": "\\ud800"}')], {"caption is not UTF-8": ["a"]}),
        ([IMAGE, IMAGE, TEXT], {"duplicate member": ["a"]}),
        ([IMAGE, ("a.JPG", b"j"), TEXT], {"duplicate member": ["a"]}),
        ([("._a.jpg", b"x")], {"macOS metadata": ["._a.jpg"]}),
        ([(".DS_Store", b"x"), ("README", b"x"), ("a.", b"x")], {"no key in the name": [".DS_Store", "README", "a."]}),
        ([("/etc/a.jpg", b"x"), ("../a.jpg", b"x"), ("b/../../a.txt", b"x")], {"path outside the archive": 3}),
    ],
)
def test_what_is_no_pair_is_counted_by_its_kind(tmp_path, members, expected):
    write_tar(tmp_path / "x.tar", [*sample("good"), *(member(*one) for one in members)])
    pairs, unread = read_shard(only_shard(tmp_path / "x.tar"))
    assert list(pairs) == ["good"]
    assert {kind: keys if isinstance(expected[kind], list) else len(keys) for kind, keys in unread.items()} == expected


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"])
def test_only_plain_files_are_looked_into(tmp_path, kind):
    odd = member("a.jpg", type=kind, linkname="/etc/passwd")
    write_tar(tmp_path / "x.tar", [odd, member("a.txt", b"c"), *sample("b")])
    pairs, unread = read_shard(only_shard(tmp_path / "x.tar"))
    assert list(pairs) == ["b"]
    assert unread == {"not a plain file": ["a.jpg"], "no image": ["a"]}


def test_a_directory_holds_nothing_and_parts_nothing(tmp_path):
    image, caption = member("d/a.jpg", b"i"), member("d/a.txt", b"c")
    write_tar(tmp_path / "x.tar", [member("d", type=tarfile.DIRTYPE), image, member("d/e", type=tarfile.DIRTYPE), caption])
    pairs, unread = read_shard(only_shard(tmp_path / "x.tar"))
    assert list(pairs) == ["d/a"]
    assert unread == {}


def test_members_of_one_key_must_be_neighbours(tmp_path):
    parted = [member("a.jpg", b"i"), *sample("b"), member("a.txt", b"c"), *sample("b")]
    write_tar(tmp_path / "x.tar", parted)
    pairs, unread = read_shard(only_shard(tmp_path / "x.tar"))
    assert list(pairs) == ["b"]
    assert unread == {"no caption": ["a"], "members not adjacent": ["a"], "duplicate key": ["b"]}


def test_a_member_larger_than_any_image_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("clipvet.data._tar.LIMIT", 1000)
    write_tar(tmp_path / "x.tar", [member("a.jpg", bytes(1001)), member("a.txt", b"c"), *sample("b")])
    pairs, unread = read_shard(only_shard(tmp_path / "x.tar"))
    assert list(pairs) == ["b"]
    assert unread == {"file too large": ["a.jpg"], "no image": ["a"]}


def test_a_name_that_is_no_unicode_is_written_out(tmp_path):
    members = [member("caf\udce9.jpg", b"i"), member("caf\udce9.txt", b"c")]
    write_tar(tmp_path / "x.tar", members)
    pairs, _ = read_shard(only_shard(tmp_path / "x.tar"))
    assert list(pairs) == ["caf\\udce9"]


def test_the_identity_changes_with_the_file(tmp_path):
    shard = only_shard(write_tar(tmp_path / "x.tar", sample("a")))
    before = shard.identity
    assert only_shard(tmp_path / "x.tar").identity == before
    write_tar(tmp_path / "x.tar", [*sample("a"), *sample("b"), *sample("c")])
    assert shard.identity != before


def members_of(path):
    """What the standard library finds: name, header fields and bytes."""
    with tarfile.open(path) as archive:
        return [
            (i.name, i.size, i.mtime, i.mode, i.uid, i.uname, i.pax_headers, archive.extractfile(i).read())
            for i in archive.getmembers()
        ]


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_kept_samples_are_copied_to_the_byte(tmp_path, layout):
    """Names above 100 bytes and attributes take headers of their own, which must come along."""
    long = "n" * 90 + "/" + "k" * 60
    with tarfile.open(tmp_path / "x.tar", "w", format=layout) as archive:
        for key in ("a", long, "b", "c"):
            for info, data in [*sample(key), member(f"{key}.npy", bytes(3000), mode=0o600, uname="me")]:
                archive.addfile(info, io.BytesIO(data))
    kept = only_shard(tmp_path / "x.tar").write_kept({long, "c"}, tmp_path / "out")
    assert (kept.files, kept.kept, kept.dropped) == ((tmp_path / "out" / "x.tar",), 2, 2)
    assert members_of(kept.files[0]) == [m for m in members_of(tmp_path / "x.tar") if m[0].startswith((long, "c."))]
    assert kept.files[0].stat().st_size % 512 == 0
    assert read_shard(only_shard(kept.files[0]))[1] == {}


def test_only_pairs_are_kept_whatever_is_asked_for(tmp_path):
    class Everything:
        def __contains__(self, key):
            return True

    odd = [member("../e.jpg", b"x"), member("no.jpg", b"i"), member("a.jpg", b"i"), member("a.txt", b"again")]
    path = write_tar(tmp_path / "x.tar", [*sample("a"), *odd, *sample("b")], tail=b"")
    path.write_bytes(path.read_bytes()[:-500])  # the padding of the last member is missing too
    kept = only_shard(path).write_kept(Everything(), tmp_path / "out")
    assert [m[0] for m in members_of(kept.files[0])] == ["a.jpg", "a.json", "a.txt", "b.jpg", "b.json", "b.txt"]
    assert kept.files[0].stat().st_size % 512 == 0
    assert (kept.kept, kept.dropped) == (2, 2)
    assert read_shard(only_shard(kept.files[0]))[1] == {}


def test_the_input_is_never_written_over(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "x.tar", sample("a"))
    before = path.read_bytes()
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, Path(), tmp_path / "y" / ".."):
        with pytest.raises(UsageError, match="another folder than the input's"):
            only_shard(path).write_kept({"a"}, folder)
    assert path.read_bytes() == before


def test_what_cannot_be_written_whole_is_not_written(tmp_path, monkeypatch):
    shard = only_shard(write_tar(tmp_path / "x.tar", sample("a")))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clipvet.data.webdataset._copy", full)
    with pytest.raises(UnwritableError, match="No space left"):
        shard.write_kept({"a"}, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableError, match="file"):
        shard.write_kept({"a"}, tmp_path / "file")


NAMES = st.sampled_from(
    ["a.jpg", "a.txt", "a.json", "a.npy", "b.png", "b.txt", "d/a.jpg", "./d/a.txt", "._b.png", "x", "../b.txt", ".h"]
)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE])


@settings(max_examples=150, deadline=None)
@given(members=st.lists(st.tuples(NAMES, KINDS), max_size=12), cut=st.integers(0, 3000))
def test_everything_in_a_tar_is_part_of_a_pair_or_unread(members, cut):
    """The oracle is a plain loop over the names as they were written."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_tar(Path(folder) / "x.tar", [member(name, b"{}", type=kind) for name, kind in members])
        data = path.read_bytes()
        path.write_bytes(data[: max(512, len(data) - cut)])
        items = list(only_shard(path).pairs())
    cut_off = any(isinstance(item, Unread) and item.kind == "archive cut off" for item in items)
    told = {item.key for item in items}
    for name, _ in members:
        folder, _, base = name.removeprefix("./").rpartition("/")
        key = "/".join(filter(None, [folder, base.split(".")[0]]))
        assert key in told or name in told or cut_off, name
    pairs = [item.key for item in items if not isinstance(item, Unread)]
    assert len(pairs) == len(set(pairs))
