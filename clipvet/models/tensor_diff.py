"""How far tensors moved, one by one and by part of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipvet.models.claims import tower_name
from clipvet.types import PartChange, TensorChange

__all__ = ["PARTS", "Sums", "compare_tensors", "part_of", "parts_of"]

PARTS = ("prompt", "image tower", "text tower", "head", "logit scale", "other")
_PROMPT = ("ctx", "token_prefix", "token_suffix", "token_midfix", "prompt_learner.", "meta_net.", "bias_vectors")
_TOKENS = ("VPT", "VPT_shallow")  # learned tokens that lie inside the towers
_HEADS = ("visual.proj", "visual.attnpool.c_proj.", "text_projection", "head.", "fc.", "classifier.")
_TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.")


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Of a tensor with one shape on both sides: sums of squares of the old values and the differences, the largest difference."""

    part: str
    old: float
    moved: float
    largest: float


def part_of(name: str) -> str:
    """Return which of `PARTS` a tensor belongs to, by its name in a prompt's file or under open_clip's names.

    The projections into the space that both towers share, and layers behind them, are the head.
    """
    official = tower_name(name) or name
    if official.rpartition(".")[2] in ("logit_scale", "logit_bias"):
        return "logit scale"
    if official.startswith(_HEADS):
        return "head"
    if official.startswith("visual."):
        return "image tower"
    if name.startswith(_PROMPT) or name.rpartition(".")[2] in _TOKENS:
        return "prompt"
    return "text tower" if official.startswith(_TEXT) else "other"


def compare_tensors(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> tuple[tuple[TensorChange, ...], tuple[Sums, ...]]:
    """Compare two state dicts name by name.

    Args:
        old: tensors by name, on the CPU.
        new: the same of the other side.

    Returns:
        The tensors that differ, those that moved furthest first within each part, and the sums over all that have one shape on both
        sides, equal ones included.
    """
    changes: list[TensorChange] = []
    sums: list[Sums] = []
    for name in dict.fromkeys([*old, *new]):
        one, two = old.get(name), new.get(name)
        if one is None or two is None or one.shape != two.shape:
            changes.append(_change(name, one, two))
            continue
        same = one.dtype == two.dtype and _same_bits(one, two)
        found = _sums(part_of(name), one, one if same else two)
        sums.append(found)
        if not same:
            changes.append(_change(name, one, two, found))
    order = {part: place for place, part in enumerate(PARTS)}
    return tuple(sorted(changes, key=lambda change: (order[change.part], -_rank(change), change.name))), tuple(sums)


def _rank(change: TensorChange) -> float:
    """Relative change, infinite for what cannot be measured: it stands first."""
    return math.inf if math.isnan(change.relative_l2) else change.relative_l2


def _change(name: str, old: Tensor | None, new: Tensor | None, sums: Sums | None = None) -> TensorChange:
    if old is None or new is None:
        change = "added" if old is None else "removed"
    elif old.shape != new.shape:
        change = "shape"
    else:
        change = "dtype" if old.dtype != new.dtype else "values"
    return TensorChange(
        name=name,
        part=part_of(name),
        change=change,
        old_shape=None if old is None else tuple(old.shape),
        new_shape=None if new is None else tuple(new.shape),
        old_dtype="" if old is None else str(old.dtype).removeprefix("torch."),
        new_dtype="" if new is None else str(new.dtype).removeprefix("torch."),
        relative_l2=math.nan if sums is None else _relative(sums.moved, sums.old),
        largest=math.nan if sums is None else sums.largest,
    )


def _same_bits(one: Tensor, two: Tensor) -> bool:
    """Whether all bytes are equal, as NaN is not to itself."""
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, two)))


def _sums(part: str, old: Tensor, new: Tensor) -> Sums:
    wide = torch.complex128 if old.is_complex() or new.is_complex() else torch.float64
    before = old.to(wide)
    if old is new:
        return Sums(part=part, old=float(before.abs().square().sum()), moved=0.0, largest=0.0)
    moved = (new.to(wide) - before).abs()
    return Sums(
        part=part,
        old=float(before.abs().square().sum()),
        moved=float(moved.square().sum()),
        largest=float(moved.max()) if moved.numel() else 0.0,
    )


def _relative(moved: float, old: float) -> float:
    """Ratio of the norms from the sums of squares; from zero to anything else is infinitely far."""
    if old == 0:
        return math.inf if moved > 0 else math.nan if math.isnan(moved) else 0.0
    return math.sqrt(moved) / math.sqrt(old)


def parts_of(changes: Sequence[TensorChange], sums: Sequence[Sums]) -> tuple[PartChange, ...]:
    """Sum up by part; parts without tensors are left out."""
    found = []
    for part in PARTS:
        compared = [item for item in sums if item.part == part]
        other = [change for change in changes if change.part == part]
        alone = sum(change.change in ("added", "removed", "shape") for change in other)
        if not compared and not other:
            continue
        moved, old = (math.fsum(values) for values in ([i.moved for i in compared], [i.old for i in compared]))
        largest = (
            math.nan if any(math.isnan(item.largest) for item in compared) else max((i.largest for i in compared), default=math.nan)
        )
        found.append(
            PartChange(
                part=part,
                tensors=len(compared) + alone,
                changed=len(other),
                relative_l2=_relative(moved, old) if compared else math.nan,
                largest=largest,
            )
        )
    return tuple(found)
