"""From the tree that a pickle describes to a plan: which tensor lies where, and which plain values stand beside it.

A plan is plain JSON. It names storages; it never holds code, and nobody follows it without checking it against the
bytes that are there. Standard library only (the child process imports it).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from clipvet.models._machine import Global, MalformedError, Ref
from clipvet.models._names import DTYPES, ENVELOPES, NUMPY_DTYPES, STORAGES, clean
from clipvet.models._tree import children, numpy_code, pairs_of, plain_items, raw_bytes, target_of, unwrap

__all__ = ["Entry", "Planner", "storage_dtypes"]

_MAX_DEPTH = 48
_MAX_VISITS = 2_000_000


class Entry(NamedTuple):
    """One tensor of a plan. ``offset`` and ``stride`` count elements, ``numel`` is the storage's length in elements."""

    name: str
    source: str
    key: str
    dtype: str
    numel: int
    offset: int
    size: list[int]
    stride: list[int]


def _ints(value: Any) -> list[int]:
    while target_of(value) == "torch.Size" and value.args:
        value = value.args[0]
    sequence = value if isinstance(value, list | tuple) else None
    if sequence is None or len(sequence) > 64 or not all(type(i) is int and 0 <= i < 2**63 for i in sequence):
        raise MalformedError("it gives a tensor a shape or stride that is not a short list of sizes")
    return list(sequence)


def _storage(ref: Any) -> tuple[str, str, int, int]:
    """(key, dtype, elements, first element of the view) of a storage reference."""
    pid = ref.pid if isinstance(ref, Ref) else None
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], Global):
        raise MalformedError("it has a tensor without a storage")
    dtype, key, numel = STORAGES.get(pid[1].name, ""), pid[2], pid[4]
    if not dtype or not isinstance(key, str) or type(numel) is not int or not 0 <= numel < 2**63:
        raise MalformedError(f"it has a tensor in a storage of an unknown kind ({clean(pid[1].text)})")
    view = pid[5] if len(pid) > 5 else None
    first = view[1] if isinstance(view, tuple) and len(view) == 3 and type(view[1]) is int else 0
    return key, dtype, numel, first


def storage_dtypes(value: Any) -> tuple[str, str] | None:
    """(key, dtype) of a storage reference, None where it is none: for the legacy format, which lists keys only."""
    try:
        key, dtype, _, _ = _storage(value)
    except MalformedError:
        return None
    return key, dtype


class Planner:
    """Collects the entries, plain extras and skipped names of one file."""

    def __init__(self, source: str, max_tensors: int) -> None:
        self.source = source
        self.max_tensors = max_tensors
        self.entries: dict[str, Entry] = {}
        self.inline: list[bytes] = []
        self.skipped: dict[str, str] = {}
        self._visits = 0

    def read(self, root: Any) -> tuple[str, dict[str, Any]]:
        """Plan every tensor below ``root``; return the envelope's key and the plain values beside it."""
        envelope: list[str] = []
        extras: dict[str, Any] = {}
        while len(envelope) < 3:
            pairs = pairs_of(root) or {}
            extras.update(plain_items(pairs))
            inside = next((key for key in ENVELOPES if key in pairs and any(children(pairs[key]))), None)
            if inside is None:
                break
            envelope.append(inside)
            root = pairs[inside]
        self.walk(root, "", 0)
        return ".".join(envelope), extras

    def walk(self, value: Any, name: str, depth: int) -> None:
        """Plan the tensors at and below ``value``; their names are joined with dots."""
        self._visits += 1
        if depth > _MAX_DEPTH or self._visits > _MAX_VISITS:
            raise MalformedError("it nests its content endlessly, or repeats it more often than any model does")
        value = unwrap(value)
        if self._tensor(value, name) or self._array(value, name):
            return
        for key, child in children(value):
            self.walk(child, f"{name}.{key}" if name else key, depth + 1)

    def _add(self, entry: Entry) -> None:
        if entry.name in self.entries:
            raise MalformedError(f"it holds two tensors named {entry.name!r}")
        if len(self.entries) >= self.max_tensors:
            raise MalformedError(f"it holds more than {self.max_tensors} tensors")
        self.entries[entry.name] = entry

    def _tensor(self, value: Any, name: str) -> bool:
        target = target_of(value)
        if not target.startswith(("torch._utils._rebuild_", "torch._tensor._rebuild_")):
            return False
        version = target.removeprefix("torch._utils._rebuild_tensor")
        if version not in ("", "_v2", "_v3"):
            self.skipped[name] = f"{clean(target)} is a kind of tensor that is not read"
            return True
        if len(value.args) < 4 or type(value.args[1]) is not int or not 0 <= value.args[1] < 2**63:
            raise MalformedError("it describes a tensor without offset, shape and stride")
        key, dtype, numel, first = _storage(value.args[0])
        if version == "_v3":
            given = value.args[6] if len(value.args) > 6 and isinstance(value.args[6], Global) else None
            dtype = given.name if given is not None and given.name in DTYPES else ""
            if not dtype:
                raise MalformedError("it has a tensor of an unknown dtype")
            numel //= DTYPES[dtype]
        size, stride = _ints(value.args[2]), _ints(value.args[3])
        self._add(Entry(name, self.source, key, dtype, numel, first + value.args[1], size, stride))
        return True

    def _array(self, value: Any, name: str) -> bool:
        target = target_of(value)
        if target.endswith(".multiarray._reconstruct"):
            state = value.state if isinstance(value.state, tuple) and len(value.state) == 5 else (0, (), None, False, 0)
            shape, dtype, columns_first, data = state[1:]
        elif target.endswith(".numeric._frombuffer") and len(value.args) == 4:
            data, dtype, shape, order = value.args
            columns_first = order == "F"
        else:
            return False
        code, raw, size = numpy_code(dtype), raw_bytes(data), _ints(shape)
        if not code or raw is None:
            self.skipped[name] = "a numpy array of a kind that is not read"
            return True
        stride = [1] * len(size)
        order_of_axes = range(1, len(size)) if columns_first else range(len(size) - 2, -1, -1)
        for axis in order_of_axes:
            before = axis - 1 if columns_first else axis + 1
            stride[axis] = stride[before] * size[before]
        numel = len(raw) // DTYPES[NUMPY_DTYPES[code]]
        self._add(Entry(name, "inline", str(len(self.inline)), NUMPY_DTYPES[code], numel, 0, size, stride))
        self.inline.append(raw)
        return True
