"""What a pickle's tree means: which parts are dicts, sequences, modules, and plain values.

Standard library only (the child process imports it).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from clipvet.models._machine import Call, Global, MalformedError
from clipvet.models._names import NUMPY_DTYPES, clean

__all__ = ["children", "numpy_code", "pairs_of", "plain_items", "raw_bytes", "target_of", "unwrap"]

_MAX_EXTRA_NODES = 64
_MAX_EXTRA_TEXT = 1000
_MISSING = object()
_MAPPINGS = {"collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict"}
_SEQUENCES = {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("list", "set", "frozenset")}
_WRAPPERS = {
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
    "torch.jit._pickle.restore_type_tag",
    *(f"torch.jit._pickle.build_{kind}" for kind in ("intlist", "tensorlist", "doublelist", "boollist")),
}
_SCALAR_FORMATS = {
    "f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b",
    "u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?",
}  # fmt: skip


def target_of(value: Any) -> str:
    """The name that a call calls, "" where that is not a name."""
    return value.target.text if isinstance(value, Call) and isinstance(value.target, Global) else ""


def unwrap(value: Any) -> Any:
    """Look through parameters and type tags."""
    for _ in range(16):
        if not isinstance(value, Call) or not value.args:
            return value
        target = target_of(value)
        if target == "torch._tensor._rebuild_from_type_v2" and len(value.args) > 2 and isinstance(value.args[2], tuple):
            value = Call(value.args[0], value.args[2])
        elif target in _WRAPPERS:
            value = value.args[0]
        else:
            return value
    raise MalformedError("it wraps a parameter in itself again and again")


def pairs_of(value: Any) -> dict[Any, Any] | None:
    """The items of a dict or of a dict-like object, None for anything else."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Call):
        return None
    if value.items is None and target_of(value) not in _MAPPINGS:
        return None
    given: dict[Any, Any] = {}
    first = value.args[0] if value.args else None
    if isinstance(first, list):  # Python 2 wrote OrderedDict([[key, value], ...])
        given = {p[0]: p[1] for p in first if isinstance(p, list | tuple) and len(p) == 2 and isinstance(p[0], str)}
    elif isinstance(first, dict):
        given = first
    return {**given, **(value.items or {})}


def _sequence(value: Any) -> list[Any] | tuple[Any, ...] | None:
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, Call) and target_of(value) in _SEQUENCES:
        first = value.args[0] if value.args and isinstance(value.args[0], list | tuple) else ()
        return [*first, *(value.appended or ())]
    return value.appended if isinstance(value, Call) else None


def _attributes(value: Any) -> dict[Any, Any] | None:
    """The ``__dict__`` of an object; of a module, what its ``state_dict`` would hold."""
    if not isinstance(value, Call):
        return None
    state = value.state
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):
        state = state[0]
    if not isinstance(state, dict):
        return None
    if "_parameters" not in state or "_modules" not in state:
        return state
    hidden = _sequence(state.get("_non_persistent_buffers_set")) or ()
    skip = {name for name in hidden if isinstance(name, str)}
    buffers = {k: v for k, v in (pairs_of(state.get("_buffers")) or {}).items() if k not in skip}
    return {**(pairs_of(state["_parameters"]) or {}), **buffers, **(pairs_of(state["_modules"]) or {})}


def children(value: Any) -> Iterator[tuple[str, Any]]:
    """Names and values one level below ``value``."""
    for found in (pairs_of(value), _attributes(value)):
        if found:
            for key, child in found.items():
                if isinstance(key, str | int):
                    yield clean(str(key)), child
            return
    yield from ((str(i), child) for i, child in enumerate(_sequence(value) or ()))


def raw_bytes(value: Any) -> bytes | None:
    """Bytes as pickles hold them (protocol 2 writes them as Latin-1 text), None for anything else."""
    if target_of(value) == "_codecs.encode" and value.args and isinstance(value.args[0], str):
        value = value.args[0]
    if isinstance(value, str):
        return value.encode("latin-1", "replace")
    return bytes(value) if isinstance(value, bytes | bytearray) else None


def numpy_code(value: Any) -> str:
    """The type code of a little-endian numpy dtype, "" for any other."""
    if target_of(value) != "numpy.dtype" or not value.args or not isinstance(value.args[0], str):
        return ""
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "<"
    code: str = value.args[0].lstrip("<|=")
    return code if code in NUMPY_DTYPES and order in ("<", "|", "=") else ""


def _numpy_scalar(value: Call) -> Any:
    code = numpy_code(value.args[0]) if value.args else ""
    raw = raw_bytes(value.args[1]) if len(value.args) > 1 else None
    if raw is None or code not in _SCALAR_FORMATS or struct.calcsize("<" + _SCALAR_FORMATS[code]) != len(raw):
        return _MISSING
    return struct.unpack("<" + _SCALAR_FORMATS[code], raw)[0]


def plain_items(pairs: dict[Any, Any]) -> dict[str, Any]:
    """The items of a dict that are small and plain: numbers, text, short lists and dicts of these."""
    found: dict[str, Any] = {}
    for key, value in pairs.items():
        if isinstance(key, str) and len(found) < _MAX_EXTRA_NODES:
            plain = _plain(value, [_MAX_EXTRA_NODES], 0)
            if plain is not _MISSING:
                found[clean(key)] = plain
    return found


def _plain(value: Any, budget: list[int], depth: int) -> Any:
    """``value`` as small JSON, or `_MISSING` where any part of it is not plain or it is too much of it."""
    budget[0] -= 1
    if budget[0] < 0 or depth > 3:
        return _MISSING
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else _MISSING
    if isinstance(value, str):
        return clean(value, _MAX_EXTRA_TEXT)
    if target_of(value).endswith(".multiarray.scalar"):
        return _numpy_scalar(value)
    pairs = pairs_of(value)
    if pairs is None and target_of(value) == "argparse.Namespace":
        pairs = _attributes(value)
    if pairs is not None:
        items = {clean(str(k)): _plain(v, budget, depth + 1) for k, v in list(pairs.items())[: budget[0] + 1]}
        return _MISSING if not pairs or any(v is _MISSING for v in items.values()) else items
    if isinstance(value, list | tuple):
        values = [_plain(v, budget, depth + 1) for v in value[: budget[0] + 1]]
        return _MISSING if not values or any(v is _MISSING for v in values) else values
    return _MISSING
