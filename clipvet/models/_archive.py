"""Look at a zip archive's directory before anything in it is unpacked, and hand out members within limits."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from io import FileIO
from typing import IO

from clipvet.errors import HostileFileError, UnreadableError
from clipvet.models._names import clean
from clipvet.models._plan_of import ReadLimits

__all__ = ["ZIP_ERRORS", "Archive"]

_MAX_DIRECTORY_BYTES = 32 << 20
_CHUNK = 8 << 20
_CUT_OFF = "it is cut off: a tensor's values end early"
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    EOFError,
)


class Archive:
    """A zip archive as torch writes it: one folder with ``data.pkl``, ``data/*`` and a few notes.

    Args:
        handle: The open file.
        size: Its length in bytes.
        limits: What it may ask for.

    Raises:
        HostileFileError: Encrypted, duplicate or overlapping members, names that point elsewhere, or members that would
            unpack to more than the limits allow.
        UnreadableError: Not a zip archive, or not one that torch writes.
    """

    def __init__(self, handle: FileIO, size: int, limits: ReadLimits) -> None:
        if _directory_bytes(handle, size) > _MAX_DIRECTORY_BYTES:
            raise HostileFileError("its zip directory lists far more members than any checkpoint has")
        self._handle = handle
        self._zip = zipfile.ZipFile(handle)
        self._limits = limits
        members = self._zip.infolist()
        _check_names(members)
        _check_packing(members, size)
        unpacked = sum(member.file_size for member in members)
        if unpacked > limits.budget(size):
            raise HostileFileError(f"its {size} bytes would unpack to {unpacked} (a zip bomb)")
        self._members = {member.filename: member for member in members}
        roots = [name[: -len("data.pkl")] for name in self._members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(roots) != 1:
            raise UnreadableError(f"it is a zip archive with {len(roots)} data.pkl where a PyTorch file has one")
        self.root = roots[0]
        order = self.small("byteorder")
        if order.strip() not in (b"", b"little"):
            raise UnreadableError("its numbers are stored in big-endian order; save it again on a little-endian machine")

    @property
    def is_torchscript(self) -> bool:
        """Whether ``torch.jit.save`` wrote it."""
        return f"{self.root}constants.pkl" in self._members

    def small(self, name: str) -> bytes:
        """The content of a member that is parsed whole, b"" where it is missing."""
        member = self._members.get(self.root + name)
        if member is None:
            return b""
        if member.file_size > self._limits.max_pickle_bytes:
            raise HostileFileError(f"its {name} is {member.file_size} bytes, beyond what a checkpoint needs")
        return self._zip.read(member)

    def nbytes(self, source: str, key: str) -> int:
        """Length of a storage in bytes, -1 where there is none of that key."""
        member = self._members.get(f"{self.root}{source}/{key}")
        return -1 if member is None else member.file_size

    def read_into(self, source: str, key: str, target: memoryview) -> None:
        """Fill ``target``, as long as the storage, with its bytes, and check them against the archive's checksum."""
        member = self._members[f"{self.root}{source}/{key}"]
        with self._zip.open(member) as packed:  # checks the local header against the directory
            if member.compress_type == zipfile.ZIP_STORED:
                self._copy(member, target)
            else:
                _unpack(packed, target)
        if zlib.crc32(target) != member.CRC:
            raise UnreadableError("it is damaged: a tensor's values do not match their checksum")

    def _copy(self, member: zipfile.ZipInfo, target: memoryview) -> None:
        """Read a stored member straight into place, which is several times faster than through zipfile."""
        self._handle.seek(member.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", self._handle.read(4))
        self._handle.seek(name_length + extra_length, os.SEEK_CUR)
        while target:
            count = self._handle.readinto(target)
            if not count:
                raise UnreadableError(_CUT_OFF)
            target = target[count:]


def _unpack(packed: IO[bytes], target: memoryview) -> None:
    while target:
        piece = packed.read(min(_CHUNK, len(target)))
        if not piece:
            raise UnreadableError(_CUT_OFF)
        target[: len(piece)] = piece
        target = target[len(piece) :]


def _directory_bytes(handle: FileIO, size: int) -> int:
    """Length that the end-of-archive record declares for the directory; zipfile reads that much before any check."""
    span = min(size, 22 + 65535)
    handle.seek(size - span)
    tail = handle.read(span)
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) < end + 22:
        raise UnreadableError("it begins as a zip archive but has no directory: it is cut off or damaged")
    declared: int = struct.unpack_from("<I", tail, end + 12)[0]
    locator = tail[end - 20 : end] if end >= 20 else b""
    if not locator.startswith(b"PK\6\7"):
        return declared
    position: int = struct.unpack_from("<Q", locator, 8)[0]
    if position > size - 56:
        raise UnreadableError("its zip directory lies outside the file: it is cut off or damaged")
    handle.seek(position)
    wide: int = struct.unpack_from("<Q", handle.read(56), 40)[0]
    return max(declared if declared != 0xFFFFFFFF else 0, wide)


def _check_names(members: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for member in members:
        name = member.orig_filename
        parts = name.replace("\\", "/").split("/")
        if name != member.filename or "\0" in name or "\\" in name or ".." in parts or not parts[0] or ":" in parts[0]:
            raise HostileFileError(f"its member '{clean(name)}' has a name that points outside the archive")
        if member.flag_bits & 0x1:
            raise HostileFileError(f"its member '{clean(name)}' is encrypted")
        if name in seen:
            raise HostileFileError(f"its member '{clean(name)}' is there twice, so readers would disagree about it")
        seen.add(name)


def _check_packing(members: list[zipfile.ZipInfo], size: int) -> None:
    position = 0
    for member in sorted(members, key=lambda m: m.header_offset):
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise HostileFileError(f"its member '{clean(member.filename)}' is compressed in a way that torch never uses")
        if member.header_offset < position:
            raise HostileFileError("its members overlap (a zip bomb)")
        position = member.header_offset + 30 + len(member.orig_filename) + member.compress_size
    if position > size:
        raise UnreadableError("its members end beyond the end of the file: it is cut off or damaged")
