"""The corpus of hostile files, each built on the fly in a temporary folder; nothing executable is kept."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.models.hostile_files import (
    Build,
    Call,
    Hostile,
    Named,
    Storage,
    archive,
    dumps,
    good_zip,
    pickled,
    plan_zip,
    raw,
    tensor,
)
from tests.models.hostile_payloads import EXECUTION


def encrypted(content: bytes) -> bytes:
    changed = bytearray(content)
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        position = changed.find(signature)
        changed[position + at] |= 1
    return bytes(changed)


def renamed(old: bytes, new: bytes) -> Build:
    """An archive one of whose members got a name that zipfile would not write."""
    return raw(plan_zip(GOOD, {old.decode(): b"1"}).replace(old, new))


def declared(content: bytes, name: bytes, size: int) -> bytes:
    """Change the unpacked size that the directory declares for a member."""
    changed = bytearray(content)
    position = changed.find(b"PK\1\2")
    while changed[position + 46 : position + 46 + len(name)] != name:
        position = changed.find(b"PK\1\2", position + 1)
    struct.pack_into("<I", changed, position + 24, size)
    return bytes(changed)


def overlapping() -> bytes:
    """Two directory entries that share one local header."""
    content = bytearray(archive({"a/data.pkl": dumps({}), "a/data/0": b"1234", "a/data/1": b"1234"}))
    entries = [i for i in range(len(content)) if content[i : i + 4] == b"PK\1\2"]
    struct.pack_into("<I", content, entries[2] + 42, struct.unpack_from("<I", content, entries[1] + 42)[0])
    return bytes(content)


def directory_of_billions() -> bytes:
    content = bytearray(good_zip())
    struct.pack_into("<I", content, content.rfind(b"PK\5\6") + 12, 0x7FFFFFFF)
    return bytes(content)


def deflate_bomb() -> bytes:
    return archive({"a/data.pkl": dumps({}), "a/data/0": bytes(300 << 20)}, zipfile.ZIP_DEFLATED)


def legacy_of_billions() -> bytes:
    """Torch's format before zip: its last word is the length of a storage, in elements."""
    head = dumps(0x1950A86A20F9469CFC6C) + dumps(1001) + dumps({})
    return head + pickled({"ctx": tensor((2,), (1,))}) + dumps(["0"]) + struct.pack("<q", 10**15)


def laughs() -> bytes:
    """Ten lists, each of ten times the one before: 10 billion tensors when walked."""
    level: Any = tensor((2, 2), (2, 1))
    for _ in range(10):
        level = [level] * 10
    return plan_zip({"state_dict": level})


def endless() -> bytes:
    loop: dict[str, Any] = {"ctx": 1}
    loop["self"] = loop
    return plan_zip({"state_dict": loop})


def safetensors(header: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def floats(shape: list[int], end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"ctx": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


def saved(content: Any, **options: Any) -> Build:
    return lambda path, _: torch.save(content, path, **options)


def cut(keep: float, **options: Any) -> Build:
    def build(path: Path, _: Path) -> None:
        torch.save({"state_dict": {"a": torch.ones(64, 64)}}, path, **options)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])

    return build


def cut_safetensors(path: Path, _: Path) -> None:
    save_file({"a": torch.ones(64)}, path)
    path.write_bytes(path.read_bytes()[:-9])


def index(shard: str) -> Build:
    return lambda path, _: path.write_text(json.dumps({"weight_map": {"ctx": shard}})) and None


def linked_shard(path: Path, _: Path) -> None:
    outside = path.parent.parent / "outside.safetensors"
    save_file({"ctx": torch.ones(2)}, outside)
    (path.parent / "shard.safetensors").symlink_to(outside)
    path.write_text(json.dumps({"weight_map": {"ctx": "shard.safetensors"}}))


def fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def nan(value: float, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    values = torch.ones(3, 4)
    values[1, 2] = value
    return {"ctx": values.to(dtype), "token_prefix": torch.ones(2)}


NO_STORAGE = Call(Named("torch._utils", "_rebuild_tensor_v2"), 1, 0, (), ())
GOOD = {"ctx": tensor((2, 2), (2, 1))}
NOT_A_TYPE = "shape or stride that is not a short list"


def one(size: Any, stride: Any, offset: Any = 0, **storage: Any) -> Build:
    """An archive with one tensor as described."""
    return raw(plan_zip({"ctx": tensor(size, stride, offset, Storage(**storage))}))


BOMBS = [
    Hostile("deflate bomb", "bomb", raw(deflate_bomb), "zip bomb"),
    Hostile("deflated pickle bomb", "bomb", raw(lambda: plan_zip({"a": "x" * (1 << 24), **GOOD}, packing=8)), "beyond what"),
    Hostile("unpacked size of 4 GiB declared", "bomb", raw(declared(good_zip(), b"a/data/0", 0xFFFFFFF0)), "zip bomb"),
    Hostile("overlapping members", "bomb", raw(overlapping()), "overlap"),
    Hostile("directory of billions", "bomb", raw(directory_of_billions()), "far more members"),
    Hostile("expanded to 10^12", "bomb", one((10**6, 10**6), (0, 0)), "would take"),
    Hostile("10^18 elements declared", "bomb",
            one((10**9, 10**9), (10**9, 1), numel=10**18), "does not hold"),
    Hostile("legacy, 10^15 elements", "bomb", raw(legacy_of_billions), "cut off"),
    Hostile("billion laughs", "bomb", raw(laughs), "more than 100000 tensors"),
    Hostile("dict inside itself", "bomb", raw(endless), "nests its content endlessly"),
    Hostile("lists 10^5 deep", "bomb", raw(b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."), "nests its content"),
    Hostile("tuples 10^5 deep", "bomb", raw(b"\x80\x02)" + b"\x85" * 10**5 + b"."), "nests its content"),
    Hostile("deep tuple as a key", "bomb", raw(b"\x80\x02})" + b"\x85" * 10**5 + b"Ns."), "no tensors"),
    Hostile("2^62 bytes of text declared", "bomb", raw(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x."), "larger|cut off"),
    Hostile("2 GiB number declared", "bomb", raw(b"\x80\x02\x8b\xff\xff\xff\x7f1."), "larger|cut off"),
    Hostile("number of 10^6 digits", "bomb", raw(b"I" + b"9" * 10**6 + b"\n."), "no checkpoint"),
    Hostile("memo of two million dicts", "bomb", raw(b"\x80\x04(" + b"}\x94" * (1 << 21) + b"l."), "memory|longer"),
    Hostile("safetensors, 10^18 elements", "bomb", raw(safetensors(floats([10**9, 10**9], 4), bytes(4))), "damaged"),
    Hostile("safetensors, header of 2^39 bytes", "bomb", raw(safetensors(floats([1], 4), b"", 1 << 39)), "declares"),
    Hostile("JSON index 10^5 deep", "bomb", raw(b"{\"weight_map\":" + b"[" * 10**5), "endlessly"),
]  # fmt: skip

TRUNCATED = [
    Hostile("empty", "truncated", raw(b""), "empty"),
    Hostile("one byte", "truncated", raw(b"\x80"), "cut off"),
    Hostile("empty zip", "truncated", raw(archive({})), "0 data.pkl"),
    Hostile("zip cut at half", "truncated", cut(0.5), "cut off"),
    Hostile("zip cut near the end", "truncated", cut(0.99), "cut off"),
    Hostile("legacy cut in its values", "truncated", cut(0.9, _use_new_zipfile_serialization=False), "cut off"),
    Hostile("legacy cut in its pickle", "truncated", cut(0.005, _use_new_zipfile_serialization=False), "cut off"),
    Hostile("safetensors cut", "truncated", cut_safetensors, "damaged"),
    Hostile("no checkpoint at all", "truncated", raw(b"<!DOCTYPE html><html>404</html>"), "no checkpoint"),
    Hostile("Git LFS pointer", "truncated", raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
    Hostile("storage missing", "truncated", raw(archive({"a/data.pkl": pickled(GOOD)})), "does not hold"),
    Hostile("CRC does not match", "truncated", raw(good_zip().replace(struct.pack("<f", 4), struct.pack("<f", 5))), "checksum"),
]  # fmt: skip

NOT_FINITE = [
    Hostile("NaN in fp32", "not finite", saved(nan(float("nan"), torch.float32)), "ctx", "high"),
    Hostile("Inf in fp16", "not finite", saved({"state_dict": nan(float("inf"), torch.float16)}), "ctx", "high"),
    Hostile("-Inf in bf16, legacy", "not finite",
            saved(nan(float("-inf"), torch.bfloat16), _use_new_zipfile_serialization=False), "ctx", "high"),
    Hostile("NaN in safetensors", "not finite", lambda path, _: save_file(nan(float("nan"), torch.float64), path), "ctx", "high"),
    Hostile("NaN in a numpy array", "not finite", saved({"ctx": np.array([1.0, np.nan])}), "ctx", "high"),
    Hostile("NaN in complex", "not finite", saved({"ctx": torch.tensor([complex("nan")])}), "ctx", "high"),
    Hostile("NaN in 8-bit floats", "not finite", saved(nan(float("nan"), torch.float8_e4m3fn)), "ctx", "high"),
]  # fmt: skip

SHAPES = [
    Hostile("reaches beyond its storage", "shape", one((3, 2), (2, 1)), "beyond the end"),
    Hostile("offset beyond its storage", "shape", one((1,), (1,), 4), "beyond the end"),
    Hostile("negative offset", "shape", one((1,), (1,), -1), "without offset"),
    Hostile("negative size", "shape", one((-1, 2), (2, 1)), NOT_A_TYPE),
    Hostile("negative stride", "shape", one((2, 2), (-2, 1)), NOT_A_TYPE),
    Hostile("size of text", "shape", one("22", (2, 1)), NOT_A_TYPE),
    Hostile("size of 65 dimensions", "shape", one((1,) * 65, (1,) * 65), NOT_A_TYPE),
    Hostile("sizes and strides of other lengths", "shape", one((2, 2), (1,)), "do not fit each other"),
    Hostile("storage larger than its bytes", "shape", one((9,), (1,), numel=9), "does not hold"),
    Hostile("wider dtype than its bytes", "shape", one((4,), (1,), kind="DoubleStorage"), "does not hold"),
    Hostile("unknown dtype", "shape", one((4,), (1,), kind="QInt8Storage"), "unknown kind"),
    Hostile("storage key is a number", "shape", one((4,), (1,), key=7), "unknown kind"),
    Hostile("no storage", "shape", raw(plan_zip({"ctx": NO_STORAGE})), "without a storage"),
    Hostile("two tensors of one name", "shape", raw(plan_zip({"a": {"b": GOOD["ctx"]}, "a.b": GOOD["ctx"]})), "two tensors named"),
    Hostile("complex weights", "shape", saved({"ctx": torch.ones(2, dtype=torch.complex64)}), "complex", "medium"),
    Hostile("safetensors of an unknown dtype", "shape", raw(safetensors(floats([1], 4, "F99"), bytes(4))), "damaged"),
    Hostile("safetensors with overlapping tensors", "shape", raw(safetensors(
        {**floats([1], 4), "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))), "damaged"),
]  # fmt: skip

PATHS = [
    Hostile("zip member with ..", "path", raw(plan_zip(GOOD, {"a/../../x": b"1"})), "outside the archive"),
    Hostile("zip member, absolute", "path", raw(plan_zip(GOOD, {"/etc/x": b"1"})), "outside the archive"),
    Hostile("zip member with a backslash", "path", raw(plan_zip(GOOD, {"a\\..\\x": b"1"})), "outside the archive"),
    Hostile("zip member with NUL", "path", renamed(b"a/q-x", b"a/q\0x"), "outside the archive"),
    Hostile("zip member with a drive", "path", raw(plan_zip(GOOD, {"C:/x": b"1"})), "outside the archive"),
    Hostile("zip member twice", "path", renamed(b"a/data/9", b"a/data/0"), "twice"),
    Hostile("zip member encrypted", "path", raw(encrypted(good_zip())), "encrypted"),
    Hostile("storage key with ..", "path", one((4,), (1,), key="../../etc/passwd"), "does not hold"),
    Hostile("index with ..", "path", index("../x.safetensors"), "does not lie beside"),
    Hostile("index, absolute", "path", index("/etc/passwd"), "does not lie beside"),
    Hostile("index with NUL", "path", index("a\0b"), "no such file"),
    Hostile("index of itself", "path", index("x.index.json"), "does not lie beside"),
    Hostile("index whose shard is a link", "path", linked_shard, "leads out of the folder"),
    Hostile("named pipe", "path", fifo, "device or pipe"),
]  # fmt: skip

CORPUS = [*EXECUTION, *BOMBS, *TRUNCATED, *NOT_FINITE, *SHAPES, *PATHS]
QUOTAS = {"execution": 35, "bomb": 15, "truncated": 10, "not finite": 5, "shape": 12, "path": 10}


def write(case: Hostile, folder: Path) -> tuple[Path, Path]:
    """Build one case in its own folder; return the file and the marker that its payload would create."""
    place = folder / case.name.replace("/", "_").replace(" ", "_")
    place.mkdir(parents=True)
    path = place / ("x.index.json" if "index" in case.name else "x.pth.tar-3")
    marker = place / "marker"
    case.build(path, marker)
    return path, marker


__all__ = ["CORPUS", "QUOTAS", "Hostile", "write"]
