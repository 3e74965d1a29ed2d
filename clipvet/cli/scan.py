"""``clipvet scan``: which of my image-text pairs are poisoned?"""

from __future__ import annotations

import dataclasses
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipvet.cli.exits import scan_exit_code
from clipvet.cli.messages import say
from clipvet.cli.options import Device, Seed
from clipvet.cli.output import Format
from clipvet.cli.progress import show_progress
from clipvet.cli.scan_invert import invert_groups
from clipvet.errors import UsageError
from clipvet.reports.text import visible

if TYPE_CHECKING:
    from clipvet.models.base import ClipModel
    from clipvet.scan.options import ScanOptions
    from clipvet.types import ScanReport

__all__ = ["EPILOG", "scan"]

EPILOG = """Examples:

clipvet scan 'data/{00000..00099}.tar' --model ViT-B-32=open_clip.pt --out scan

clipvet scan pairs.csv --model pocket-0 --scorer slof --k 32 --out scan

clipvet scan embeddings/ --out scan --scorer dao,clip-score

clipvet scan photos/ --model model.pt --clean trusted/ --flag-rate 0.001 --out scan

clipvet scan pairs.csv --model trained_on_them.pt --trusted-model another.pt --out scan

clipvet scan pairs.csv --model trained_on_them.pt --invert 3 --out scan

RAY_ADDRESS=head:6379 clipvet scan /shared/data --model /shared/model.pt --engine ray --workers 32 --out /shared/scan"""

INTERRUPTED = 130


def scan(  # one parameter per option: typer reads them from the signature
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="PAIRS...",
            help="Tar shards, folders, tables, COCO JSON, embeddings; braces, globs.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for everything; the same command there goes on where it stopped.")
    ],
    model: Annotated[
        str | None, typer.Option(help="The CLIP that encodes the pairs: the one trained on them, or another. None for embeddings.")
    ] = None,
    trusted_model: Annotated[
        str | None, typer.Option(help="A second CLIP, not trained on these pairs: captions that only --model believes stand out.")
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(
            metavar="a,b",
            help="Scorers; the first one ranks and flags.  [default: slof-dense; with --trusted-model slof-dense+clip-gap]",
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="default, or official-code: SLOF and DAO with the published code's slips.")
    ] = "default",
    k: Annotated[
        int | None, typer.Option(min=2, help="Neighbours.  [default: 4.5 times the poison the reference may hold]")
    ] = None,
    features: Annotated[
        str | None, typer.Option(metavar="image|text|both", help="Features that are compared.  [default: image]")
    ] = None,
    reference: Annotated[int, typer.Option(min=1, help="Pairs in the random sample that all are compared with.")] = 8192,
    batches: Annotated[bool, typer.Option("--batches", help="Compare in batches of 2,048 drawn from it, as published.")] = False,
    clean: Annotated[
        list[str] | None, typer.Option(metavar="PAIRS", help="A trusted set: it is the reference and sets the threshold.")
    ] = None,
    flag_rate: Annotated[float, typer.Option(help="Share of the pairs that is flagged; of clean ones, with --clean.")] = 0.01,
    poison_rate: Annotated[float, typer.Option(help="Poison of one kind that the scan should withstand, as a share.")] = 0.01,
    least_group: Annotated[int, typer.Option(min=1, help="Flagged pairs that must be alike for a verdict of suspicious.")] = 10,
    image_col: Annotated[str | None, typer.Option(help="Column or member with the image.  [default: recognised]")] = None,
    caption_col: Annotated[str | None, typer.Option(help="Column or member with the caption.  [default: recognised]")] = None,
    id_col: Annotated[str | None, typer.Option(help="Column or member with the key.  [default: recognised]")] = None,
    gallery: Annotated[
        int, typer.Option(min=0, help="How many of the worst pairs are shown with pictures; of each group, 12.")
    ] = 100,
    invert: Annotated[
        int, typer.Option(min=0, help="Search a patch that makes --model say the captions of so many groups, largest first (slow).")
    ] = 0,
    seed: Seed = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images per pass of the encoder.")] = 64,
    workers: Annotated[int, typer.Option(min=1, help="Processes; each takes a shard at a time.")] = 1,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|ray",
            help="Where they run; ray: on the cluster at RAY_ADDRESS, all of whose machines must see PAIRS, the model and --out.",
        ),
    ] = "local",
    device: Device = "cpu",
    quick_gelu: Annotated[
        bool | None, typer.Option("--quick-gelu/--no-quick-gelu", help="Whether the model uses QuickGELU.")
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="What is written to standard output.")] = Format.CONSOLE,
    min_coverage: Annotated[float, typer.Option(min=0, max=1, help="Share of pairs scored below which the exit code is 3.")] = 0.9,
) -> int:
    """Scan image-text pairs: a score for each, a threshold with its false-alarm rate, and a gallery of the worst.

    Exit code 1: at least --least-group flagged pairs are alike. Nothing is changed; 'clipvet filter' writes what is kept.
    """
    from clipvet.scan.options import ScanOptions
    from clipvet.scan.run import scan_pairs

    options = ScanOptions(
        out=out,
        model=model,
        trusted_model=trusted_model,
        scorers=() if scorer is None else tuple(name.strip() for name in scorer.split(",")),
        preset=preset,
        k=k,
        modality=features,
        reference=reference,
        batches=batches,
        clean=tuple(clean or ()),
        flag_rate=flag_rate,
        poison_rate=poison_rate,
        least_group=least_group,
        image_col=image_col,
        caption_col=caption_col,
        id_col=id_col,
        gallery=gallery,
        seed=seed,
        batch=batch,
        workers=workers,
        engine=engine,
        device=device,
        quick_gelu=quick_gelu,
    )
    if invert and model is None:
        raise UsageError("expected --model with --invert, got none: name the CLIP that was trained on the pairs")
    try:
        # Ray prints what befalls its machines to standard output, which is for the report alone
        with show_progress("scan") as progress, Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            report = scan_pairs(sources, options, progress=progress)
            if invert and report.groups:
                report = invert_groups(report, out, _model(options), invert, progress=progress)
    except KeyboardInterrupt:
        say(f"What is done is kept in {visible(str(out))}: run the same command to go on.")
        return INTERRUPTED
    code = scan_exit_code(report, min_coverage=min_coverage)
    _show(dataclasses.replace(report, exit_code=code), out, output)
    return code


def _model(options: ScanOptions) -> ClipModel:
    """Load the model that the pairs were encoded with."""
    from clipvet.models.bases import load_base

    return load_base(str(options.model), device=options.device, quick_gelu=options.quick_gelu)


def _show(report: ScanReport, out: Path, output: Format) -> None:
    """Write every format to the folder, and one to standard output."""
    from clipvet.reports import scan_to_console, scan_to_html, scan_to_json, scan_to_sarif, write_scan_report

    write_scan_report(report, out)
    match output:
        case Format.CONSOLE:
            from rich.console import Console

            Console(highlight=False).print(scan_to_console(report))
        case Format.JSON:
            print(scan_to_json(report), end="")
        case Format.SARIF:
            print(scan_to_sarif(report), end="")
        case Format.HTML:
            print(scan_to_html(report), end="")
