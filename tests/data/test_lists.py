import csv
import io
import json

import pytest

from clipvet.data.sources import open_pairs
from clipvet.errors import UnreadableError, UsageError
from tests.data.pair_files import picture, read_shard


def images(folder, count):
    for i in range(count):
        (folder / f"{i}.jpg").write_bytes(picture(i))


def write_csv(path, rows, separator=",", end="\r\n"):
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator=end).writerows(rows)
    path.write_bytes(text.getvalue().encode())
    return path


def only_shard(path, **columns):
    (shard,) = open_pairs([path], **columns).shards
    return shard


CAPTIONS = ["plain", "with, comma", 'with "quotes"', "with\nline", "tab\there", "naïve 猫", "", "  spaces "]


@pytest.mark.parametrize(
    ("name", "separator", "header"),
    [
        ("open_clip.csv", "\t", ["filepath", "title"]),
        ("cleanclip.csv", ",", ["image", "caption"]),
        ("x.tsv", "\t", ["image", "caption"]),
        ("x.csv", ";", ["filepath", "text"]),
        ("x.csv", "|", ["filepath", "text"]),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_become_pairs_in_their_order(tmp_path, name, separator, header, end):
    images(tmp_path, len(CAPTIONS))
    path = write_csv(tmp_path / name, [header, *([f"{i}.jpg", c] for i, c in enumerate(CAPTIONS))], separator, end)
    source = open_pairs([path])
    assert source.kind == "list of images"
    assert source.mapping == {"image": header[0], "caption": header[1], "id": "(number of the row)"}
    assert [(p.key, p.image, p.caption, p.path) for p in source.shards[0].pairs()] == [
        (f"{i:09}", picture(i), caption, tmp_path / f"{i}.jpg") for i, caption in enumerate(CAPTIONS)
    ]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    images(tmp_path, 1)
    (tmp_path / "x.csv").write_bytes("\ufeffimage,caption,id\n0.jpg,a,k\n".encode())
    pairs, _ = read_shard(only_shard(tmp_path / "x.csv"))
    assert list(pairs) == ["k"]


def test_a_list_is_cut_where_rows_begin(tmp_path):
    images(tmp_path, 23)
    captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(23)]
    path = write_csv(tmp_path / "x.csv", [["image", "caption"], *([f"{i}.jpg", c] for i, c in enumerate(captions))], end="\n")
    shards = open_pairs([path], rows=5).shards
    assert [shard.name for shard in shards] == [f"x-{i:05}" for i in range(5)]
    assert len({shard.identity for shard in shards}) == 5
    read = [list(shard.pairs()) for shard in shards]
    assert [len(part) for part in read] == [5, 5, 5, 5, 3]
    assert [(p.key, p.caption) for part in read for p in part] == [(f"{i:09}", c) for i, c in enumerate(captions)]


def test_blank_lines_are_no_rows(tmp_path):
    images(tmp_path, 4)
    (tmp_path / "x.csv").write_text("image,caption\n\n0.jpg,a\n\n\n1.jpg,b\n2.jpg,c\n\n3.jpg,d\n\n")
    assert [p.caption for shard in open_pairs([tmp_path / "x.csv"], rows=2).shards for p in shard.pairs()] == list("abcd")


def test_what_is_no_pair_costs_its_row_only(tmp_path):
    images(tmp_path, 1)
    (tmp_path / "dir.jpg").mkdir()
    rows = [
        b"image,caption",
        b"0.jpg,good",
        b"0.jpg",
        b"0.jpg,a,b",
        b"gone.jpg,c",
        b"0.jpg,caf\xe9",
        b"a\0b.jpg,c",
        b"dir.jpg,c",
        b",c",
        b"https://example.org/a.jpg,c",
        b"x" * 5000 + b".jpg,c",
        b"0.jpg,nul\0in it",
        b"caf\xe9.jpg,c",
    ]
    (tmp_path / "x.csv").write_bytes(b"\n".join(rows))
    pairs, unread = read_shard(only_shard(tmp_path / "x.csv"))
    assert [(key, p.caption) for key, p in pairs.items()] == [("000000000", "good"), ("000000010", "nul\0in it")]
    assert {kind: [int(key) for key in keys] for kind, keys in unread.items()} == {
        "row cannot be read": [1, 2],
        "file not found": [3, 6, 11],
        "caption is not UTF-8": [4],
        "file cannot be read": [5, 9],
        "no image": [7],
        "image is an address": [8],
    }
    for item in only_shard(tmp_path / "x.csv").pairs():
        assert (item.why if hasattr(item, "why") else item.caption).encode()  # a report can hold it


def test_a_file_name_that_is_no_utf8_is_found(tmp_path):
    (tmp_path / "caf\udce9.jpg").write_bytes(b"i")
    (tmp_path / "x.csv").write_bytes(b"image,caption\ncaf\xe9.jpg,c\n")
    assert [p.image for p in only_shard(tmp_path / "x.csv").pairs()] == [b"i"]


def test_paths_are_tried_from_the_list_and_then_from_where_one_works(tmp_path, monkeypatch):
    for folder in ("list", "work"):
        (tmp_path / folder).mkdir()
    images(tmp_path / "work", 2)
    path = write_csv(tmp_path / "list" / "x.csv", [["image", "caption"], ["gone.jpg", "a"], ["1.jpg", "b"]])
    monkeypatch.chdir(tmp_path / "work")
    source = open_pairs([path])
    assert source.notes == (f"Relative image paths in x.csv start from {tmp_path / 'work'}.",)
    monkeypatch.chdir("/")
    assert [p.path for p in read_shard(source.shards[0])[0].values()] == [tmp_path / "work" / "1.jpg"]
    images(tmp_path / "list", 2)
    monkeypatch.chdir(tmp_path / "work")
    assert [p.path for p in read_shard(only_shard(path))[0].values()] == [tmp_path / "list" / "1.jpg"]
    monkeypatch.chdir(tmp_path)
    (nowhere,) = open_pairs([write_csv(tmp_path / "y.csv", [["image", "caption"], ["gone.jpg", "a"]])]).notes
    assert nowhere.startswith("None of the first image paths in y.csv exists")


def test_absolute_paths_are_read_as_trainers_read_them(tmp_path):
    (tmp_path / "lists").mkdir()
    images(tmp_path, 2)
    path = write_csv(tmp_path / "lists" / "x.csv", [["image", "caption"], [tmp_path / "0.jpg", "a"], ["../1.jpg", "b"]])
    pairs, unread = read_shard(only_shard(path))
    assert [p.image for p in pairs.values()] == [picture(0), picture(1)]
    assert unread == {}


def test_hugging_faces_metadata_does_not_lead_out_of_its_folder(tmp_path):
    (tmp_path / "train").mkdir()
    images(tmp_path, 1)
    images(tmp_path / "train", 2)
    lines = [
        {"file_name": "0.jpg", "text": "a"},
        {"file_name": "../0.jpg", "text": "b"},
        {"file_name": str(tmp_path / "0.jpg"), "text": "c"},
        {"file_name": "1.jpg"},
        {"file_name": ["1.jpg"], "text": "d"},
        {"file_name": "1.jpg", "text": "\ud800"},
    ]
    data = "\n\n".join(map(json.dumps, lines)) + "\n{broken\n[]\n"
    (tmp_path / "train" / "metadata.jsonl").write_text(data)
    (tmp_path / "0.jpg").unlink()
    source = open_pairs([tmp_path], rows=100)
    assert source.kind == "folder with a list of images"
    pairs, unread = read_shard(source.shards[0])
    assert [(p.caption, p.path) for p in pairs.values()] == [("a", tmp_path / "train" / "0.jpg")]
    assert {kind: [int(key) for key in keys] for kind, keys in unread.items()} == {
        "path outside the folder": [1, 2],
        "no caption": [3],
        "no image": [4],
        "caption is not UTF-8": [5],
        "row cannot be read": [6, 7],
    }


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_kept_rows_stand_as_they_stood(tmp_path, name):
    (tmp_path / "in").mkdir()
    images(tmp_path / "in", len(CAPTIONS))
    rows = [{"file_name": f"{i}.jpg", "id": f"k{i % 7}", "text": caption} for i, caption in enumerate(CAPTIONS)]
    path = tmp_path / "in" / name
    if name.endswith("csv"):
        write_csv(path, [list(rows[0]), *(row.values() for row in rows)])
    else:
        path.write_text("\n".join(map(json.dumps, rows)))  # no line end behind the last
    kept = only_shard(path).write_kept({"k0", "k3", "k6"}, tmp_path / "out")
    assert kept.files == (tmp_path / "out" / name,)
    assert (kept.kept, kept.dropped) == (3, 5)
    text = kept.files[0].read_bytes().decode()
    read = list(csv.DictReader(io.StringIO(text))) if name.endswith("csv") else [json.loads(line) for line in text.splitlines()]
    assert read == [rows[0], rows[3], rows[6]]
    written, source = kept.files[0].read_bytes(), path.read_bytes()
    assert all(line in source for line in written.split(b"\n"))
    with pytest.raises(UsageError, match="another folder"):
        only_shard(path).write_kept(set(), path.parent)


def test_a_cut_list_is_written_in_parts_with_the_header(tmp_path):
    images(tmp_path, 4)
    path = write_csv(tmp_path / "x.tsv", [["filepath", "title"], *([f"{i}.jpg", f"c{i}"] for i in range(4))], "\t", "\n")
    kept = [shard.write_kept({"000000001", "000000002"}, tmp_path / "out") for shard in open_pairs([path], rows=2).shards]
    assert [(one.files[0].name, one.files[0].read_text()) for one in kept] == [
        ("x-00000.tsv", "filepath\ttitle\n1.jpg\tc1\n"),
        ("x-00001.tsv", "filepath\ttitle\n2.jpg\tc2\n"),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "column with images in .*, found none"),
        (b"image,caption\n", "expected pairs in .*, found none"),
        (b"a,b\n1,2\n", "column with images in .*, found a, b"),
        (b"image,image,caption\na,b,c\n", "expected one column image"),
        (b"\xff\xfei\0m\0a\0g\0e\0", "column with images"),
        (b"image,caption\na," + b'"' + b"x\n" * 10**5, "field larger than field limit"),
        (b"image,caption\n" + b"x" * (2 << 20), "lines of at most 1,048,576 bytes"),
        (b"image\rcaption\ra", "new-line character"),
    ],
)
def test_what_is_no_list_is_one_error(tmp_path, data, message):
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises((UsageError, UnreadableError), match=message):
        open_pairs([tmp_path / "x.csv"])


def test_lists_with_different_columns_are_not_mixed(tmp_path):
    images(tmp_path, 1)
    one = write_csv(tmp_path / "a.csv", [["image", "caption"], ["0.jpg", "a"]])
    other = write_csv(tmp_path / "b.csv", [["filepath", "title"], ["0.jpg", "a"]])
    with pytest.raises(UsageError, match=r"image and caption in .*a\.csv; filepath and title in .*b\.csv"):
        open_pairs([one, other])
    write_csv(other, [["caption", "image"], ["a", "0.jpg"]])
    assert len(open_pairs([one, other]).shards) == 2
