"""What all readers of pairs share: why something is no pair, files within a limit, and names that can be printed."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from clipvet.data.pairs import Pair, Unread

__all__ = [
    "LIMIT",
    "UnfitError",
    "attempt",
    "chosen",
    "clean",
    "identity",
    "inside",
    "json_object",
    "read_file",
    "row_key",
    "text",
    "unique",
]

LIMIT = 256 * 2**20  # bytes of one image, caption or record: a training pair needs no more
_LONGEST = 300  # characters of a reason


class UnfitError(Exception):
    """Why something is no pair; caught by :func:`attempt` and never shown as an error.

    Args:
        kind: a few fixed words that reasons are counted by.
        why: one clause with what was found.
    """

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


def attempt(key: str, build: Callable[..., Pair], *arguments: object) -> Pair | Unread:
    """Return what ``build`` returns for the arguments, or what kept it from that."""
    try:
        return build(*arguments)
    except UnfitError as error:
        return Unread(key=key, kind=error.kind, why=clean(error)[:_LONGEST])


def unique(items: Iterable[Pair | Unread]) -> Iterator[Pair | Unread]:
    """Pass everything on; a pair whose key came before, as a pair or not, becomes an Unread."""
    seen: set[str] = set()
    for item in items:
        if isinstance(item, Pair) and item.key in seen:
            yield Unread(key=item.key, kind="duplicate key", why="the key came before in the same shard")
        else:
            yield item
        seen.add(item.key)


def read_file(path: Path) -> bytes:
    """Read one file of a pair.

    Raises:
        UnfitError: it is missing, not a regular file, too large, or may not be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UnfitError("file not found", f"{path.name} is no regular file")
        if found.st_size > LIMIT:
            raise UnfitError("file too large", f"{path.name} has {found.st_size:,} bytes, more than {LIMIT:,}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UnfitError("file not found", f"there is no file {path}") from error
    except (OSError, ValueError) as error:  # ValueError: the name holds a NUL
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UnfitError("file cannot be read", f"{path}: {why}") from error


def inside(root: Path, name: str) -> Path:
    """Join a folder and a name from a stranger's table; links are followed, since data sets are often made of them.

    Raises:
        UnfitError: the name leads out of the folder.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or Path(name).is_absolute():
        raise UnfitError("path outside the folder", f"{name!r} leads out of {root}")
    return root / name


def text(value: object, what: str = "caption") -> str:
    """Return a caption, unchanged.

    Raises:
        UnfitError: there is none, or it is no valid Unicode, which no tokenizer and no report could take.
    """
    if value is None or not isinstance(value, str | bytes):
        raise UnfitError(f"no {what}", f"the {what} is {'missing' if value is None else f'no text but {value!r:.60}'}")
    try:
        if isinstance(value, bytes):
            return value.decode("utf-8")
        value.encode("utf-8")
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise UnfitError(f"{what} is not UTF-8", f"{error.reason} at {error.start}") from error
    return value


def clean(name: object) -> str:
    """Return a key or identifier as text that can be encoded: what is no Unicode is written out as an escape."""
    if isinstance(name, bytes):
        return name.decode("utf-8", "backslashreplace")
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


def row_key(row: int, value: object) -> str:
    """Return the key of a table's row: what its column says, or the row's number from 0, as wide as img2dataset's."""
    return f"{row:09d}" if value is None else clean(value)


def chosen(keys: Iterable[str], keep: Container[str]) -> Iterator[bool]:
    """Tell row by row which are kept: of a repeated key the first, since the others are no pairs."""
    seen: set[str] = set()
    for key in keys:
        yield key in keep and key not in seen
        seen.add(key)


def json_object(data: bytes | str) -> Mapping[str, Any]:
    """Parse one JSON object.

    Raises:
        UnfitError: it is none, or nested too deeply.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnfitError("JSON cannot be read", f"{type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise UnfitError("JSON cannot be read", f"expected an object, found {type(found).__name__}")
    return found


def identity(*paths: Path | None) -> str:
    """Tell files' names, sizes and times of change in one line."""
    return "; ".join(_state(path) for path in paths if path is not None)


def _state(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return f"{clean(path.name)}:missing"
    return f"{clean(path.name)}:{found.st_size}:{found.st_mtime_ns}"
