"""Read the tensors of a file that may be hostile. Nothing in the file runs, whatever it is.

Which reader is used is decided by content, never by the file's name:

- **safetensors** is read by its own library, after its header was checked.
- Everything that holds a **pickle** (torch's zip format, TorchScript archives, torch's format before zip, plain pickles)
  is looked through by a child process without torch, whose pickle machine has no way to call anything
  (`clipvet.models._unpickle`). It returns a plan: which tensor lies where. This process checks the plan against the
  bytes and copies them. ``torch.load`` and ``torch.jit.load`` are never used, so ordinary files that
  ``weights_only=True`` refuses (a Dassl checkpoint with its warm-up scheduler, a TorchScript archive) are read too.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, uint8
from torch import bool as torch_bool

from clipvet.errors import HostileFileError, UnreadableError
from clipvet.models._anomalies import describe_anomalies
from clipvet.models._archive import ZIP_ERRORS, Archive
from clipvet.models._assemble import Bytes, build_tensors
from clipvet.models._delivery import resolve_delivery
from clipvet.models._names import clean, is_ordinary
from clipvet.models._plan_of import Plan, ReadLimits, RefusedError, plan_archive, plan_stream
from clipvet.types import FileRecord, Finding, Skipped

__all__ = ["ReadLimits", "TensorFile", "find_anomalies", "read_tensors", "resolve_delivery", "sha256_of"]

_MAX_HEADER_BYTES = 32 << 20
_MAX_INDEX_BYTES = 64 << 20
_MAX_SHARDS = 1000
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """What a file held.

    ``tensors`` are flat, by name: taken out of their envelope, nested dicts joined with dots, leading ``module.`` and
    ``_orig_mod.`` removed where every name has them; contiguous, on the CPU, in the file's dtypes. A file that is one
    bare tensor has the name ``""``. ``extras`` are small plain values that stood beside them (epoch, metadata),
    ``envelope`` the key that held the tensors, ``prefix`` what was removed from all their names, ``skipped`` what was met and
    not read, ``parts`` the shards of an index.
    """

    tensors: dict[str, Tensor]
    record: FileRecord
    extras: dict[str, Any] = field(default_factory=dict)
    envelope: str = ""
    prefix: str = ""
    skipped: tuple[Skipped, ...] = ()
    parts: tuple[FileRecord, ...] = ()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in lower-case hexadecimal.

    Raises:
        UnreadableError: There is no such regular file.
    """
    try:
        with _open(path, ReadLimits(max_file_bytes=1 << 62)) as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except UnreadableError as error:
        raise _sentence(path, error) from error


def find_anomalies(file: TensorFile) -> list[Finding]:
    """State what is wrong with a file that could be read all the same.

    Args:
        file: What `read_tensors` returned.

    Returns:
        One finding each for values that are not finite (high), names of code that ordinary checkpoints do not carry
        (critical: whoever opens the file with plain pickle runs it), complex values (medium), and names that training
        code leaves behind (info).

    Fails when:
        Code is hidden where no pickle names it, or an attacker reuses the names of ordinary training classes, which do
        nothing when they are called.
    """
    records = (file.record, *file.parts)
    return describe_anomalies(file.tensors, tuple(name for record in records for name in record.stubbed_globals))


_LIMITS = ReadLimits()


def read_tensors(path: Path, *, limits: ReadLimits = _LIMITS) -> TensorFile:
    """Read the tensors of one file, or of the shards that an ``*.index.json`` lists, without running anything in it.

    Args:
        path: A checkpoint file; for a folder see `resolve_delivery`.
        limits: What the file may ask for.

    Returns:
        The tensors and what stood beside them; `find_anomalies` says what is odd about them.

    Raises:
        HostileFileError: It names code and holds no tensors, or asks for more than the limits allow.
        UnreadableError: It is missing, cut off, damaged, or no checkpoint format that is understood.
    """
    try:
        with _open(path, limits) as handle:
            before = os.fstat(handle.fileno())
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
            record = FileRecord(path=str(path), size=before.st_size, sha256=digest)
            found = _read(path, handle, record, limits)
            after = path.stat()
    except (UnreadableError, *_EXPECTED) as error:
        raise _sentence(path, error) from error
    if (before.st_ino, before.st_size, before.st_mtime_ns) != (after.st_ino, after.st_size, after.st_mtime_ns):
        raise UnreadableError(f"{_show(path)}: it changed while it was read; try again when nothing writes to it")
    if not found.tensors:
        raise _sentence(path, _no_tensors(found.record.stubbed_globals))
    tensors, prefix = _strip_prefixes(found.tensors)
    return replace(found, tensors=tensors, prefix=prefix)


