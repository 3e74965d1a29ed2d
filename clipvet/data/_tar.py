"""Read a tar file strictly: every member in its turn, nothing extracted, and whatever is odd is said.

The members' headers are read by the standard library; their data by their place in the file, so that a member is known by the
bytes that it takes up and can be copied as it is.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clipvet.data._reading import LIMIT, clean
from clipvet.data.pairs import ARCHIVE_CUT, Unread
from clipvet.errors import UnreadableError

__all__ = ["END", "Member", "read_members"]

END = bytes(2 * tarfile.BLOCKSIZE)
_HEADER = 1 << 20  # bytes; a header's extensions are read whole by the standard library, whatever length they claim
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One regular file of an archive.

    Attributes:
        key: its path up to the first dot of the last part, without a leading ``./``.
        extension: the rest, in lower case, as the field's readers take it.
        start: of its header, in bytes.
        stop: of its data and their padding.
        data: where they were asked for; else None.
    """

    key: str
    extension: str
    start: int
    stop: int
    data: bytes | None


class _Bounded(io.BufferedReader):
    """A file of which only little is read at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def read_members(path: Path, wants: Callable[[str], bool]) -> Iterator[Member | Unread]:
    """Yield every member that holds data, and an Unread for what is no plain file, has no key, or is not there to its end.

    Args:
        path: of the archive.
        wants: tells by the extension whether the data are needed.

    Raises:
        UnreadableError: it is not there, or no uncompressed tar file.
    """
    try:
        file = _Bounded(io.FileIO(path))
    except OSError as error:
        raise UnreadableError(f"{path}: expected a tar file, could not open it ({error.strerror}); check the path") from error
    with file, path.open("rb") as contents:
        try:
            archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  # closing it would do nothing: it does not own the file
        except Exception as error:  # a stranger's header raises anything: TarError, ValueError, OverflowError, RecursionError ...
            raise UnreadableError(f"{path}: expected a tar file, {_found(path)} ({error}); unpack or fetch it again") from error
        try:
            yield from _walk(archive, contents, wants)
        except OSError as error:  # of the disk or the network
            raise UnreadableError(f"{path}: expected to read on, could not ({error.strerror}); try again") from error


def _found(path: Path) -> str:
    with path.open("rb") as file:
        first = file.read(8)
    return next((f"found one compressed by {name}" for magic, name in _PACKED.items() if first.startswith(magic)), "found none")


def _walk(archive: tarfile.TarFile, contents: io.BufferedReader, wants: Callable[[str], bool]) -> Iterator[Member | Unread]:
    name = clean(Path(contents.name).name)
    length = contents.seek(0, io.SEEK_END)
    before = 0
    while True:
        try:
            info = archive.next()
        except Exception as error:  # as above; nothing behind a damaged header can be found
            yield Unread(key=name, kind=ARCHIVE_CUT, why=f"a header in the middle is damaged ({error})")
            return
        if info is None:
            yield from _ending(contents, archive.offset, name)
            return
        if info.size < 0 or archive.offset <= before:  # it would be read for ever
            yield Unread(key=name, kind=ARCHIVE_CUT, why=f"the header of {clean(info.name)!r:.200} leads backwards")
            return
        before = archive.offset
        # they are never looked up, and a shard may have millions
        archive.members.clear()  # type: ignore[attr-defined]  # the stubs lack it
        if info.isreg() and info.offset_data + info.size > length:
            why = f"{length - info.offset_data:,} of {info.size:,} bytes are there"
            yield Unread(key=clean(info.name), kind=ARCHIVE_CUT, why=why)
            return
        if info.isdir() and not _outside(info.name):  # it holds nothing
            continue
        kind, why = _refused(info)
        if kind:
            yield Unread(key=clean(info.name), kind=kind, why=why)
        else:
            yield _member(info, contents, archive.offset, wants)


def _refused(info: tarfile.TarInfo) -> tuple[str, str]:
    """Return why a member is not looked into, or two empty strings."""
    base = info.name.rpartition("/")[2]
    stem, _, extension = base.partition(".")
    if _outside(info.name):
        return "path outside the archive", "its name is absolute or leads upwards"
    if not info.isreg() or info.issparse():
        return "not a plain file", "it is a link, a device or a file with holes"
    if base.startswith("._"):
        return "macOS metadata", "it holds a file's attributes, not the file"
    if not stem or not extension:
        return "no key in the name", "a key and an extension are told by the first dot of the name"
    if info.size > LIMIT:
        return "file too large", f"it has {info.size:,} bytes, more than {LIMIT:,}"
    return "", ""


def _outside(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _member(info: tarfile.TarInfo, contents: io.BufferedReader, stop: int, wants: Callable[[str], bool]) -> Member:
    folder, slash, base = info.name.removeprefix("./").rpartition("/")
    stem, _, extension = base.partition(".")
    extension = clean(extension.lower())
    data = None
    if wants(extension):
        contents.seek(info.offset_data)
        data = contents.read(info.size)
    return Member(key=clean(folder + slash + stem), extension=extension, start=info.offset, stop=stop, data=data)


def _ending(contents: io.BufferedReader, offset: int, name: str) -> Iterator[Unread]:
    """Look at what stands where the next header would: the standard library takes anything for the end."""
    contents.seek(offset)
    block = contents.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        yield Unread(key=name, kind=ARCHIVE_CUT, why="the mark of its end is missing")
    elif any(block):
        yield Unread(key=name, kind=ARCHIVE_CUT, why=f"there is no valid header at byte {offset:,}")
    else:
        while chunk := contents.read(_HEADER):
            if any(chunk):
                yield Unread(key=name, kind="data after the end", why="there is more behind the mark of the archive's end")
                return
