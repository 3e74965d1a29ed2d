"""The registries by the word that a person types; each is imported when it is asked for."""

from __future__ import annotations

import difflib
import enum
import importlib
import inspect as reflect
from collections.abc import Iterator
from dataclasses import dataclass

from clipvet.errors import UsageError

__all__ = ["REGISTRIES", "Kind", "Method", "find_method", "methods", "summary"]


class Kind(enum.StrEnum):
    """A registry, by the word that names what is in it."""

    CHECKS = "checks"
    SCORERS = "scorers"
    ATTACKS = "attacks"
    PAIR_ATTACKS = "pair-attacks"
    TRIGGERS = "triggers"
    FAMILIES = "families"
    REPAIRS = "repairs"


REGISTRIES: dict[Kind, tuple[str, str]] = {  # module, name of the dict in it
    Kind.CHECKS: ("clipvet.inspection", "CHECKS"),
    Kind.SCORERS: ("clipvet.scan", "ALL_SCORERS"),
    Kind.ATTACKS: ("clipvet.attacks", "ATTACKS"),
    Kind.PAIR_ATTACKS: ("clipvet.attacks", "PAIR_ATTACKS"),
    Kind.TRIGGERS: ("clipvet.triggers", "TRIGGERS"),
    Kind.FAMILIES: ("clipvet.models.families", "FAMILIES"),
    Kind.REPAIRS: ("clipvet.repair", "REPAIRS"),
}


@dataclass(frozen=True, kw_only=True)
class Method:
    """One registered class: its registry, the name it is registered under, and the class."""

    kind: Kind
    name: str
    cls: type

    @property
    def doc(self) -> str:
        """The class's own docstring; empty where it has none."""
        return reflect.cleandoc(self.cls.__dict__.get("__doc__") or "")


def methods(kind: Kind) -> Iterator[Method]:
    """Yield the methods of one registry in their order."""
    module, name = REGISTRIES[kind]
    for key, cls in getattr(importlib.import_module(module), name).items():
        yield Method(kind=kind, name=key, cls=cls)


def summary(method: Method) -> str:
    """Return the first sentence of the docstring, on one line."""
    return " ".join(method.doc.split("\n\n")[0].split())


def find_method(word: str) -> Method:
    """Find a method by the name it is registered under or its class's name; case, hyphens and underscores do not matter.

    Raises:
        UsageError: no registry has it; the sentence names what comes near.
    """
    known = {_plain(key): method for kind in REGISTRIES for method in methods(kind) for key in (method.cls.__name__, method.name)}
    found = known.get(_plain(word))
    if found is None:
        names = sorted({method.name for method in known.values()})
        near = difflib.get_close_matches(word, names, n=3, cutoff=0.5) or names
        raise UsageError(f"expected a method, got {word!r}: did you mean {' or '.join(near)}? 'clipvet list' shows what there is")
    return found


def _plain(word: str) -> str:
    return "".join(char for char in word.lower() if char.isalnum())
