import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipvet.data.sources import open_pairs
from clipvet.errors import UnreadableError, UsageError
from tests.data.pair_files import picture, read_shard, write_parquet


def only_shard(path, **columns):
    (shard,) = open_pairs([path], **columns).shards
    return shard


def test_rows_become_pairs_in_their_order(tmp_path):
    path = write_parquet(
        tmp_path / "x.parquet", image=[picture(i) for i in range(200)], text=[f"c{i}" for i in range(200)], n=[0] * 200
    )
    source = open_pairs([path])
    assert source.kind == "parquet"
    assert source.mapping == {"image": "image", "caption": "text", "id": "(number of the row)"}
    assert [(p.key, p.image, p.caption, p.path) for p in source.shards[0].pairs()] == [
        (f"{i:09}", picture(i), f"c{i}", None) for i in range(200)
    ]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
)
def test_types_of_text(tmp_path, kind):
    captions = pa.array(["a", "b", None], pa.binary() if kind == pa.binary() else pa.string()).cast(kind)
    path = write_parquet(tmp_path / "x.parquet", image=[b"i"] * 3, caption=captions, uid=captions)
    pairs, unread = read_shard(only_shard(path))
    assert [(p.key, p.caption, p.uid) for p in pairs.values()] == [("a", "a", "a"), ("b", "b", "b")]
    assert unread == {"no caption": ["000000002"]}


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_types_of_bytes(tmp_path, kind):
    path = write_parquet(tmp_path / "x.parquet", jpg=pa.array([b"i", None], pa.binary()).cast(kind), txt=["a", "b"])
    pairs, unread = read_shard(only_shard(path))
    assert [p.image for p in pairs.values()] == [b"i"]
    assert unread == {"no image": ["000000001"]}


def test_a_caption_that_is_no_utf8_costs_its_row(tmp_path):
    captions = pa.array([b"a", b"\xff\xfe", b"c"], pa.binary()).view(pa.string())
    path = write_parquet(tmp_path / "x.parquet", image=[b"i"] * 3, text=captions)
    pairs, unread = read_shard(only_shard(path))
    assert [p.caption for p in pairs.values()] == ["a", "c"]
    assert unread == {"caption is not UTF-8": ["000000001"]}


def test_hugging_faces_images(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.jpg").write_bytes(b"file")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    images = [
        {"bytes": b"own", "path": "a.jpg"},
        {"bytes": None, "path": "b.jpg"},
        {"bytes": None, "path": "../secret.jpg"},
        {"bytes": None, "path": str(tmp_path / "secret.jpg")},
        {"bytes": None, "path": "gone.jpg"},
        {"bytes": None, "path": None},
        None,
    ]
    path = write_parquet(tmp_path / "in" / "x.parquet", image=images, caption=[f"c{i}" for i in range(7)])
    pairs, unread = read_shard(only_shard(path))
    assert [(p.image, p.path) for p in pairs.values()] == [(b"own", None), (b"file", tmp_path / "in" / "b.jpg")]
    assert unread == {
        "path outside the folder": ["000000002", "000000003"],
        "file not found": ["000000004"],
        "no image": ["000000005", "000000006"],
    }


def test_paths_start_from_the_table_or_from_where_one_works(tmp_path, monkeypatch):
    for folder in ("data", "work"):
        (tmp_path / folder).mkdir()
    (tmp_path / "work" / "a.jpg").write_bytes(b"i")
    path = write_parquet(tmp_path / "data" / "x.parquet", path=["gone.jpg", "a.jpg"], text=["one", "two"])
    monkeypatch.chdir(tmp_path / "work")
    source = open_pairs([path])
    assert source.notes == (f"Relative image paths in x.parquet start from {tmp_path / 'work'}.",)
    monkeypatch.chdir("/")  # as in another process
    pairs, unread = read_shard(source.shards[0])
    assert [p.path for p in pairs.values()] == [tmp_path / "work" / "a.jpg"]
    assert unread == {"file not found": ["000000000"]}


