"""Where the images lie that a table names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from clipvet.data._reading import UnfitError, inside

__all__ = ["image_path", "image_root", "is_file"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def image_root(table: Path, names: Iterable[str]) -> tuple[Path, str]:
    """Return the folder that relative names start from, and a note on it, empty where no name is relative.

    The table's folder is tried first and then the working folder, where open_clip looks; the first name that exists decides.
    """
    relative = [name for name in names if name and not Path(name).is_absolute() and not _URL.match(name)]
    here, working = table.parent, Path.cwd()
    for root in (here, working):
        if any(is_file(root / name) for name in relative):
            return root, f"Relative image paths in {table.name} start from {root}."
    nowhere = f"None of the first image paths in {table.name} exists, neither from {here} nor from {working}."
    return here, nowhere if relative else ""


def is_file(path: Path) -> bool:
    """Tell whether there is a file of this name, if it can be one."""
    try:
        return path.is_file()
    except OSError:  # a caption in the place of a path may be longer than a file name
        return False


def image_path(root: Path, name: object, *, confined: bool) -> Path:
    """Return where an image lies.

    Args:
        root: the folder that relative names start from.
        name: from the table; text, as bytes or not.
        confined: refuse names that lead out of the folder.

    Raises:
        UnfitError: there is no name, it is an address, or it leads out of the folder.
    """
    if not name or not isinstance(name, str | bytes):
        raise UnfitError("no image", "the row names none")
    name = os.fsdecode(name)
    if _URL.match(name):
        raise UnfitError("image is an address", f"{name[:100]} was not downloaded")
    return inside(root, name) if confined else root / name
