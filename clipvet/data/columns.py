"""Which column or member plays which role."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clipvet.errors import UsageError

__all__ = ["CAPTION", "IDENTIFIER", "IMAGE", "Columns", "Wanted", "choose_columns", "find", "listed"]

# The names that the field's tools write. A column sha256 is no default identifier: two captions may share one image.
IMAGE = ("image", "jpg", "png", "webp", "jpeg", "img", "image_path", "filepath", "file_name", "path")
CAPTION = ("txt", "text", "caption", "TEXT", "title", "alt_text", "top_caption")
IDENTIFIER = ("__key__", "key", "uid", "SAMPLE_ID", "id")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a user asked for: columns by name, None for the usual ones, and rows per shard where a list is cut.

    Raises:
        UsageError: rows is not positive.
    """

    image: str | None = None
    caption: str | None = None
    id: str | None = None
    rows: int = 10_000

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise UsageError(f"expected at least 1 row per shard, got {self.rows}: leave it out for 10,000")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a table; ``id`` None where rows are numbered, ``uid`` and ``status`` None where there are none."""

    image: str
    caption: str
    id: str | None
    uid: str | None
    status: str | None = None

    def mapping(self) -> dict[str, str]:
        """Return role -> column, for the report."""
        return {"image": self.image, "caption": self.caption, "id": self.id or "(number of the row)"}


def choose_columns(names: Sequence[str], wanted: Wanted, where: str) -> tuple[Columns, list[str]]:
    """Choose the columns of a table, and note what else might have been meant.

    Raises:
        UsageError: a column that was asked for is not there, or there is none for the image or the caption.
    """
    image = find(names, wanted.image, IMAGE, where)
    caption = find(names, wanted.caption, CAPTION, where)
    if image is None or caption is None:
        role, flag = ("images", "--image-col") if image is None else ("captions", "--caption-col")
        hint = "; a list of addresses must be downloaded first" if image is None and find(names, None, ("url",), where) else ""
        raise UsageError(f"expected a column with {role} in {where}, found {listed(names)}: name it with {flag}{hint}")
    twice = [name for name in (image, caption) if list(names).count(name) > 1]
    if twice:
        raise UsageError(f"expected one column {twice[0]} in {where}, found {listed(names)}: rename one of them")
    # what img2dataset writes of every row that it tried
    status = "status" if {"key", "status", "error_message"} <= set(names) else None
    uid = "uid" if "uid" in names else None
    chosen = Columns(image=image, caption=caption, id=find(names, wanted.id, IDENTIFIER, where), uid=uid, status=status)
    others = [name for name in names if wanted.caption is None and name in CAPTION and name != caption]
    return chosen, [f"Captions are taken from {caption}; {listed(others)} may hold some too (--caption-col)."] if others else []


def find(names: Iterable[str], wanted: str | None, usual: Sequence[str], where: str) -> str | None:
    """Return the column that is wanted, or the first usual one; first as it is written, then in any case.

    Raises:
        UsageError: the wanted one is not there.
    """
    names = list(names)
    if wanted is not None:
        if wanted not in names:
            raise UsageError(f"expected a column {wanted!r} in {where}, found {listed(names)}: name one of these")
        return wanted
    lower = {name.lower(): name for name in reversed(names)}
    exact = next((name for name in usual if name in names), None)
    return exact or next((lower[name.lower()] for name in usual if name.lower() in lower), None)


def listed(names: Iterable[str], most: int = 20) -> str:
    """Show a list of names in a sentence."""
    names = list(names)
    return (", ".join(names[:most]) or "none") + (f" and {len(names) - most} more" if len(names) > most else "")
