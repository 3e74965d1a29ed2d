"""``clipvet diff``: what changed between two deliveries?"""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import Annotated

import typer

from clipvet.cli.config import class_names
from clipvet.cli.options import QuickGelu

__all__ = ["EPILOG", "diff"]

EPILOG = """Examples:

clipvet diff accepted.safetensors resent.safetensors --fail-on changed

clipvet diff output/cocoop/seed1 output/cocoop/seed2 --base ViT-B-16=ViT-B-16.pt

clipvet diff ViT-B-16.pt finetuned.pt --format json"""


class DiffFormat(enum.StrEnum):
    """What is written to standard output."""

    CONSOLE = "console"
    JSON = "json"


class DiffFailOn(enum.StrEnum):
    """What ends in exit code 1."""

    CHANGED = "changed"


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Checkpoint file or run folder.", show_default=False)],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="What it is compared with.", show_default=False)],
    base: Annotated[
        str | None, typer.Option(help="The CLIP that prompts build on: the texts of their classes are compared.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="FILE|a,b,c", help="Class names in the order of the logits, where a file holds none.")
    ] = None,
    quick_gelu: QuickGelu = None,
    output: Annotated[DiffFormat, typer.Option("--format", help="What is written to standard output.")] = DiffFormat.CONSOLE,
    fail_on: Annotated[
        DiffFailOn | None, typer.Option(help="End in exit code 1 where anything differs.", show_default=False)
    ] = None,
) -> int:
    """Say what changed between two deliveries, bases or whole models: names, tensors, texts, metadata. No verdict is made of it.

    Both are read without running anything in them. Exit code 0, the same or not; 1 with --fail-on changed; 2 on errors.
    """
    from clipvet.models.bases import load_base
    from clipvet.models.diff import compare_deliveries
    from clipvet.reports.diff_schema import to_json

    trusted = None if base is None else load_base(base, quick_gelu=quick_gelu)
    report = compare_deliveries(old, new, base=trusted, class_names=None if classes is None else class_names(classes))
    code = int(report.changed and fail_on is DiffFailOn.CHANGED)
    report = dataclasses.replace(report, exit_code=code)
    if output is DiffFormat.JSON:
        print(to_json(report), end="")
        return code
    from rich.console import Console

    from clipvet.reports.diff_console import to_console

    Console(highlight=False).print(to_console(report))
    return code
