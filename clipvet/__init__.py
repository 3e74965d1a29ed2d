"""Vet CLIP models, prompts and training pairs for backdoors before you trust them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {"RepairOptions": "clipvet.repair", "repair_model": "clipvet.repair"}  # name -> where it is


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: torch takes seconds, and the command line's help does without it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'clipvet' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