# What hostile bytes were seen to provoke in zipfile, json, safetensors and torch. Bugs of ours look the same here, so
# the cause stays attached to the sentence.
_EXPECTED = (*ZIP_ERRORS, SafetensorError, OSError, MemoryError, KeyError, TypeError, IndexError)


def _sentence(path: Path, error: Exception) -> UnreadableError:
    if not isinstance(error, UnreadableError):
        return UnreadableError(
            f"{_show(path)}: it is cut off or damaged ({type(error).__name__}: {clean(str(error))}); "
            "ask for the file again and compare its SHA-256"
        )
    names = [name for name in getattr(error, "stubbed", ()) if not is_ordinary(name)]
    if names:
        return HostileFileError(f"{_show(path)}: {error}, and it names code ({', '.join(names[:3])}); do not open it")
    kind = HostileFileError if isinstance(error, HostileFileError) else UnreadableError
    return kind(f"{_show(path)}: {error}")


def _no_tensors(stubbed: tuple[str, ...]) -> UnreadableError:
    names = [name for name in stubbed if not is_ordinary(name)]
    if names:
        return HostileFileError(
            f"it names code ({', '.join(names[:3])}) and holds no tensors; do not open it with torch.load or pickle"
        )
    return UnreadableError("it holds no tensors; expected a state dict, a checkpoint with one inside, or a tensor")


def _show(path: Path) -> str:
    return clean(str(path), 500)


