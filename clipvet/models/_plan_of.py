"""Start the child process that parses an untrusted pickle, and take its plan."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from clipvet.errors import HostileFileError, UnreadableError, UsageError
from clipvet.models._child import GUARD_EXIT
from clipvet.models._plan import Entry

__all__ = ["BOOTSTRAP", "Plan", "ReadLimits", "plan_archive", "plan_stream"]

_PACKAGE = Path(__file__).resolve().parent.parent

# The isolated interpreter sees no site-packages, no environment and no working folder. Two empty packages stand in for
# clipvet's own, whose __init__ would import torch.
BOOTSTRAP = """import sys, types
for name, path in (("clipvet", sys.argv[2]), ("clipvet.models", sys.argv[2] + "/models")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from clipvet.models._child import main
main()
"""


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """How much an untrusted file may ask for.

    Args:
        max_file_bytes: Largest file that is looked at.
        max_bytes: Most bytes of tensor values, unpacked.
        expansion: Unpacked tensors may take this many times the file's size (zip compression, expanded strides);
            below 256 MiB they may take any.
        max_pickle_bytes: Largest pickle inside a file, apart from tensor values that stand outside it.
        max_tensors: Most tensors in a file.
        child_memory_bytes: Address space of the process that parses pickles.
        child_seconds: Processor time of that process; it is stopped after twice that time on the clock.

    Raises:
        UsageError: A limit is not positive.
    """

    max_file_bytes: int = 64 << 30
    max_bytes: int = 32 << 30
    expansion: int = 20
    max_pickle_bytes: int = 256 << 20
    max_tensors: int = 100_000
    child_memory_bytes: int = 1 << 30
    child_seconds: int = 60

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise UsageError(f"expected a positive {name}, got {value}")

    def budget(self, file_bytes: int) -> int:
        """Bytes that the tensors of a file of that size may take."""
        return min(self.max_bytes, max(256 << 20, self.expansion * file_bytes))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the child found: tensors by name, plain values, and the names that it did not interpret."""

    tensors: tuple[Entry, ...]
    extras: dict[str, Any] = field(default_factory=dict)
    envelope: str = ""
    stubbed: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    storages: dict[str, tuple[int, int]] = field(default_factory=dict)
    inline: tuple[bytes, ...] = ()
    legacy: bool = False


def plan_archive(parts: dict[str, bytes], limits: ReadLimits) -> Plan:
    """Plan the pickles of a zip archive, by source name (``data``, ``constants``)."""
    request = {"parts": {name: len(part) for name, part in parts.items()}}
    return _run(request, limits, input=b"".join(parts.values()))


def plan_stream(handle: FileIO, size: int, limits: ReadLimits) -> Plan:
    """Plan a file of ``size`` bytes that is itself a pickle; the child reads it through the open handle."""
    handle.seek(0)
    return _run({"size": size, "max_pickle": limits.max_pickle_bytes}, limits, stdin=handle)


def _run(request: dict[str, Any], limits: ReadLimits, **source: Any) -> Plan:
    request |= {
        "max_tensors": limits.max_tensors,
        "memory": limits.child_memory_bytes,
        "seconds": limits.child_seconds,
    }
    command = [sys.executable, "-I", "-S", "-B", "-c", BOOTSTRAP, json.dumps(request), str(_PACKAGE)]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and our own code; the file is data on stdin
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=2 * limits.child_seconds,
            check=False,
            **source,
        )
    except subprocess.TimeoutExpired as error:
        raise HostileFileError(_too_long(limits)) from error
    if done.returncode:
        raise HostileFileError(_why_stopped(done.returncode, limits))
    return _parse(done.stdout)


def _too_long(limits: ReadLimits) -> str:
    return f"looking through its pickle took longer than the limit of {limits.child_seconds} s"


def _why_stopped(code: int, limits: ReadLimits) -> str:
    if code == GUARD_EXIT:
        return "it made its reader try something that a reader never does, and the reader was stopped"
    if code in (-int(getattr(signal, "SIGXCPU", 0)), -int(getattr(signal, "SIGKILL", 0))):
        return _too_long(limits)
    return f"looking through its pickle needs more than the limit of {limits.child_memory_bytes >> 20} MiB of memory"


def _parse(reply: bytes) -> Plan:
    (length,) = struct.unpack_from("<Q", reply)
    answer = json.loads(reply[8 : 8 + length])
    stubbed = tuple(answer["globals"])
    if "refused" in answer:
        raise RefusedError(answer["refused"], stubbed)
    inline, position = [], 8 + length
    for size in answer["inline"]:
        inline.append(reply[position : position + size])
        position += size
    return Plan(
        tensors=tuple(Entry(*row) for row in answer["tensors"]),
        extras=answer.get("extras", {}),
        envelope=answer.get("envelope", ""),
        stubbed=stubbed,
        skipped=answer.get("skipped", {}),
        storages={key: (offset, size) for key, (offset, size) in answer.get("storages", {}).items()},
        inline=tuple(inline),
        legacy=answer.get("legacy", False),
    )


class RefusedError(UnreadableError):
    """The child could not follow the pickle; ``stubbed`` are the names that it had met."""

    def __init__(self, why: str, stubbed: tuple[str, ...]) -> None:
        super().__init__(why)
        self.stubbed = stubbed
