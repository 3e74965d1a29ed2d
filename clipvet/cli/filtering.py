"""``clipvet filter``: the data again, without what a scan flagged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipvet.cli.messages import say
from clipvet.cli.progress import show_progress
from clipvet.reports.text import visible

__all__ = ["EPILOG", "filter_pairs"]

EPILOG = """Examples:

clipvet filter 'data/{00000..00099}.tar' --scan scan --out kept

clipvet filter pairs.csv --scan scan --decisions decisions.csv --out kept"""


def filter_pairs(
    sources: Annotated[list[str], typer.Argument(metavar="PAIRS...", help="The data, as they were scanned.", show_default=False)],
    scan: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the finished scan.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the kept pairs; not that of the data.")],
    decisions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table downloaded from the gallery; it wins over the scan.")
    ] = None,
    image_col: Annotated[str | None, typer.Option(help="As for the scan.")] = None,
    caption_col: Annotated[str | None, typer.Option(help="As for the scan.")] = None,
    id_col: Annotated[str | None, typer.Option(help="As for the scan.")] = None,
) -> int:
    """Write image-text pairs again, in the format they came in, without those that a scan flagged.

    Pairs without a score (they could not be read, or have no features) are left out too. The data themselves stay as they are.
    """
    from clipvet.scan.filtering import filter_pairs as run
    from clipvet.scan.filtering import read_decisions

    wanted = read_decisions(decisions) if decisions else None
    with show_progress("filter") as progress:
        done = run(sources, scan, out, decisions=wanted, columns=(image_col, caption_col, id_col), progress=progress)
    print(f"{done.kept:,} pairs kept, {done.dropped:,} dropped")
    print(f"{len(done.files):,} files in {visible(str(out))}")
    for error in done.errors:
        say(f"Error: {visible(error)}")
    return 2 if done.errors else 0
