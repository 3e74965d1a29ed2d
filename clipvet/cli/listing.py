"""``clipvet list``: what there is, by name."""

from __future__ import annotations

from typing import Annotated

import typer

from clipvet.cli.registries import REGISTRIES, Kind, methods, summary

__all__ = ["EPILOG", "list_methods"]

EPILOG = """Examples:

clipvet list attacks

clipvet list"""


def list_methods(
    kind: Annotated[Kind | None, typer.Argument(help="One registry; all of them where none is named.", show_default=False)] = None,
) -> int:
    """List checks, scorers, attacks, triggers, prompt families and repairs, one line each."""
    for word in REGISTRIES if kind is None else [kind]:
        rows = list(methods(word))
        width = max((len(row.name) for row in rows), default=0)
        if kind is None:
            print(f"{word}:")
        for row in rows:
            print(f"  {row.name:<{width}}  {summary(row)}")
    return 0
