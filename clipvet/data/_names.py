"""Names of shards: unique in their source, usable as file names, the same in every run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

__all__ = ["shard_names"]

_LONGEST = 50  # characters; a file name may have 255 bytes, and a suffix and a folder's name are to come


def shard_names(wanted: Sequence[tuple[str, str]]) -> list[str]:
    """Return a name for each shard.

    Args:
        wanted: the file's stem, and the name of its folder, which is put before stems that occur more than once.

    Returns:
        Names that differ even where case does not count; a counter is added where the folder's name does not help.
    """
    counts = Counter(_slug(stem).casefold() for stem, _ in wanted)
    names: list[str] = []
    used: set[str] = set()
    for stem, folder in wanted:
        base = _slug(stem)
        if counts[base.casefold()] > 1:
            base = f"{_slug(folder)}-{base}"
        name, number = base, 2
        while name.casefold() in used:
            name, number = f"{base}-{number}", number + 1
        used.add(name.casefold())
        names.append(name)
    return names


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)[:_LONGEST].strip(".") or "shard"