def test_a_repeated_key_is_no_second_pair(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", image=[b"1", b"2", b"3"], text=list("abc"), id=[7, 7, 8])
    pairs, unread = read_shard(only_shard(path))
    assert [(p.key, p.image) for p in pairs.values()] == [("7", b"1"), ("8", b"3")]
    assert unread == {"duplicate key": ["7"]}


def test_two_captions_of_one_image_are_two_pairs_unless_its_hash_is_asked_for(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", image=[b"1", b"1"], text=["a", "b"], sha256=["00", "00"])
    assert list(read_shard(only_shard(path))[0]) == ["000000000", "000000001"]
    assert list(read_shard(only_shard(path, id_col="sha256"))[0]) == ["00"]


def test_columns_can_be_named_and_are_found_in_any_case(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", Image=[b"i"], TEXT=["t"], caption=["c"], better=["b"], SAMPLE_ID=[5])
    source = open_pairs([path])
    assert source.mapping == {"image": "Image", "caption": "caption", "id": "SAMPLE_ID"}
    assert source.notes == ("Captions are taken from caption; TEXT may hold some too (--caption-col).",)
    source = open_pairs([path], caption_col="better", image_col="Image", id_col="TEXT")
    assert source.notes == ()
    assert [(p.key, p.caption) for p in source.shards[0].pairs()] == [("t", "b")]


@pytest.mark.parametrize(
    ("columns", "asked", "message"),
    [
        ({"image": [b"i"], "text": ["t"]}, {"caption_col": "alt"}, "'alt' in .*, found image, text: name one of these"),
        ({"URL": ["u"], "TEXT": ["t"]}, {}, "column with images in .*, found URL, TEXT: .*--image-col; .* downloaded first"),
        ({"jpg": [b"i"], "words": ["t"]}, {}, "column with captions in .*, found jpg, words: name it with --caption-col"),
    ],
)
def test_a_missing_column_is_an_error_that_lists_what_there_is(tmp_path, columns, asked, message):
    with pytest.raises(UsageError, match=message):
        open_pairs([write_parquet(tmp_path / "x.parquet", **columns)], **asked)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"image": [1], "text": ["t"]}, "image, found numbers"),
        ({"image": [b"i"], "text": [["t", "u"]]}, "text, found list"),
        ({"image": [{"x": 1}], "text": ["t"]}, "image, found struct"),
        ({"image": [{"bytes": 1}], "text": ["t"]}, "image, found struct"),
        ({"image": [b"i"], "text": ["t"], "id": [[1]]}, "id, found list"),
    ],
)
def test_a_column_of_another_type_is_one_error(tmp_path, columns, found):
    with pytest.raises(UnreadableError, match=found):
        open_pairs([write_parquet(tmp_path / "x.parquet", **columns)])


def test_a_later_file_without_the_columns_is_one_error_of_its_own(tmp_path):
    write_parquet(tmp_path / "a.parquet", image=[b"i"], text=["t"])
    write_parquet(tmp_path / "b.parquet", image=[b"i"], words=["t"])
    write_parquet(tmp_path / "c.parquet", image=[1], text=["t"])
    first, second, third = open_pairs([tmp_path]).shards
    assert len(list(first.pairs())) == 1
    with pytest.raises(UnreadableError, match=r"b\.parquet: expected one column text, found image, words"):
        list(second.pairs())
    with pytest.raises(UnreadableError, match=r"c\.parquet: expected bytes or text or images in the column image, found numbers"):
        list(third.pairs())


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"x" * 1000])
def test_what_is_no_parquet_is_one_error(tmp_path, data):
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(UnreadableError, match=r"x\.parquet: expected a parquet file"):
        open_pairs([tmp_path / "x.parquet"])


def test_damage_further_on_is_said_once(tmp_path):
    rows = 300
    table = pa.table({"image": [bytes([i % 256]) * 2000 for i in range(rows)], "text": ["t"] * rows})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=100, compression="none", use_dictionary=False)
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    place = pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(2).column(0).data_page_offset
    data[place : place + 16] = b"\xff" * 16
    (tmp_path / "x.parquet").write_bytes(data)
    pairs, unread = read_shard(only_shard(tmp_path / "x.parquet"))
    assert 128 <= len(pairs) < rows
    assert unread == {"table cut off": ["x.parquet"]}
    with pytest.raises(UnreadableError, match="cannot be read"):
        only_shard(tmp_path / "x.parquet").write_kept({"000000000"}, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
def test_kept_rows_have_the_same_schema(tmp_path, compression):
    rows = 2500
    schema = pa.schema(
        [("id", pa.string()), ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("caption", pa.string())],
        metadata={b"huggingface": b'{"info": {}}'},
    )
    values = [{"id": f"k{i % 2400}", "image": {"bytes": b"%d" % i, "path": "p"}, "caption": f"c{i}"} for i in range(rows)]
    pq.write_table(pa.Table.from_pylist(values, schema), tmp_path / "x.parquet", compression=compression)
    keep = {f"k{i}" for i in range(0, rows, 7)}
    kept = only_shard(tmp_path / "x.parquet").write_kept(keep, tmp_path / "out")
    expected = [row for i, row in enumerate(values) if row["id"] in keep and i < 2400]
    written = pq.ParquetFile(kept.files[0])
    assert written.read().to_pylist() == expected
    assert written.schema_arrow.equals(schema, check_metadata=True)
    assert written.metadata.row_group(0).column(0).compression.lower().replace("uncompressed", "none") == compression
    assert (kept.kept, kept.dropped) == (len(expected), rows - len(expected))


def test_nothing_kept_is_a_table_without_rows(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", image=[b"i"], text=["t"])
    kept = only_shard(path).write_kept(set(), tmp_path / "out")
    assert pq.read_table(kept.files[0]).num_rows == 0
