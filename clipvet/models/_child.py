"""The child process that looks into untrusted pickles: bytes in on stdin, a plan as JSON out on stdout.

It parses with `clipvet.models._unpickle`, which cannot call anything, and guards itself besides: limits on memory,
processor time, written files and processes, and an audit hook that ends the process at the first attempt to import,
compile, open, connect or start anything. It is started by `clipvet.models._plan_of` with an isolated interpreter and
imports the standard library only.
"""

from __future__ import annotations

import io
import json
import os
import struct
import sys
from typing import IO, Any

from clipvet.models._machine import MalformedError, Seen
from clipvet.models._names import DTYPES, clean, is_interpreted
from clipvet.models._plan import Planner, storage_dtypes
from clipvet.models._unpickle import load

__all__ = ["FAILED_EXIT", "GUARD_EXIT", "main"]

GUARD_EXIT = 97
FAILED_EXIT = 98
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_REPORTED_NAMES = 1000
_ALLOWED_EVENTS = frozenset({"object.__getattr__", "sys._getframe"})


class _Stream:
    """stdin, counted: never hands out more than the pickle budget or than the file has."""

    def __init__(self, file: IO[bytes], size: int, budget: int) -> None:
        self.file = file
        self.size = size
        self.left = budget

    def read(self, size: int, /) -> bytes:
        if size > self.left:
            raise MalformedError("its pickle is cut off, or larger than the limit")
        self.left -= size
        return self.file.read(size)

    def readline(self) -> bytes:
        line = self.file.readline(self.left + 1)
        if len(line) > self.left:
            raise MalformedError("its pickle is larger than the limit")
        self.left -= len(line)
        return line


def _limit_resources(memory: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # no such limits on Windows: the parent's wall time and the audit hook remain
        return
    for kind, limit in (
        ("RLIMIT_AS", memory),
        ("RLIMIT_CPU", seconds),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NPROC", 0),
    ):
        try:
            resource.setrlimit(getattr(resource, kind), (limit, limit))
        except (AttributeError, ValueError, OSError):
            continue  # a platform without this one limit still has the others


def _guard() -> None:
    # Text codecs are imported on first use; after this, no import is legitimate.
    for codec in ("raw-unicode-escape", "unicode-escape", "latin-1", "ascii", "utf-8"):
        b"".decode(codec)
        "".encode(codec)

    def hook(event: str, _: Any) -> None:
        if event not in _ALLOWED_EVENTS:
            os._exit(GUARD_EXIT)

    sys.addaudithook(hook)


def _element_sizes(seen: Seen) -> dict[str, int]:
    pairs = (storage_dtypes(ref) for ref in seen.refs)
    return {key: DTYPES[dtype] for key, dtype in filter(None, pairs)}


def _storage_table(stream: _Stream, keys: Any, sizes: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Where the legacy format's storages lie: each is its length in elements (8 bytes), then its content."""
    if not isinstance(keys, list) or any(not isinstance(key, str) or key not in sizes for key in keys):
        raise MalformedError("its list of storages does not match its tensors")
    table = {}
    position = stream.file.tell()
    for key in keys:
        stream.file.seek(position)
        head = stream.file.read(8)
        numel = struct.unpack("<q", head)[0] if len(head) == 8 else -1
        table[key] = (position + 8, numel * sizes[key])
        position += 8 + table[key][1]
        if numel < 0 or position > stream.size:
            raise MalformedError("it is cut off: a tensor's values end beyond the end of the file")
    return table


def _read_stream(request: dict[str, Any], seen: Seen) -> tuple[dict[str, Any], list[bytes]]:
    """Plan a file that is itself a pickle: torch's format before zip, or a plain pickle."""
    stream = _Stream(sys.stdin.buffer, request["size"], min(request["size"], request["max_pickle"]))
    root = load(stream, seen)
    table: dict[str, tuple[int, int]] = {}
    legacy = type(root) is int and root == _LEGACY_MAGIC
    if legacy:
        load(stream, seen)  # protocol version
        load(stream, seen)  # facts about the machine that saved it
        root = load(stream, seen)
        keys = load(stream, seen)
        table = _storage_table(stream, keys, _element_sizes(seen))
    planner = Planner("file", request["max_tensors"])
    envelope, extras = planner.read(root)
    answer = {"envelope": envelope, "extras": extras, "storages": table, "legacy": legacy}
    return {**answer, "tensors": list(planner.entries.values()), "skipped": planner.skipped}, planner.inline


def _read_archive(request: dict[str, Any], seen: Seen) -> tuple[dict[str, Any], list[bytes]]:
    """Plan the pickles of a zip archive, which follow each other on stdin. Constants count where nothing else does."""
    chosen: tuple[dict[str, Any], list[bytes]] = ({"tensors": []}, [])
    for source, length in request["parts"].items():
        part = sys.stdin.buffer.read(length)
        planner = Planner(source, request["max_tensors"])
        root = load(io.BytesIO(part), seen)
        if chosen[0]["tensors"]:
            continue
        envelope, extras = planner.read(root)
        answer = {"envelope": envelope, "extras": extras, "skipped": planner.skipped}
        chosen = ({**answer, "tensors": list(planner.entries.values())}, planner.inline)
    return chosen


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    seen = Seen()
    inline: list[bytes] = []
    try:
        answer, inline = _read_stream(request, seen) if "size" in request else _read_archive(request, seen)
    except MalformedError as error:
        answer = {"refused": str(error)}
    except (MemoryError, RecursionError):
        answer = {"refused": "reading it would need more memory than the limit"}
    answer["inline"] = [len(raw) for raw in inline]
    names = dict.fromkeys(found.text for found in seen.names)
    stubbed = [clean(name) for name in names if not is_interpreted(name)]
    answer["globals"] = stubbed[:_MAX_REPORTED_NAMES]
    return answer, inline


def _send(answer: dict[str, Any], inline: list[bytes]) -> None:
    text = json.dumps(answer).encode()
    out = sys.stdout.buffer
    for piece in (struct.pack("<Q", len(text)), text, *inline):
        out.write(piece)
    out.flush()


def main() -> None:
    """Read a request from the first argument and a pickle from stdin; write the plan to stdout and end the process."""
    request = json.loads(sys.argv[1])
    _limit_resources(request["memory"], request["seconds"])
    _guard()
    try:
        _send(*_answer(request))
    except BaseException:  # printing a traceback would open files; the parent needs no more than the exit status
        os._exit(FAILED_EXIT)
    os._exit(0)  # no shutdown code after untrusted input
