import io
import pickle
import struct
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipvet.data.sources import open_pairs
from clipvet.errors import UnreadableError, UsageError
from tests.data.pair_files import write_parquet


def features(rows, seed, width=8, kind=np.float16):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(kind)


def clip_retrieval(root, rows=(5, 3), kinds=("img_emb", "text_emb", "metadata"), **columns):
    for kind in kinds:
        (root / kind).mkdir(parents=True)
    for i, count in enumerate(rows):
        for kind in set(kinds) & {"img_emb", "text_emb"}:
            np.save(root / kind / f"{kind}_{i}.npy", features(count, seed=10 * i + (kind == "text_emb")))
        if "metadata" in kinds:
            write_parquet(
                root / "metadata" / f"metadata_{i}.parquet",
                image_path=["same.jpg"] * count,
                caption=[f"{i} {n}" for n in range(count)],
                **{name: values[i] for name, values in columns.items()},
            )
    return root


def test_clip_retrievals_folders(tmp_path):
    root = clip_retrieval(tmp_path / "e", key=[list("abcde"), list("fgh")])
    source = open_pairs([root])
    assert source.kind == "features (clip-retrieval)"
    assert source.mapping == {"image features": "img_emb", "text features": "text_emb", "caption": "caption", "id": "key"}
    assert [shard.name for shard in source.shards] == ["0", "1"]
    for i, shard in enumerate(source.shards):
        assert list(shard.pairs()) == []
        found = shard.embeddings()
        assert found.keys == tuple(["abcde", "fgh"][i])
        assert found.captions == tuple(f"{i} {n}" for n in range(len(found.keys)))
        assert found.uids is None
        assert isinstance(found.image, np.memmap)
        np.testing.assert_array_equal(found.image, np.load(root / "img_emb" / f"img_emb_{i}.npy"))
        np.testing.assert_array_equal(found.text, np.load(root / "text_emb" / f"text_emb_{i}.npy"))


def test_rows_without_a_key_are_numbered(tmp_path):
    found = open_pairs([clip_retrieval(tmp_path / "a")]).shards[1].embeddings()
    assert found.keys == ("000000000", "000000001", "000000002")
    (shard,) = open_pairs([clip_retrieval(tmp_path / "b", rows=(4,), kinds=["text_emb"])]).shards
    found = shard.embeddings()
    assert (found.image, found.captions) == (None, None)
    assert found.keys == tuple(f"{i:09}" for i in range(4))


def test_parts_are_in_the_order_of_their_numbers(tmp_path):
    root = clip_retrieval(tmp_path / "e", rows=[1] * 12)
    assert [shard.name for shard in open_pairs([root]).shards] == [str(i) for i in range(12)]


def test_a_missing_part_is_an_error(tmp_path):
    root = clip_retrieval(tmp_path / "e")
    (root / "text_emb" / "text_emb_1.npy").unlink()
    with pytest.raises(UnreadableError, match="expected text_emb_1 beside img_emb, metadata"):
        open_pairs([root])


def datacomp(folder, stem, rows, **more):
    arrays = {f"{model}_{side}": features(rows, hash_of(model, side)) for model in ("b32", "l14") for side in ("img", "txt")}
    arrays["l14_txt"] = np.asfortranarray(arrays["l14_txt"])
    np.savez(folder / f"{stem}.npz", **arrays, dedup=np.arange(rows), **more)
    write_parquet(
        folder / f"{stem}.parquet",
        uid=[f"{i:032x}" for i in range(rows)],
        url=["u"] * rows,
        text=["caption", None, *[f"c{i}" for i in range(2, rows)]][:rows],
        sha256=["00"] * rows,
    )
    return arrays


def hash_of(model, side):
    return 2 * (model == "l14") + (side == "img")


