"""The nouns of a comparison: what changed between two deliveries, bases or whole models."""

from __future__ import annotations

from dataclasses import dataclass, field

from clipvet.types.common import FileRecord

__all__ = ["DiffReport", "DiffSide", "Difference", "NameChanges", "PartChange", "TensorChange", "TextMove"]


@dataclass(frozen=True, kw_only=True)
class DiffSide:
    """One of the two: what it was found to be. ``base`` is the base that its texts were encoded with, empty where they were not.

    ``context_length`` counts the learned context vectors of a prompt, or the text positions of a whole model; None where there are
    neither. ``notes`` say what could not be read off it, one sentence each.
    """

    path: str
    family: str
    base: str = ""
    class_names: tuple[str, ...] = ()
    context_length: int | None = None
    files: tuple[FileRecord, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NameChanges:
    """How the class names differ.

    ``renamed`` are (old, new) at the same place, neither of which the other side has; ``moved`` are (name, old place, new place) of
    names that both have, where their order differs.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    moved: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class TensorChange:
    """A tensor that is not the same on both sides.

    ``change`` is ``added``, ``removed``, ``shape``, ``dtype`` or ``values``. ``relative_l2`` is the L2 norm of the difference over
    that of the old values, ``largest`` the largest absolute difference of one value; NaN where they cannot be told.
    """

    name: str
    part: str
    change: str
    old_shape: tuple[int, ...] | None = None
    new_shape: tuple[int, ...] | None = None
    old_dtype: str = ""
    new_dtype: str = ""
    relative_l2: float = float("nan")
    largest: float = float("nan")


@dataclass(frozen=True, kw_only=True)
class PartChange:
    """A part of the model: how many tensors it has on either side, how many of them differ, and by how much in all.

    ``relative_l2`` and ``largest`` are over the tensors of the same shape on both sides; NaN where there are none.
    """

    part: str
    tensors: int
    changed: int
    relative_l2: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class TextMove:
    """A class that both sides have: the cosine between its old and its new text feature. ``was`` is its old name, if renamed."""

    name: str
    cosine: float
    was: str = ""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something beside the tensors that differs: its value as text, None on the side that lacks it."""

    what: str
    old: str | None
    new: str | None


@dataclass(frozen=True, kw_only=True)
class DiffReport:
    """What changed; no verdict is made of it.

    ``changed`` is whether anything does: a file's bytes, what was read in them, or what stands beside them. ``identical`` are the
    (old, new) paths of files with the same SHA-256. ``tensors`` are those that differ, ``texts`` the classes by rising cosine, with
    the ``median`` of the cosines. ``notes`` say what was not compared, and why.
    """

    old: DiffSide
    new: DiffSide
    changed: bool
    identical: tuple[tuple[str, str], ...] = ()
    names: NameChanges = field(default=NameChanges())
    parts: tuple[PartChange, ...] = ()
    tensors: tuple[TensorChange, ...] = ()
    texts: tuple[TextMove, ...] = ()
    median: float | None = None
    metadata: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    exit_code: int | None = None
