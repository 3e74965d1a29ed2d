"""A pickle machine that has no way to call anything.

Python's unpickler calls whatever a file names. This one only takes notes: a name becomes a `Global`, a call becomes a
`Call` that is never made, a persistent id becomes a `Ref`. Numbers, strings, lists, tuples and dicts are themselves.
The result is a tree to look at, and nothing on the way to it runs, imports or opens anything.

Standard library only: the child process that parses untrusted files imports this module and must not import torch.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO, Any, Protocol, cast

from clipvet.models._machine import Call, Global, Machine, MalformedError, Seen

__all__ = ["Reader", "load"]


class Reader(Protocol):
    """Where a pickle's bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""

    def readline(self) -> bytes:
        """Return bytes up to and including the next newline."""


def _mark(m: Machine, _: Any) -> None:
    m.marks.append(m.stack)
    m.stack = []


def _pop(m: Machine, _: Any) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


def _pop_mark(m: Machine, _: Any) -> None:
    m.pop_mark()


def _tuple_of(count: int) -> Callable[[Machine, Any], None]:
    def op(m: Machine, _: Any) -> None:
        items = [m.pop() for _ in range(count)]
        m.stack.append(tuple(reversed(items)))

    return op


def _tuple(m: Machine, _: Any) -> None:
    items = tuple(m.pop_mark())
    m.stack.append(items)


def _list(m: Machine, _: Any) -> None:
    items = m.pop_mark()
    m.stack.append(items)


def _dict(m: Machine, _: Any) -> None:
    items = m.pop_mark()
    m.stack.append({})
    m.fill(items)


def _frozenset(m: Machine, _: Any) -> None:
    items = m.pop_mark()
    m.stack.append(Call(Global("builtins", "frozenset"), (items,)))


def _set_item(m: Machine, _: Any) -> None:
    value, key = m.pop(), m.pop()
    m.fill([key, value])


def _append(m: Machine, _: Any) -> None:
    m.extend([m.pop()])


def _global(m: Machine, arg: Any) -> None:
    module, _, name = arg.rpartition(" ")
    m.stack.append(m.name(module, name))


def _stack_global(m: Machine, _: Any) -> None:
    name, module = m.pop(), m.pop()
    m.stack.append(m.name(module, name))


def _reduce(m: Machine, _: Any) -> None:
    args, target = m.pop(), m.pop()
    m.call(target, args)


def _new_object_ex(m: Machine, _: Any) -> None:
    _keywords, args, target = m.pop(), m.pop(), m.pop()
    m.call(target, args)


def _inst(m: Machine, arg: Any) -> None:
    module, _, name = arg.rpartition(" ")
    args = tuple(m.pop_mark())
    m.call(m.name(module, name), args)


def _obj(m: Machine, _: Any) -> None:
    items = m.pop_mark()
    if not items:
        raise MalformedError("its pickle builds an object of no class")
    m.call(items[0], tuple(items[1:]))


def _build(m: Machine, _: Any) -> None:
    state = m.pop()
    target = m.top()
    # State for anything but a new object would change a class or a function; here there is nothing to change.
    if isinstance(target, Call):
        target.state = state


def _extension(m: Machine, arg: Any) -> None:
    m.stack.append(m.name("copyreg", f"extension_{arg}"))


_VALUES = """INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT"""

_OPS: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(_VALUES.split(), lambda m, arg: m.stack.append(arg)),
    **dict.fromkeys(["PROTO", "FRAME", "READONLY_BUFFER"], lambda m, arg: None),
    **dict.fromkeys(["GET", "BINGET", "LONG_BINGET"], lambda m, arg: m.recall(arg)),
    **dict.fromkeys(["PUT", "BINPUT", "LONG_BINPUT"], lambda m, arg: m.remember(arg)),
    **dict.fromkeys(["EXT1", "EXT2", "EXT4"], _extension),
    **dict.fromkeys(["REDUCE", "NEWOBJ"], _reduce),
    "MEMOIZE": lambda m, arg: m.remember(len(m.memo)),
    "NONE": lambda m, arg: m.stack.append(None),
    "NEWTRUE": lambda m, arg: m.stack.append(True),
    "NEWFALSE": lambda m, arg: m.stack.append(False),
    "EMPTY_LIST": lambda m, arg: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, arg: m.stack.append(()),
    "EMPTY_DICT": lambda m, arg: m.stack.append({}),
    "EMPTY_SET": lambda m, arg: m.stack.append(Call(Global("builtins", "set"), ())),
    "DUP": lambda m, arg: m.stack.append(m.top()),
    "APPENDS": lambda m, arg: m.extend(m.pop_mark()),
    "ADDITEMS": lambda m, arg: m.extend(m.pop_mark()),
    "SETITEMS": lambda m, arg: m.fill(m.pop_mark()),
    "PERSID": lambda m, arg: m.refer(arg),
    "BINPERSID": lambda m, arg: m.refer(m.pop()),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "MARK": _mark,
    "POP_MARK": _pop_mark,
    "POP": _pop,
    "TUPLE": _tuple,
    "LIST": _list,
    "DICT": _dict,
    "FROZENSET": _frozenset,
    "SETITEM": _set_item,
    "APPEND": _append,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "NEWOBJ_EX": _new_object_ex,
    "INST": _inst,
    "OBJ": _obj,
    "BUILD": _build,
}


def load(reader: Reader, seen: Seen) -> Any:
    """Follow one pickle up to its STOP and return what it describes.

    Args:
        reader: Where the bytes come from; left just behind the STOP.
        seen: Every name and persistent id that the pickle mentions is added here.

    Returns:
        Scalars, lists, tuples and dicts as they are; everything else as `Call`, `Global` or `Ref`. Lists and dicts may
        contain themselves.

    Raises:
        MalformedError: The bytes end early, hold an unknown instruction, or use the stack in a way that no pickle does.
    """
    machine = Machine(seen)
    try:
        for opcode, arg, _ in pickletools.genops(cast(IO[bytes], reader)):
            if opcode.name == "STOP":
                return machine.pop()
            if opcode.name not in _OPS:
                raise MalformedError(f"its pickle uses the instruction {opcode.name}, which no checkpoint needs")
            _OPS[opcode.name](machine, arg)
    except (ValueError, EOFError, OverflowError) as error:
        raise MalformedError("its pickle is cut off or damaged") from error
    raise MalformedError("its pickle never ends")
