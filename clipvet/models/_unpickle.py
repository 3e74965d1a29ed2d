"""A pickle machine that has no way to call anything.

Python's unpickler calls whatever a file names. This one only takes notes: a name becomes a `Global`, a call becomes a
`Call` that is never made, a persistent id becomes a `Ref`. Numbers, strings, lists, tuples and dicts are themselves.
The result is a tree to look at, and nothing on the way to it runs, imports or opens anything.

Standard library only: the child process that parses untrusted files imports this module and must not import torch.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Call", "Global", "MalformedError", "Reader", "Ref", "load"]


class MalformedError(Exception):
    """The bytes are not a pickle that can be followed; the text is the middle of a sentence."""


class Reader(Protocol):
    """Where a pickle's bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""

    def readline(self) -> bytes:
        """Return bytes up to and including the next newline."""


class Global:
    """A name that the file wants imported."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    @property
    def text(self) -> str:
        """``module.name``."""
        return f"{self.module}.{self.name}"


class Ref:
    """A persistent id: in torch files, which storage a tensor lives in."""

    __slots__ = ("pid",)

    def __init__(self, pid: Any) -> None:
        self.pid = pid


class Call:
    """A call, or a new object, that the file asks for and that is not made; with what was then put into it."""

    __slots__ = ("appended", "args", "items", "state", "target")

    def __init__(self, target: Any, args: tuple[Any, ...]) -> None:
        self.target = target
        self.args = args
        self.state: Any = None
        self.items: dict[Any, Any] | None = None
        self.appended: list[Any] | None = None


class _Key:
    """A dict key that must not be hashed by value (hashing a deep tuple recurses in C)."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


_PLAIN_KEYS = frozenset({str, int, float, bool, type(None), bytes, Global, Call, Ref})


def _key(value: Any) -> Any:
    return value if type(value) in _PLAIN_KEYS else _Key(value)


class _Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(self, seen: list[Global]) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.seen = seen

    def pop(self) -> Any:
        if not self.stack:
            raise MalformedError("its pickle takes from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise MalformedError("its pickle looks at an empty stack")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise MalformedError("its pickle closes a mark that it never opened")
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def name(self, module: Any, name: Any) -> Global:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise MalformedError("its pickle names something by a value that is not text")
        found = Global(module, name)
        self.seen.append(found)
        return found

    def call(self, target: Any, args: Any) -> None:
        if not isinstance(args, tuple):
            raise MalformedError("its pickle calls something with arguments that are not a tuple")
        self.stack.append(Call(target, args))

    def extend(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Call):
            target.appended = target.appended if target.appended is not None else []
            target = target.appended
        if not isinstance(target, list):
            raise MalformedError("its pickle appends to something that is not a list")
        target.extend(values)

    def fill(self, flat: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Call):
            target.items = target.items if target.items is not None else {}
            target = target.items
        if not isinstance(target, dict):
            raise MalformedError("its pickle sets items in something that is not a dict")
        if len(flat) % 2:
            raise MalformedError("its pickle has a dict key without a value")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            target[_key(key)] = value

    def remember(self, slot: int) -> None:
        self.memo[slot] = self.top()

    def recall(self, slot: int) -> None:
        if slot not in self.memo:
            raise MalformedError("its pickle recalls something that it never stored")
        self.stack.append(self.memo[slot])


def _mark(m: _Machine, _: Any) -> None:
    m.marks.append(m.stack)
    m.stack = []


def _pop(m: _Machine, _: Any) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def op(m: _Machine, _: Any) -> None:
        items = [m.pop() for _ in range(count)]
        m.stack.append(tuple(reversed(items)))

    return op


def _tuple(m: _Machine, _: Any) -> None:
    items = tuple(m.pop_mark())
    m.stack.append(items)


def _list(m: _Machine, _: Any) -> None:
    items = m.pop_mark()
    m.stack.append(items)


def _dict(m: _Machine, _: Any) -> None:
    items = m.pop_mark()
    m.stack.append({})
    m.fill(items)


def _frozenset(m: _Machine, _: Any) -> None:
    items = m.pop_mark()
    m.stack.append(Call(Global("builtins", "frozenset"), (items,)))


def _set_item(m: _Machine, _: Any) -> None:
    value, key = m.pop(), m.pop()
    m.fill([key, value])


def _append(m: _Machine, _: Any) -> None:
    m.extend([m.pop()])


def _global(m: _Machine, arg: Any) -> None:
    module, _, name = arg.rpartition(" ")
    m.stack.append(m.name(module, name))


def _stack_global(m: _Machine, _: Any) -> None:
    name, module = m.pop(), m.pop()
    m.stack.append(m.name(module, name))


def _reduce(m: _Machine, _: Any) -> None:
    args, target = m.pop(), m.pop()
    m.call(target, args)


def _new_object_ex(m: _Machine, _: Any) -> None:
    _keywords, args, target = m.pop(), m.pop(), m.pop()
    m.call(target, args)


def _inst(m: _Machine, arg: Any) -> None:
    module, _, name = arg.rpartition(" ")
    args = tuple(m.pop_mark())
    m.call(m.name(module, name), args)


def _obj(m: _Machine, _: Any) -> None:
    items = m.pop_mark()
    if not items:
        raise MalformedError("its pickle builds an object of no class")
    m.call(items[0], tuple(items[1:]))


def _build(m: _Machine, _: Any) -> None:
    state = m.pop()
    target = m.top()
    # State for anything but a new object would change a class or a function; here there is nothing to change.
    if isinstance(target, Call):
        target.state = state


def _extension(m: _Machine, arg: Any) -> None:
    m.stack.append(m.name("copyreg", f"extension_{arg}"))


_VALUES = """INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT"""

_OPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(_VALUES.split(), lambda m, arg: m.stack.append(arg)),
    **dict.fromkeys("PROTO FRAME READONLY_BUFFER".split(), lambda m, arg: None),
    **dict.fromkeys("GET BINGET LONG_BINGET".split(), lambda m, arg: m.recall(arg)),
    **dict.fromkeys("PUT BINPUT LONG_BINPUT".split(), lambda m, arg: m.remember(arg)),
    **dict.fromkeys("EXT1 EXT2 EXT4".split(), _extension),
    **dict.fromkeys("REDUCE NEWOBJ".split(), _reduce),
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
    "PERSID": lambda m, arg: m.stack.append(Ref(arg)),
    "BINPERSID": lambda m, arg: m.stack.append(Ref(m.pop())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "MARK": _mark,
    "POP_MARK": lambda m, arg: m.pop_mark() and None,
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


def load(reader: Reader, seen: list[Global]) -> Any:
    """Follow one pickle up to its STOP and return what it describes.

    Args:
        reader: Where the bytes come from; left just behind the STOP.
        seen: Every name that the pickle mentions is appended here.

    Returns:
        Scalars, lists, tuples and dicts as they are; everything else as `Call`, `Global` or `Ref`. Lists and dicts may
        contain themselves.

    Raises:
        MalformedError: The bytes end early, hold an unknown instruction, or use the stack in a way that no pickle does.
    """
    machine = _Machine(seen)
    try:
        for opcode, arg, _ in pickletools.genops(reader):
            if opcode.name == "STOP":
                return machine.pop()
            if opcode.name not in _OPS:
                raise MalformedError(f"its pickle uses the instruction {opcode.name}, which no checkpoint needs")
            _OPS[opcode.name](machine, arg)
    except (ValueError, EOFError, OverflowError) as error:
        raise MalformedError("its pickle is cut off or damaged") from error
    raise MalformedError("its pickle never ends")
