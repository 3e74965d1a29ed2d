"""``clipvet inspect``: is the model that I was handed backdoored?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipvet.cli.config import class_names, inspect_options, seconds
from clipvet.cli.exits import FailOn, exit_code
from clipvet.cli.messages import say, say_error
from clipvet.cli.output import Format, Output, folders_for
from clipvet.cli.progress import show_progress
from clipvet.reports.text import duration, visible
from clipvet.types import Report

if TYPE_CHECKING:
    from clipvet.api import InspectOptions

__all__ = ["EPILOG", "inspect"]

EPILOG = """Examples:

clipvet inspect output/cocoop/seed1 --base ViT-B-16=ViT-B-16.pt --out report

clipvet inspect model.pth.tar-10 --base pocket-0 --classes names.txt --probes photos/

clipvet inspect a/ b/ --base pocket-0 --format sarif --fail-on backdoored"""

INTERRUPTED = 130


def inspect(  # one parameter per option: typer reads them from the signature
    ctx: typer.Context,
    deliveries: Annotated[
        list[Path], typer.Argument(metavar="DELIVERY...", help="Checkpoint files or run folders.", show_default=False)
    ],
    base: Annotated[str | None, typer.Option(help="The CLIP that the delivery builds on, from a source that you trust.")] = None,
    classes: Annotated[str | None, typer.Option(metavar="FILE|a,b,c", help="Class names in the order of the logits.")] = None,
    family: Annotated[str | None, typer.Option(help="Prompt family, where the file leaves it open.")] = None,
    position: Annotated[str | None, typer.Option(help="Place of the class name in a CoOp prompt: end, middle or front.")] = None,
    quick_gelu: Annotated[
        bool | None, typer.Option("--quick-gelu/--no-quick-gelu", help="Whether the base uses QuickGELU.")
    ] = None,
    probes: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of unlabelled images; else a generated pool.")] = None,
    probe_count: Annotated[int | None, typer.Option(help="How many probe images are used at most.  [default: 1000]")] = None,
    preset: Annotated[str | None, typer.Option(help="default, or paper (CLIP-Inspector as published).")] = None,
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on from what an interrupted run left in --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, with an estimate.")] = False,
    fail_on: Annotated[FailOn, typer.Option(help="The lowest verdict that ends in exit code 1.")] = FailOn.SUSPICIOUS,
    min_coverage: Annotated[float, typer.Option(min=0, max=1, help="Share of the work below which the exit code is 3.")] = 1.0,
) -> int:
    """Inspect delivered models: a verdict, its target and the reconstructed trigger.

    Each delivery is read without running anything in it. A report goes to standard output, progress to standard error.
    """
    given = {
        "base": base,
        "class_names": None if classes is None else class_names(classes),
        "family": family,
        "position": position,
        "quick_gelu": quick_gelu,
        "probes": probes,
        "probe_count": probe_count,
        "preset": preset,
        "seed": seed,
        "device": device,
        "budget": None if budget is None else seconds(budget),
        "work": out,
        "resume": resume,
    }
    options = inspect_options(given, config)
    if dry_run:
        return _plan(deliveries, options, output, debug=ctx.obj["debug"])
    run = _Run(options=options, fail_on=fail_on, min_coverage=min_coverage, debug=ctx.obj["debug"])
    return run.all(deliveries, folders_for(deliveries, out), Output(output, several=len(deliveries) > 1, to_folder=out is not None))


@dataclass(kw_only=True)
class _Run:
    """One call of the command: its settings, and what it has so far."""

    options: InspectOptions
    fail_on: FailOn
    min_coverage: float
    debug: bool
    reports: list[Report] = field(default_factory=list)
    failures: int = 0

    def code(self, reports: list[Report], failures: int) -> int:
        return exit_code(reports, failures=failures, fail_on=self.fail_on, min_coverage=self.min_coverage)

    def all(self, deliveries: list[Path], folders: list[Path | None], output: Output) -> int:
        """Inspect one delivery after the other; an error with one is said, and the next is begun."""
        try:
            for delivery, folder in zip(deliveries, folders, strict=True):
                self.one(delivery, folder, output)
        except KeyboardInterrupt:
            say(_interrupted(self.options))
            return INTERRUPTED
        finally:
            output.close()
        return self.code(self.reports, self.failures)

    def one(self, delivery: Path, folder: Path | None, output: Output) -> None:
        from clipvet import api

        options = dataclasses.replace(self.options, work=None if folder is None else folder / "state")
        try:
            with show_progress(str(delivery)) as progress:
                report = api.inspect_model(delivery, options, progress=progress)
            self.reports.append(report)
            output.add(dataclasses.replace(report, exit_code=self.code([report], 0)), folder)
        except Exception as error:  # the other deliveries, and what was found in them, must not be lost
            self.failures += 1
            say_error(error, about=str(delivery), debug=self.debug)


def _interrupted(options: InspectOptions) -> str:
    if options.work is None:
        return "Nothing was kept: with --out DIR, a run leaves what is done, and --resume goes on from there."
    return f"What is done is kept in {visible(str(options.work))}: run the same command with --resume to go on."


def _plan(deliveries: list[Path], options: InspectOptions, output: Format, *, debug: bool) -> int:
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
