"""Which null an inspection is judged against: the user's own before one that ships, and only where it fits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipvet.errors import UsageError
from clipvet.inspection.calibration import fits, kind_of
from clipvet.inspection.null_file import read_null
from clipvet.types import Null, NullKey, Skipped

__all__ = ["choose_beyond", "choose_null", "null_for"]


def null_for(path: Path, like: NullKey) -> tuple[Null | None, str]:
    """Read a user's null for one inspection.

    Args:
        path: the file.
        like: what the inspection measures: base, family, settings, probe images, and its number of classes as a band of one.

    Returns:
        The null and "", or None and the reason where it says nothing about such a delivery.

    Raises:
        UnreadableError: as :func:`clipvet.inspection.null_file.read_null`.
        UsageError: it was measured on another base, with other settings or on other probe images.
    """
    null = read_null(path).null
    pairs = (
        ("base", null.key.base, like.base),
        ("check with its settings", null.key.settings, like.settings),
        ("set of probe images", null.key.probes, like.probes),
    )
    differs = [f"its {what} is {its!r} and not {own!r}" for what, its, own in pairs if its != own]
    if differs:
        raise UsageError(
            f"{path}: expected a null that was measured as this inspection measures, but {', '.join(differs)}: inspect with the "
            "same options, or run clipvet calibrate with these"
        )
    low, high = null.key.classes
    if kind_of(like.family) != null.key.family:
        return None, "it was measured on tuned prompts, and this is a whole model"
    if not low <= like.classes[0] <= high:
        return None, f"it was measured on {low} to {high} classes, and this delivery has {like.classes[0]}"
    return null, ""


def choose_null(
    like: NullKey, *, own: Path | None, shipped: Sequence[Null], enough_names: bool
) -> tuple[Null | None, tuple[Skipped, ...]]:
    """Choose what an inspection is judged against: the user's own null, else one that ships.

    Args:
        like: as :func:`null_for`.
        own: the user's file.
        shipped: nulls that ship.
        enough_names: whether the check has as many names as it needs for a spread that can be compared at all.

    Returns:
        The null, and why the user's was passed over, where it was.

    Raises:
        ClipvetError: as :func:`null_for`.
    """
    null, why = null_for(own, like) if own is not None else (None, "")
    if not enough_names:
        null, why = None, "no names could be put beside the few that this delivery has"
    elif null is not None:
        return null, ()
    else:
        null = next((one for one in shipped if _is_like(one.key, like)), None)
    return null, (Skipped(what=f"the null of {own}", why=why),) if own is not None else ()


def choose_beyond(like: NullKey, *, own: Path | None, shipped: Sequence[Null]) -> Null | None:
    """Choose what the check without classes is judged against: the second null of the user's file, else one that ships.

    One of references that the base labelled itself flags nothing; it is taken only where there is no other. No verdict rests on
    that check, so that a null which does not fit refuses nothing here.

    Args:
        like: as :func:`null_for`, for the check without classes.
        own: the user's file.
        shipped: nulls that ship.

    Raises:
        UnreadableError: as :func:`clipvet.inspection.null_file.read_null`.
    """
    beside = read_null(own).beyond if own is not None else None
    fitting = [one for one in (beside, *shipped) if one is not None and _is_like(one.key, like)]
    return min(fitting, key=lambda one: one.pseudo_labelled, default=None)  # the first of those that flag


def _is_like(key: NullKey, like: NullKey) -> bool:
    n_classes, _ = like.classes
    return fits(key, base=like.base, family=like.family, n_classes=n_classes, settings=like.settings, probes=like.probes)
