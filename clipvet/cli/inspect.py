"""``clipvet inspect``: is the model that I was handed backdoored?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipvet.cli.config import class_names, inspect_options, seconds
from clipvet.cli.exits import FailOn
from clipvet.cli.given import given_deliveries
from clipvet.cli.many import Run
from clipvet.cli.messages import say_error
from clipvet.cli.options import Base, Classes, Family, Position, QuickGelu
from clipvet.cli.output import Format, Output
from clipvet.reports.text import duration, visible

if TYPE_CHECKING:
    from clipvet.api import InspectOptions

__all__ = ["EPILOG", "inspect"]

EPILOG = """Examples:

clipvet inspect output/cocoop/seed1 --base ViT-B-16=ViT-B-16.pt --out report

clipvet inspect model.pth.tar-10 --base pocket-0 --classes names.txt --probes photos/

clipvet inspect a/ b/ --base pocket-0 --format sarif --fail-on backdoored

clipvet inspect deliveries/ --base ViT-B-16=ViT-B-16.pt --workers 4 --out reports

RAY_ADDRESS=head:6379 clipvet inspect /shared/deliveries --base /shared/base.pt --engine ray --workers 32 --out /shared/reports"""


def inspect(  # one parameter per option: typer reads them from the signature
    ctx: typer.Context,
    deliveries: Annotated[
        list[Path],
        typer.Argument(
            metavar="DELIVERY...", help="Checkpoint files, run folders, or folders that hold several.", show_default=False
        ),
    ],
    base: Base = None,
    classes: Classes = None,
    family: Family = None,
    position: Position = None,
    quick_gelu: QuickGelu = None,
    probes: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of unlabelled images; else a generated pool.")] = None,
    probe_count: Annotated[int | None, typer.Option(help="How many probe images are used at most.  [default: 1000]")] = None,
    null: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Null of 'clipvet calibrate'; judged against before those that ship.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="default, paper (CLIP-Inspector as published), neural-cleanse or pixel-backdoor.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The one seed of everything random.  [default: 0]")] = None,
    device: Annotated[str | None, typer.Option(help="Torch device.  [default: cpu]")] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="10m", help="Time after which no further group of classes is begun.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file with these options; the command line wins.")
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="What is written to standard output.")] = Format.CONSOLE,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for every format, trigger pictures and tensors.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; each inspects a delivery at a time.")] = 1,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|ray",
            help="Where they run; ray: on the cluster at RAY_ADDRESS, all of whose machines must see the same files as this one.",
        ),
    ] = "local",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from what an interrupted run left in --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, with an estimate.")] = False,
    fail_on: Annotated[FailOn, typer.Option(help="The lowest verdict that ends in exit code 1.")] = FailOn.SUSPICIOUS,
    min_coverage: Annotated[float, typer.Option(min=0, max=1, help="Share of the work below which the exit code is 3.")] = 1.0,
) -> int:
    """Inspect delivered models: a verdict, its target and the reconstructed trigger.

    Each delivery is read without running anything in it. A report goes to standard output, progress to standard error. Of several
    deliveries there is a report each, in the order of the arguments, and a summary: summary.html, .json and .sarif in --out.
    """
    given = {
        "base": base,
        "class_names": None if classes is None else class_names(classes),
        "family": family,
        "position": position,
        "quick_gelu": quick_gelu,
        "probes": probes,
        "probe_count": probe_count,
        "null": null,
        "preset": preset,
        "seed": seed,
        "device": device,
        "budget": None if budget is None else seconds(budget),
        "work": out,
        "resume": resume,
    }
    options = inspect_options(given, config)
    found = given_deliveries(deliveries, without=out)
    if dry_run:
        return _plan(found.paths, options, output, debug=ctx.obj["debug"])
    run = Run(options=options, fail_on=fail_on, min_coverage=min_coverage, engine=engine, workers=workers, debug=ctx.obj["debug"])
    return run.all(found, Output(output, several=found.several, folder=out))


def _plan(deliveries: Sequence[Path], options: InspectOptions, output: Format, *, debug: bool) -> int:
    """Print what would be done; JSON for the machine formats, one document per line."""
    from clipvet import api

    show: Callable[[Path, Any], None] = _plan_words if output is Format.CONSOLE else _plan_json
    failures = 0
    for delivery in deliveries:
        try:
            show(delivery, api.plan_inspection(delivery, options))
        except Exception as error:  # as in a run: the next delivery is still planned
            failures += 1
            say_error(error, about=str(delivery), debug=debug)
    return 2 if failures else 0


def _plan_words(delivery: Path, plan: Any) -> None:
    print(f"{visible(str(delivery))}: about {duration(plan.seconds)}, {plan.image_passes} images through the encoder")
    for number, stage in enumerate(plan.stages, 1):
        print(f"  {number}. {visible(stage)}")


def _plan_json(delivery: Path, plan: Any) -> None:
    print(json.dumps({"delivery": str(delivery), **dataclasses.asdict(plan)}))
