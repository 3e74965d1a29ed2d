"""What lies below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from clipvet.errors import UnreadableError

__all__ = ["listing"]


def listing(root: Path) -> list[str]:
    """Return the files below a folder, sorted, as paths from it with ``/``; links are followed, hidden folders are not.

    Raises:
        UnreadableError: a folder cannot be looked into.
    """
    return sorted(_walk(root))


def _walk(root: Path) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()  # links may lead in a circle
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        place = Path(folder).stat()
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(folder).relative_to(root).as_posix()
        yield from (name if below == "." else f"{below}/{name}" for name in files)


def _refuse(error: OSError) -> None:
    raise UnreadableError(
        f"{error.filename}: expected a folder to look into, could not ({error.strerror}); check its permissions"
    ) from error
