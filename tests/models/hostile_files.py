"""Tools to write hostile files: a pickler for any name and call, torch's archive layout, and what a case is."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Build = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Hostile:
    name: str
    kind: str
    build: Build
    match: str
    outcome: str = "refused"  # or "critical", "high", "medium": readable, with a finding of that severity
    fires: bool = False  # whether plain pickle runs it


class Named:
    """Pickles as a global of any name, whether or not that name exists here."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """Pickles as a call of ``target`` (a `Named` or another `Call`)."""

    def __init__(self, target: Any, *args: Any) -> None:
        self.target, self.args = target, args


class Pickler(pickle._Pickler):  # the Python one, which can be taught
    def save(self, obj: Any, save_persistent_id: bool = True) -> Any:
        if isinstance(obj, Named):
            if self.proto >= 4:
                self.save(obj.module)
                self.save(obj.name)
                return self.write(pickle.STACK_GLOBAL)
            return self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
        if isinstance(obj, Call):
            self.save(obj.target)
            self.save(obj.args)
            return self.write(pickle.REDUCE)
        return super().save(obj, save_persistent_id)


def dumps(value: Any, protocol: int = 2) -> bytes:
    out = io.BytesIO()
    Pickler(out, protocol).dump(value)
    return out.getvalue()


class PickleModule:
    """What ``torch.save`` wants as its pickle module."""

    Pickler = Pickler
    __name__ = "pickle"
    dump = staticmethod(lambda obj, file, protocol=2: Pickler(file, protocol).dump(obj))


def raw(content: bytes | Callable[[], bytes]) -> Build:
    return lambda path, _: path.write_bytes(content() if callable(content) else content) and None


def archive(members: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, packing)
    return out.getvalue()


class Storage:
    """Pickles as a persistent id."""

    def __init__(self, kind: str = "FloatStorage", key: Any = "0", numel: Any = 4) -> None:
        self.pid = ("storage", Named("torch", kind), key, "cpu", numel)


class TorchPickler(Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, Storage) else None


def tensor(size: Any, stride: Any, offset: Any = 0, storage: Storage | None = None) -> Call:
    args = (storage or Storage(), offset, size, stride, False, {})
    return Call(Named("torch._utils", "_rebuild_tensor_v2"), *args)


def pickled(tree: Any) -> bytes:
    """One pickle of torch's own kind, with references to storages."""
    out = io.BytesIO()
    TorchPickler(out, 2).dump(tree)
    return out.getvalue()


def plan_zip(tree: Any, members: dict[str, bytes] | None = None, packing: int = zipfile.ZIP_STORED) -> bytes:
    """A torch archive with any ``data.pkl``; its one storage has 4 floats."""
    return archive({"a/data.pkl": pickled(tree), "a/data/0": struct.pack("<4f", 1, 2, 3, 4), **(members or {})}, packing)


def good_zip() -> bytes:
    return plan_zip({"ctx": tensor((2, 2), (2, 1))})
