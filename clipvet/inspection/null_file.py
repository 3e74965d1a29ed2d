"""The file that ``clipvet calibrate`` writes and ``clipvet inspect --null`` reads: a null or two, and how they came about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import clipvet
from clipvet.errors import ClipvetError, UnreadableError, UnwritableError
from clipvet.inspection.calibration import CERTAIN_RATE, FLAG_RATE, LEAST_REFERENCES
from clipvet.inspection.feature_collapse import FeatureCollapse
from clipvet.inspection.references import Reference
from clipvet.types import Null, NullKey

__all__ = ["FORMAT", "LEAST_VALUES", "NullFile", "explain_count", "pack_null", "read_null", "write_null"]

FORMAT = 2  # 1 had one null
LEAST_VALUES = 2  # a Gumbel distribution has two moments to fit
LARGEST_FILE = 1 << 26  # bytes; 999 references with fifty names each take one


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class _Head(BaseModel):
    """What every version of the file has."""

    model_config = ConfigDict(strict=True)
    format: int


class _Key(_Strict):
    base: Annotated[str, Field(min_length=1)]
    family: Literal["prompt"]
    classes: tuple[Annotated[int, Field(ge=2)], int]
    settings: str
    probes: str


class _Tuned(_Strict):
    number: int
    family: str
    class_names: Annotated[tuple[str, ...], Field(min_length=2)]
    seed: int
    accuracy: float
    statistic: float | None  # None where the check came to no number


class _Null(_Strict):
    check: str
    key: _Key
    values: Annotated[tuple[float, ...], Field(min_length=LEAST_VALUES)]
    references: tuple[_Tuned, ...]
    source: str
    pseudo_labelled: bool

    @model_validator(mode="after")
    def _agree(self) -> _Null:
        measured = [one.statistic for one in self.references if one.statistic is not None]
        if list(self.values) != sorted(measured) or len(measured) < len(self.references):
            raise ValueError("values that are not those of its references")
        return self

    def unpack(self) -> Null:
        return Null(
            key=NullKey(**self.key.model_dump()),
            values=self.values,
            source=self.source,
            check=self.check,
            pseudo_labelled=self.pseudo_labelled,
        )


class NullFile(_Strict):
    """What the file holds; ``nulls`` is laid out as in the file that ships, with whole references instead of digests.

    Attributes:
        format: version of this layout.
        clipvet: version that measured it.
        resolves: what so many references can tell, in words.
        failed: references that learned too little to stand for a tuned prompt; their values are no part of a null.
        nulls: that of the check; then that of the check without classes, where enough references change the image tower.
    """

    format: Literal[1, 2] = 2
    clipvet: str
    resolves: str
    failed: tuple[_Tuned, ...]
    nulls: Annotated[tuple[_Null, ...], Field(min_length=1, max_length=2)]

    @model_validator(mode="after")
    def _belong_together(self) -> NullFile:
        first, *more = self.nulls
        if more and self.format == 1:
            raise ValueError(f"nulls: {len(self.nulls)} of them in a file of format 1")
        for other in more:
            same = other.key.model_copy(update={"settings": first.key.settings}) == first.key
            if not same or other.check != FeatureCollapse.name:
                raise ValueError(f"nulls.1: no null of {FeatureCollapse.name} that was measured on what the first one was")
        return self

    @property
    def null(self) -> Null:
        """The null, as a verdict uses it."""
        return self.nulls[0].unpack()

    @property
    def beyond(self) -> Null | None:
        """The null of the check without classes, where there is one."""
        return self.nulls[1].unpack() if len(self.nulls) > 1 else None


_File = TypeVar("_File", bound=BaseModel)


def explain_count(count: int) -> str:
    """Say in words what a null of so many references can tell."""
    text = (
        f"{count} references resolve a false-positive rate of 1/{count + 1} by counting; the thresholds for 1/{1 / FLAG_RATE:.0f} "
        f"(suspicious) and 1/{1 / CERTAIN_RATE:.0f} (backdoored) are read off a fitted Gumbel distribution, which extrapolates "
        "wherever they lie beyond that."
    )
    if count < LEAST_REFERENCES:
        text += f" Fewer than {LEAST_REFERENCES} references do not carry a verdict of 'backdoored'."
    return text


def pack_null(
    references: Sequence[Reference],
    *,
    check: str,
    key: NullKey,
    base_name: str,
    pseudo_labelled: bool,
    beyond: NullKey | None = None,
) -> NullFile:
    """Put references into the form of the file; those that did not learn are kept apart.

    Args:
        references: all that were made.
        check: name of the check.
        key: what they were measured on.
        base_name: what reports call the base.
        pseudo_labelled: whether the base labelled the images that they were tuned on.
        beyond: what the check without classes was measured on; None where it was not run.

    Raises:
        ClipvetError: fewer than two references learned something.
    """
    kept = [one for one in references if one.learned]
    if len(kept) < LEAST_VALUES:
        raise ClipvetError(
            f"expected at least {LEAST_VALUES} references that learned the labels of their images, found {len(kept)} of "
            f"{len(references)}: make more, or give images and names that the base knows (--images, --labelled, --class-names)"
        )
    nulls = [_null(kept, check, key, base_name, pseudo_labelled)]
    moved = [replace(one, statistic=one.beyond) for one in references if one.beyond is not None]
    moved = [one for one in moved if one.learned]
    if beyond is not None and len(moved) >= LEAST_VALUES:
        nulls.append(_null(moved, FeatureCollapse.name, beyond, base_name, pseudo_labelled))
    failed = tuple(_tuned(one) for one in references if not one.learned)
    return NullFile(clipvet=clipvet.__version__, resolves=explain_count(len(kept)), failed=failed, nulls=tuple(nulls))


def _null(kept: Sequence[Reference], check: str, key: NullKey, base_name: str, pseudo_labelled: bool) -> _Null:
    families = ", ".join(sorted({one.draw.family for one in kept}))
    return _Null(
        check=check,
        key=_Key(base=key.base, family="prompt", classes=key.classes, settings=key.settings, probes=key.probes),
        values=tuple(sorted(one.statistic for one in kept)),
        references=tuple(_tuned(one) for one in kept),
        source=f"{len(kept)} clean tunings of {base_name} ({families})"
        + (", labelled by the base itself" if pseudo_labelled else ""),
        pseudo_labelled=pseudo_labelled,
    )


def _tuned(one: Reference) -> _Tuned:
    draw = one.draw
    return _Tuned(
        number=draw.number,
        family=draw.family,
        class_names=draw.class_names,
        seed=draw.seed,
        accuracy=one.accuracy,
        statistic=one.statistic if math.isfinite(one.statistic) else None,
    )


def write_null(path: Path, file: NullFile) -> None:
    """Write the file, whole or not at all.

    Raises:
        UnwritableError: it cannot be written there.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(file.model_dump_json(indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise UnwritableError(f"expected to write the null to {path}, got {error}: make room, or choose another --out") from error


def read_null(path: Path) -> NullFile:
    """Read a null file; what is not just as ``clipvet calibrate`` writes it is refused.

    Raises:
        UnreadableError: it is missing, damaged, no null, or of a later format.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UnreadableError(f"{path}: expected a null of at most {LARGEST_FILE:,} bytes: name the file of clipvet calibrate")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableError(f"{path}: expected a null, could not read it ({error.strerror}): check --null") from error
    head = _parsed(_Head, data, path)
    if head.format > FORMAT:
        raise UnreadableError(f"{path}: expected a null of format {FORMAT}, found format {head.format}: update clipvet")
    return _parsed(NullFile, data, path)


def _parsed(model: type[_File], data: bytes, path: Path) -> _File:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        place = f"{where}: " if where else ""
        raise UnreadableError(
            f"{path}: expected a null as clipvet calibrate writes it, found it damaged or foreign ({place}{problem}): write it anew"
        ) from error
