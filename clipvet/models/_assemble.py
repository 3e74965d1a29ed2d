"""Build tensors from a plan and the bytes that it points to, after checking the one against the other."""

from __future__ import annotations

import math
from io import FileIO
from typing import Protocol

import torch
from torch import Tensor

from clipvet.errors import HostileFileError, UnreadableError
from clipvet.models._names import DTYPES
from clipvet.models._plan import Entry
from clipvet.models._plan_of import Plan

__all__ = ["Bytes", "Storages", "build_tensors"]


class Storages(Protocol):
    """Where storages lie."""

    def nbytes(self, source: str, key: str) -> int:
        """Length of a storage in bytes, -1 where there is none of that key."""

    def read_into(self, source: str, key: str, target: memoryview) -> None:
        """Fill ``target`` with the storage's first bytes."""


class Bytes:
    """Storages of a file that is itself a pickle: ranges of the file."""

    def __init__(self, handle: FileIO, plan: Plan, size: int) -> None:
        self._handle = handle
        self._plan = plan
        self._size = size

    def nbytes(self, source: str, key: str) -> int:
        """Length of a storage in bytes, -1 where there is none of that key or it ends beyond the file."""
        offset, length = self._plan.storages.get(key, (0, -1))
        return length if offset + length <= self._size else -1

    def read_into(self, source: str, key: str, target: memoryview) -> None:
        """Fill ``target`` with the storage's first bytes."""
        self._handle.seek(self._plan.storages[key][0])
        while target:
            count = self._handle.readinto(target)
            if not count:
                raise UnreadableError("it is cut off: a tensor's values end early")
            target = target[count:]


class _WithInline:
    """Other storages, and beside them the arrays that stood inside the pickle (source ``inline``)."""

    def __init__(self, inline: tuple[bytes, ...], others: Storages) -> None:
        self._inline = inline
        self._others = others

    def nbytes(self, source: str, key: str) -> int:
        return len(self._inline[int(key)]) if source == "inline" else self._others.nbytes(source, key)

    def read_into(self, source: str, key: str, target: memoryview) -> None:
        if source == "inline":
            target[:] = self._inline[int(key)]
        else:
            self._others.read_into(source, key, target)


def build_tensors(plan: Plan, storages: Storages, budget: int) -> dict[str, Tensor]:
    """Build every tensor of a plan: contiguous, on the CPU; those that share a storage in the file still share it.

    Args:
        plan: What the child process found.
        storages: Where the bytes lie.
        budget: Most bytes that all tensors may take.

    Raises:
        HostileFileError: A tensor reaches beyond its storage, or all of them take more than ``budget``.
        UnreadableError: Bytes are missing.
    """
    storages = _WithInline(plan.inline, storages)
    for entry in plan.tensors:
        _check(entry, storages)
    total = sum(math.prod(entry.size) * DTYPES[entry.dtype] for entry in plan.tensors)
    if total > budget:
        raise HostileFileError(f"its tensors would take {total} bytes, more than the {budget} that a file of its size may")
    buffers: dict[tuple[str, str], Tensor] = {}
    typed: dict[tuple[str, str, str], Tensor] = {}
    return {entry.name: _build(entry, storages, buffers, typed) for entry in plan.tensors}


def _check(entry: Entry, storages: Storages) -> None:
    if len(entry.size) != len(entry.stride) or min((*entry.size, *entry.stride, entry.offset), default=0) < 0:
        raise HostileFileError(f"its tensor '{entry.name}' has a shape and stride that do not fit each other")
    available = storages.nbytes(entry.source, entry.key)
    if available < entry.numel * DTYPES[entry.dtype]:
        raise HostileFileError(
            f"its tensor '{entry.name}' declares a storage of {entry.numel} elements, which the file does not hold"
        )
    reach = entry.offset + sum((n - 1) * step for n, step in zip(entry.size, entry.stride, strict=True)) + 1
    if 0 not in entry.size and reach > entry.numel:
        raise HostileFileError(f"its tensor '{entry.name}' reaches beyond the end of its storage")
    if any(n > 1 << 48 for n in entry.size):
        raise HostileFileError(f"its tensor '{entry.name}' declares {max(entry.size)} elements in one dimension")


def _build(
    entry: Entry,
    storages: Storages,
    buffers: dict[tuple[str, str], Tensor],
    typed: dict[tuple[str, str, str], Tensor],
) -> Tensor:
    dtype: torch.dtype = getattr(torch, entry.dtype)
    if 0 in entry.size:
        return torch.empty(entry.size, dtype=dtype)
    where = (entry.source, entry.key)
    if where not in buffers:
        raw = torch.empty(storages.nbytes(*where), dtype=torch.uint8)
        storages.read_into(*where, raw.numpy().data)
        buffers[where] = raw
    values = typed.get((*where, entry.dtype))
    if values is None:
        raw, width = buffers[where], DTYPES[entry.dtype]
        whole = raw[: len(raw) // width * width]
        # A bool that is neither 0 nor 1 is undefined behaviour in torch's kernels.
        values = whole.ne(0) if dtype is torch.bool else whole.view(dtype)
        typed[(*where, entry.dtype)] = values
    return values.as_strided(entry.size, entry.stride, entry.offset).contiguous()