def _open(path: Path, limits: ReadLimits) -> FileIO:
    """Open a regular file for reading; devices and pipes would hang."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise UnreadableError("there is no such file; check the path") from error
    if stat.S_ISDIR(found.st_mode):
        raise UnreadableError("expected a file, found a folder; name the checkpoint in it")
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableError("expected a file, found a device or pipe")
    if found.st_size > limits.max_file_bytes:
        raise HostileFileError(f"it has {found.st_size} bytes, more than the limit of {limits.max_file_bytes}")
    # Unbuffered: the child process moves the same file position.
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise UnreadableError(f"it cannot be opened ({error.strerror}); check its permissions") from error


def _read(path: Path, handle: FileIO, record: FileRecord, limits: ReadLimits) -> TensorFile:
    handle.seek(0)
    head = handle.read(64)
    if not head:
        raise UnreadableError("it is empty; ask for the file again")
    if head.startswith(b"version https://git-lfs"):
        raise UnreadableError("it is a Git LFS pointer, not the file itself; fetch it with git lfs pull")
    if head[:1] == b"{" and path.name.endswith(".json"):
        return _read_index(path, handle, record, limits)
    reader: Callable[[Path, FileIO, FileRecord, ReadLimits], TensorFile] = _read_stream
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        reader = _read_archive
    elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        reader = _read_safetensors
    return reader(path, handle, record, limits)


def _read_safetensors(path: Path, handle: FileIO, record: FileRecord, _: ReadLimits) -> TensorFile:
    handle.seek(0)
    length = int.from_bytes(handle.read(8), "little")
    if length > min(_MAX_HEADER_BYTES, record.size - 8):
        raise UnreadableError(f"its header declares {length} bytes, more than a checkpoint needs or the file has")
    tensors = {}
    with safe_open(path, framework="pt") as content:
        for name in content.keys():  # noqa: SIM118 - not a mapping
            # A copy: the library's tensors are windows on the file, which others may change or shorten.
            values = content.get_tensor(name).clone()
            tensors[clean(name)] = values.view(uint8).ne(0) if values.dtype is torch_bool else values
        if len(tensors) != len(content.keys()):
            raise HostileFileError("it holds two tensors of the same printable name")
        metadata = {clean(key): clean(value, 65536) for key, value in (content.metadata() or {}).items()}
    return TensorFile(tensors=tensors, extras=metadata, record=replace(record, reader="safetensors"))


def _read_archive(_: Path, handle: FileIO, record: FileRecord, limits: ReadLimits) -> TensorFile:
    archive = Archive(handle, record.size, limits)
    parts = {"data": archive.small("data.pkl")}
    if archive.is_torchscript:
        parts["constants"] = archive.small("constants.pkl")
    plan = plan_archive(parts, limits)
    tensors = build_tensors(plan, archive, limits.budget(record.size))
    return _file(tensors, plan, replace(record, reader="torchscript" if archive.is_torchscript else "torch zip"))


def _read_stream(_: Path, handle: FileIO, record: FileRecord, limits: ReadLimits) -> TensorFile:
    handle.seek(0)
    marked = handle.read(1) == b"\x80"  # what every pickle since protocol 2 begins with
    try:
        plan = plan_stream(handle, record.size, limits)
    except RefusedError as error:
        if marked or error.stubbed:
            raise
        raise UnreadableError(
            "it is no checkpoint that is understood; expected safetensors, a PyTorch file, TorchScript or a pickle"
        ) from error
    tensors = build_tensors(plan, Bytes(handle, plan, record.size), limits.budget(record.size))
    return _file(tensors, plan, replace(record, reader="torch legacy" if plan.legacy else "pickle"))


def _file(tensors: dict[str, Tensor], plan: Plan, record: FileRecord) -> TensorFile:
    return TensorFile(
        tensors=tensors,
        extras=plan.extras,
        envelope=plan.envelope,
        record=replace(record, stubbed_globals=plan.stubbed),
        skipped=tuple(Skipped(what=name or "the whole file", why=why) for name, why in plan.skipped.items()),
    )


def _read_index(path: Path, handle: FileIO, record: FileRecord, limits: ReadLimits) -> TensorFile:
    """Read the shards that a Hugging Face index lists; they must lie beside it."""
    if record.size > _MAX_INDEX_BYTES:
        raise HostileFileError(f"its {record.size} bytes are more than an index of shards needs")
    handle.seek(0)
    try:
        index = json.load(handle)
    except RecursionError as error:
        raise HostileFileError("it nests its JSON endlessly") from error
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UnreadableError("it is JSON without a weight_map; expected an index of shards")
    shards = sorted(set(names.values()))
    if len(shards) > _MAX_SHARDS:
        raise HostileFileError(f"it lists {len(shards)} shards, more than any checkpoint has")
    files = []
    for shard in shards:
        if Path(shard).name != shard or shard in ("", ".", "..") or "\\" in shard or shard.endswith(".json"):
            raise HostileFileError(f"its shard '{clean(shard)}' does not lie beside it")
        files.append(read_tensors(resolve_delivery(path.parent / shard, inside=path.parent), limits=limits))
    return _merge(files, names, record)


def _merge(files: list[TensorFile], names: Mapping[str, Any], record: FileRecord) -> TensorFile:
    tensors: dict[str, Tensor] = {}
    for file in files:
        if tensors.keys() & file.tensors.keys():
            raise HostileFileError("two of its shards hold a tensor of the same name")
        tensors |= file.tensors
    if missing := names.keys() - tensors.keys():
        raise UnreadableError(f"it lists {len(missing)} tensors that its shards do not hold")
    return TensorFile(tensors=tensors, record=replace(record, reader="shards"), parts=tuple(f.record for f in files))


def _strip_prefixes(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Remove what stands before all names; return it too."""
    removed = ""
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), ""):
        tensors = {name[len(prefix) :]: values for name, values in tensors.items()}
        removed += prefix
    return tensors, removed
