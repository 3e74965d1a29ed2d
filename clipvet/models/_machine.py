"""What a pickle describes, and the stack on which it is described: values without behaviour.

Standard library only (the child process imports it).
"""

from __future__ import annotations

from typing import Any

__all__ = ["Call", "Global", "Machine", "MalformedError", "Ref", "Seen"]


class MalformedError(Exception):
    """The bytes are not a pickle that can be followed; the text is the middle of a sentence."""


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


class Seen:
    """What a pickle mentioned on the way: every name, and every persistent id."""

    def __init__(self) -> None:
        self.names: list[Global] = []
        self.refs: list[Ref] = []


class _Key:
    """A dict key that must not be hashed by value (hashing a deep tuple recurses in C)."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


_PLAIN_KEYS = frozenset({str, int, float, bool, type(None), bytes, Global, Call, Ref})


def _key(value: Any) -> Any:
    return value if type(value) in _PLAIN_KEYS else _Key(value)


class Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(self, seen: Seen) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.seen = seen

    def pop(self) -> Any:
        """Take the top of the stack."""
        if not self.stack:
            raise MalformedError("its pickle takes from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        """Look at the top of the stack."""
        if not self.stack:
            raise MalformedError("its pickle looks at an empty stack")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        """Take everything down to the last mark."""
        if not self.marks:
            raise MalformedError("its pickle closes a mark that it never opened")
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def name(self, module: Any, name: Any) -> Global:
        """Note a name instead of importing it."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise MalformedError("its pickle names something by a value that is not text")
        found = Global(module, name)
        self.seen.names.append(found)
        return found

    def refer(self, pid: Any) -> None:
        """Note a persistent id instead of loading it."""
        self.seen.refs.append(Ref(pid))
        self.stack.append(self.seen.refs[-1])

    def call(self, target: Any, args: Any) -> None:
        """Note a call instead of making it."""
        if not isinstance(args, tuple):
            raise MalformedError("its pickle calls something with arguments that are not a tuple")
        self.stack.append(Call(target, args))

    def extend(self, values: list[Any]) -> None:
        """Append to the list, or list-like object, on top."""
        target = self.top()
        if isinstance(target, Call):
            target.appended = target.appended if target.appended is not None else []
            target = target.appended
        if not isinstance(target, list):
            raise MalformedError("its pickle appends to something that is not a list")
        target.extend(values)

    def fill(self, flat: list[Any]) -> None:
        """Set items in the dict, or dict-like object, on top."""
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
        """Store the top of the stack."""
        self.memo[slot] = self.top()

    def recall(self, slot: int) -> None:
        """Push what was stored."""
        if slot not in self.memo:
            raise MalformedError("its pickle recalls something that it never stored")
        self.stack.append(self.memo[slot])