@pytest.mark.parametrize(("asked", "model"), [(None, "l14"), ("b32_img", "b32")])
def test_datacomps_arrays(tmp_path, asked, model):
    arrays = datacomp(tmp_path, "00a", 4)
    source = open_pairs([tmp_path], image_col=asked)
    assert source.kind == "features (DataComp)"
    assert source.mapping == {
        "image features": f"{model}_img", "text features": f"{model}_txt", "caption": "text", "id": "uid",
    }  # fmt: skip
    (shard,) = source.shards
    found = shard.embeddings()
    assert found.keys == found.uids == tuple(f"{i:032x}" for i in range(4))
    assert found.captions == ("caption", "", "c2", "c3")
    np.testing.assert_array_equal(found.image, arrays[f"{model}_img"])
    np.testing.assert_array_equal(found.text, arrays[f"{model}_txt"])
    assert open_pairs([tmp_path / "00a.parquet"]).kind == source.kind


def test_an_unknown_array_is_an_error_that_lists_what_there_is(tmp_path):
    datacomp(tmp_path, "00a", 4)
    with pytest.raises(UsageError, match=r"'h14_img' in .*, found b32_img, b32_txt, l14_img, l14_txt, dedup"):
        open_pairs([tmp_path], image_col="h14_img")
    with pytest.raises(UsageError, match="img_emb: leave it out"):
        open_pairs([clip_retrieval(tmp_path / "e")], image_col="x")


@pytest.mark.parametrize("compressed", [False, True])
def test_kept_rows_of_datacomp(tmp_path, compressed):
    (tmp_path / "in").mkdir()
    arrays = datacomp(tmp_path / "in", "00a", 50)
    if compressed:
        np.savez_compressed(tmp_path / "in" / "00a.npz", **arrays, dedup=np.arange(50))
    (shard,) = open_pairs([tmp_path / "in"]).shards
    rows = [3, 4, 40]
    kept = shard.write_kept({f"{i:032x}" for i in rows}, tmp_path / "out")
    assert [path.name for path in kept.files] == ["00a.npz", "00a.parquet"]
    assert (kept.kept, kept.dropped) == (3, 47)
    with np.load(tmp_path / "out" / "00a.npz", allow_pickle=False) as written:
        assert set(written) == {*arrays, "dedup"}
        assert written["dedup"].tolist() == rows
        for name, values in arrays.items():
            np.testing.assert_array_equal(written[name], values[rows])
            assert written[name].dtype == np.float16
    assert pq.read_table(tmp_path / "out" / "00a.parquet")["uid"].to_pylist() == [f"{i:032x}" for i in rows]


def test_kept_rows_of_clip_retrieval(tmp_path, monkeypatch):
    monkeypatch.setattr("clipvet.data._arrays._CHUNK", 2)
    root = clip_retrieval(tmp_path / "e", key=[list("abcde"), list("fgh")])
    shard = open_pairs([root]).shards[0]
    kept = shard.write_kept({"b", "d", "e", "f"}, tmp_path / "out")
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in kept.files) == [
        "img_emb/img_emb_0.npy", "metadata/metadata_0.parquet", "text_emb/text_emb_0.npy",
    ]  # fmt: skip
    assert (kept.kept, kept.dropped) == (3, 2)
    for kind in ("img_emb", "text_emb"):
        whole, part = (np.load(folder / kind / f"{kind}_0.npy") for folder in (root, tmp_path / "out"))
        np.testing.assert_array_equal(part, whole[[1, 3, 4]])
        assert part.dtype == whole.dtype
    again = open_pairs([tmp_path / "out"]).shards[0].embeddings()
    assert again.keys == ("b", "d", "e")
    with pytest.raises(UsageError, match="another folder"):
        shard.write_kept(set(), root)
    none = shard.write_kept(set(), tmp_path / "none")
    assert np.load(none.files[0]).shape == (0, 8)


def test_a_key_that_occurs_twice_is_an_error(tmp_path):
    root = clip_retrieval(tmp_path / "e", rows=(3,), key=[["a", "b", "a"]])
    with pytest.raises(UnreadableError, match="unique keys in key, found a 2 times; name another column"):
        open_pairs([root]).shards[0].embeddings()


class Boom:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def npy(header, data=b""):
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def pickled():
    data = io.BytesIO()
    np.save(data, np.array([[Boom()] * 2] * 5, dtype=object), allow_pickle=True)
    return data.getvalue()


