"""``clipvet repair``: can the model that I was handed be made usable again?"""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipvet.cli.config import class_names
from clipvet.cli.messages import say
from clipvet.cli.options import Base, Classes, Device, Family, Position, QuickGelu, Seed
from clipvet.cli.progress import show_progress
from clipvet.errors import UnwritableError
from clipvet.reports.text import visible

if TYPE_CHECKING:
    from clipvet.types import RepairReport

__all__ = ["EPILOG", "repair"]

EPILOG = """Examples:

clipvet repair output/maple/seed1 --labelled images/ --base ViT-B-16=ViT-B-16.pt --out repaired

clipvet repair prompt.safetensors --report report --labelled images/ --test held-out/ --base pocket-0 --out repaired

clipvet repair prompt.safetensors --target giraffe --labelled images/ --base pocket-0 --out repaired"""


class RepairFormat(enum.StrEnum):
    """What is written to standard output."""

    CONSOLE = "console"
    JSON = "json"
    HTML = "html"


def repair(  # one parameter per option: typer reads them from the signature
    delivery: Annotated[Path, typer.Argument(metavar="DELIVERY", help="Checkpoint file or run folder.", show_default=False)],
    labelled: Annotated[
        Path, typer.Option(metavar="DIR", help="Correctly labelled images, DIR/CLASS/*: 16 for each class serve well.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the repaired files and the report.")],
    base: Base = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The --out folder of an earlier inspection; else it is inspected first.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Labelled images to measure on; else a quarter of --labelled is held out.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Take this class for the target, whatever an inspection says.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Go on where an inspection found nothing.")] = False,
    classes: Classes = None,
    family: Family = None,
    position: Position = None,
    quick_gelu: QuickGelu = None,
    seed: Seed = 0,
    device: Device = "cpu",
    output: Annotated[RepairFormat, typer.Option("--format", help="What is written to standard output.")] = RepairFormat.CONSOLE,
) -> int:
    """Tune a delivered prompt on labelled images with the reconstructed trigger, so that it can be used again.

    The delivery itself is never changed. Exit code 0 when it was repaired and measured; 1 when the reconstructed trigger still
    works on more than 5 % of the images; 2 on errors, and where an inspection found nothing to repair.
    """
    from clipvet.api import InspectOptions
    from clipvet.cli.repair_evidence import gather
    from clipvet.repair import RepairOptions, read_inputs, repair_inputs
    from clipvet.reports.repair_files import write_repair_report

    stated: dict[str, Any] = {
        "base": base,
        "class_names": None if classes is None else class_names(classes),
        "family": family,
        "position": position,
        "quick_gelu": quick_gelu,
        "seed": seed,
        "device": device,
    }
    options = RepairOptions(labelled=labelled, out=out, test=test, **stated)
    given = read_inputs(delivery, options)
    rows, verdict = gather(given.opened.classifier, delivery, InspectOptions(**stated), report=report, target=target, force=force)
    with show_progress(str(delivery)) as progress:
        done = repair_inputs(given, rows, options, progress=progress)
    source = "reconstructed here" if report is None else f"of the inspection in {report}"
    settings = {**done.settings, "triggers": source, "verdict before": verdict}
    done = dataclasses.replace(done, settings=settings, exit_code=0 if done.succeeded else 1)
    try:
        write_repair_report(done, out)
    except OSError as error:
        raise UnwritableError(f"{out}: the report cannot be written ({error}): name another --out") from error
    _print(done, output, out)
    return done.exit_code or 0


def _print(done: RepairReport, output: RepairFormat, out: Path) -> None:
    match output:
        case RepairFormat.JSON:
            from clipvet.reports.repair_schema import to_json

            print(to_json(done), end="")
        case RepairFormat.HTML:
            from clipvet.reports.repair_html import to_html

            print(to_html(done), end="")
        case RepairFormat.CONSOLE:
            from rich.console import Console

            from clipvet.reports.repair_console import to_console

            Console(highlight=False).print(to_console(done))
            say(f"Report: {visible(str(out / 'report.html'))}")
