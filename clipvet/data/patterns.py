"""From what a user types to paths: ``::`` joins, ``{00000..00099}`` and ``{a,b}`` count, ``*`` matches."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from clipvet.errors import UnreadableError, UsageError

__all__ = ["expand"]

_MOST = 1_000_000  # names from one pattern
_RANGE = r"\{(\d+)\.\.(\d+)\}"
_GROUP = re.compile(_RANGE + r"|\{([^{}]*,[^{}]*)\}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters at least: C:/ is a drive


def expand(sources: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """Return the files and folders that exist, in the order given, each once, and notes on those that do not.

    Paths are absolute, so that they lead to the same files from any process.

    Raises:
        UsageError: a source is a URL or a command, or a pattern stands for too many names.
        UnreadableError: a source stands for nothing that exists.
    """
    paths: dict[Path, None] = {}
    notes: list[str] = []
    for source in sources:
        found = 0
        missing: list[str] = []
        for name in _names(source):
            matches = _matches(name)
            found += len(matches)
            paths.update(dict.fromkeys(matches))
            missing += [] if matches else [name]
        if not found:
            raise UnreadableError(f"expected files or folders with pairs, found nothing at {source}; check the path")
        if missing:
            first = ", ".join(Path(name).name for name in missing[:5])
            notes.append(f"{len(missing)} of the files that {source} stands for do not exist, the first being {first}.")
    once = {path.resolve(): path for path in reversed(paths)}
    if len(once) < len(paths):
        notes.append(f"{len(paths) - len(once)} files or folders are named more than once and are read once.")
    return [path.absolute() for path in paths if once[path.resolve()] is path], notes


def _names(source: str | Path) -> Iterator[str]:
    """Yield the names that a source stands for; a name that exists as it is stands for itself."""
    _refuse_remote(str(source))
    if _exists(str(source)):
        yield str(source)
        return
    for part in str(source).split("::"):
        _refuse_remote(part)
        names = list(itertools.islice(_braces(part), _MOST + 1))
        if len(names) > _MOST:
            raise UsageError(f"expected a pattern for at most {_MOST:,} files, got {part}: name a folder instead")
        yield from dict.fromkeys(names)


def _refuse_remote(source: str) -> None:
    if source.startswith("pipe:"):
        raise UsageError(f"expected files, got the command {source}: clipvet runs no commands, so save its output to a file first")
    if _URL.match(source):
        raise UsageError(
            f"expected local files, got the address {source}: download them first, nothing is fetched over the network"
        )
    if not source:
        raise UsageError("expected a file or folder, got an empty name: check the list of sources")


def _braces(pattern: str) -> Iterator[str]:
    """Expand the first innermost group that is one; other braces stand for themselves."""
    group = _GROUP.search(pattern)
    if group is None:
        yield pattern
        return
    before, after = pattern[: group.start()], pattern[group.end() :]
    low, high, words = group.groups()
    for word in words.split(",") if words is not None else _count(low, high):
        yield from _braces(f"{before}{word}{after}")


def _count(low: str, high: str) -> Iterator[str]:
    """Count up or down, padded to the longer end where an end is padded."""
    width = max(len(low), len(high)) if low.startswith("0") or high.startswith("0") else 0
    step = 1 if int(low) <= int(high) else -1
    return (str(number).zfill(width) for number in range(int(low), int(high) + step, step))


def _matches(name: str) -> list[Path]:
    if _exists(name):
        return [Path(name)]
    if not set(name) & set("*?["):
        return []
    return [Path(match) for match in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207  # patterns may be absolute


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # a pattern longer than a file name may be
        return False
