"""Write the files of one shard: all of them whole, or none, and never over what was read."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clipvet.errors import ClipvetError, UnwritableError, UsageError

__all__ = ["Output", "output"]


class Output:
    """Files that are written under temporary names; see :func:`output`."""

    def __init__(self, folder: Path, inputs: Iterable[Path]) -> None:
        self._folder = folder
        self._inputs = {path.resolve() for path in inputs}
        self._parts: dict[Path, Path] = {}

    @property
    def files(self) -> tuple[Path, ...]:
        """The files' final names, in the order in which they were asked for."""
        return tuple(self._parts)

    def part(self, name: str) -> Path:
        """Return the temporary name to write ``name``, a path below the folder, under."""
        path = self._folder / name
        if path.resolve() in self._inputs:
            raise _refusal(self._folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._parts[path] = path.with_name(f".{secrets.token_hex(8)}.part")
        return self._parts[path]

    def _finish(self) -> None:
        for path, part in self._parts.items():
            part.replace(path)

    def _clear(self) -> None:
        for part in self._parts.values():
            part.unlink(missing_ok=True)


def _refusal(folder: Path) -> UsageError:
    return UsageError(f"expected another folder than the input's to write to, got {folder}: the input is never written over")


@contextmanager
def output(folder: Path, *inputs: Path | None) -> Iterator[Output]:
    """Collect what is written for ``folder``; it gets its names when the block ends without an error.

    Args:
        folder: made where it is missing.
        inputs: files and folders that are read from.

    Raises:
        UsageError: it is the folder of an input, or an input would be replaced, by way of a link or not.
        UnwritableError: the folder or a file cannot be written.
    """
    known = [path for path in inputs if path is not None]
    if folder.resolve() in {(path if path.is_dir() else path.parent).resolve() for path in known}:
        raise _refusal(folder)
    files = Output(folder, known)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield files
        files._finish()
    except ClipvetError:
        raise
    except OSError as error:
        raise UnwritableError(
            f"{folder}: cannot write the kept pairs ({error.strerror or error}): choose another folder"
        ) from error
    finally:
        files._clear()