def saved(values, order="C"):
    data = io.BytesIO()
    np.save(data, np.asarray(values, order=order))
    return data.getvalue()


HOSTILE = {
    "pickled": pickled(),
    "only a pickle": pickle.dumps([1]),
    "huge": npy("{'descr': '<f2', 'fortran_order': False, 'shape': (5, 100000000000)}"),
    "huge rows": npy("{'descr': '<f2', 'fortran_order': False, 'shape': (100000000000, 8)}"),
    "overflow": npy("{'descr': '<f2', 'fortran_order': False, 'shape': (5, 9223372036854775808)}"),
    "negative": npy("{'descr': '<f2', 'fortran_order': False, 'shape': (5, -8)}", bytes(80)),
    "cut off": saved(features(5, 0))[:-10],
    "empty": b"",
    "no header": b"\x93NUMPY\x01\x00\xff\xff",
    "code": npy("__import__('os').system('false')"),
    "nested": npy("(" * 110),
    "no literal": npy("{'descr': '<f2', 'fortran_order': False, 'shape': (5, 8"),
    "too few rows": saved(features(4, 0)),
    "too many rows": saved(features(6, 0)),
    "too wide": saved(np.zeros((5, 16_385), np.float16)),
    "a vector": saved(np.zeros(5, np.float16)),
    "a cube": saved(np.zeros((5, 2, 2), np.float16)),
    "integers": saved(np.zeros((5, 8), np.int32)),
    "complex": saved(np.zeros((5, 8), np.complex64)),
    "big-endian": saved(np.zeros((5, 8), ">f4")),
    "a structure": saved(np.zeros((5, 8), [("a", "f4")])),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("packing", ["npy", "stored", "deflated"])
def test_what_is_no_matrix_of_these_rows_is_one_error(tmp_path, case, packing):
    if packing == "npy":
        root = clip_retrieval(tmp_path / "e", rows=(5,))
        (root / "img_emb" / "img_emb_0.npy").write_bytes(HOSTILE[case])
    else:
        root = tmp_path
        datacomp(root, "00a", 5)
        method = zipfile.ZIP_STORED if packing == "stored" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(root / "00a.npz", "w", method) as archive:
            archive.writestr("l14_img.npy", HOSTILE[case])
    (shard,) = open_pairs([root]).shards
    with pytest.raises(UnreadableError, match="one row per pair"):
        shard.embeddings()
    with pytest.raises(UnreadableError, match="one row per pair"):
        shard.write_kept({"000000000"}, tmp_path / "out")
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_an_npz_that_is_none_or_is_cut_off_is_one_error(tmp_path):
    datacomp(tmp_path, "00a", 5)
    (shard,) = open_pairs([tmp_path]).shards
    data = (tmp_path / "00a.npz").read_bytes()
    (tmp_path / "00a.npz").write_bytes(data[:-30])
    with pytest.raises(UnreadableError, match="zip file"):
        shard.embeddings()
    damaged = bytearray(data)
    damaged[data.index(b"l14_img.npy") + 200] ^= 0xFF
    (tmp_path / "00a.npz").write_bytes(damaged)
    with pytest.raises(UnreadableError, match="CRC"):
        shard.embeddings()
    (tmp_path / "00a.npz").write_bytes(b"x")
    with pytest.raises(UnreadableError, match=r"00a\.npz: expected one row per pair"):
        open_pairs([tmp_path])


def test_other_orders_and_precisions(tmp_path):
    root = clip_retrieval(tmp_path / "e", rows=(5,))
    for values in (features(5, 3, kind=np.float32), features(5, 4, kind=np.float64)):
        (root / "img_emb" / "img_emb_0.npy").write_bytes(saved(values, order="F"))
        shard = open_pairs([root]).shards[0]
        np.testing.assert_array_equal(shard.embeddings().image, values)
        kept = shard.write_kept({"000000001", "000000004"}, tmp_path / "out")
        np.testing.assert_array_equal(np.load(kept.files[0]), values[[1, 4]])
