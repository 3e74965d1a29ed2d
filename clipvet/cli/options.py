"""Options that several commands share: how a delivery is read, and where the search runs."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Base", "Classes", "Device", "Family", "Position", "QuickGelu", "Seed"]

Base = Annotated[str | None, typer.Option(help="The CLIP that the delivery builds on, from a source that you trust.")]
Classes = Annotated[str | None, typer.Option(metavar="FILE|a,b,c", help="Class names in the order of the logits.")]
Family = Annotated[str | None, typer.Option(help="Prompt family, where the file leaves it open.")]
Position = Annotated[str | None, typer.Option(help="Place of the class name in a CoOp prompt: end, middle or front.")]
QuickGelu = Annotated[bool | None, typer.Option("--quick-gelu/--no-quick-gelu", help="Whether the base uses QuickGELU.")]
Seed = Annotated[int, typer.Option(help="The one seed of everything random.")]
Device = Annotated[str, typer.Option(help="Torch device.")]
