"""``clipvet explain``: what a method assumes, when it fails, and the paper."""

from __future__ import annotations

from typing import Annotated

import typer

from clipvet.cli.docstrings import to_markdown
from clipvet.cli.registries import find_method

__all__ = ["EPILOG", "explain"]

EPILOG = """Examples:

clipvet explain clip-inspector

clipvet explain BadCLIP"""


def explain(method: Annotated[str, typer.Argument(help="Name of a check, attack, trigger or family.", show_default=False)]) -> int:
    """Explain one method in the words of its own documentation."""
    from rich.console import Console
    from rich.markdown import Markdown

    found = find_method(method)
    text = f"# {found.cls.__name__} ({found.kind})\n\n{to_markdown(found.doc)}"
    console = Console(highlight=False)
    console.print(Markdown(text) if console.is_terminal else text, markup=False)
    return 0
