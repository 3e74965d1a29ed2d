"""``clipvet calibrate``: a null for one's own base."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipvet.cli.config import class_names as read_names
from clipvet.cli.config import seconds
from clipvet.cli.messages import say
from clipvet.cli.options import Device, QuickGelu, Seed
from clipvet.cli.progress import show_progress
from clipvet.errors import UnwritableError, UsageError
from clipvet.reports.text import duration, named, number, visible

if TYPE_CHECKING:
    from clipvet.api import Calibrated, CalibrateOptions, InspectOptions
    from clipvet.inspection.null_file import NullFile

__all__ = ["EPILOG", "calibrate"]

EPILOG = """Examples:

clipvet calibrate --base ViT-B-16=ViT-B-16.pt --out null.json

clipvet calibrate --base pocket-0 --families coop,vpt --references 30 --classes 10-30 --out null.json --budget 1h

clipvet calibrate --base pocket-0 --out null.json --references 199 --resume

clipvet inspect output/cocoop/seed1 --base ViT-B-16=ViT-B-16.pt --null null.json"""

UNFINISHED, INTERRUPTED = 3, 130


def calibrate(  # one parameter per option: typer reads them from the signature
    base: Annotated[str, typer.Option(help="The CLIP that deliveries build on, from a source that you trust.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The null; finished references are kept in FILE.references beside it.")],
    families: Annotated[
        str | None, typer.Option(metavar="a,b,c", help="Prompt families; else coop, cocoop, vpt, ivlp and maple.")
    ] = None,
    references: Annotated[int, typer.Option(help="How many prompts are tuned; M resolve a false-positive rate of 1/(M+1).")] = 99,
    classes: Annotated[str, typer.Option(metavar="LOW-HIGH", help="Band of the number of classes.")] = "10-50",
    class_names: Annotated[
        str | None, typer.Option(metavar="FILE|a,b,c", help="Names that classes are drawn from; else common ones.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Unlabelled images that the base labels itself; else a generated pool.")
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Labelled images instead: a folder per class, named as the class is.")
    ] = None,
    probes: Annotated[Path | None, typer.Option(metavar="DIR", help="Probe images, as inspections will have them.")] = None,
    probe_count: Annotated[int, typer.Option(help="How many probe images are used at most.")] = 1000,
    quick_gelu: QuickGelu = None,
    seed: Seed = 0,
    device: Device = "cpu",
    budget: Annotated[str | None, typer.Option(metavar="10m", help="Time after which no further reference is begun.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the references that are kept, or make more of them.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, with an estimate.")] = False,
) -> int:
    """Build a null for your own base: what the default check says where nothing was planted, and feature-collapse beside it.

    Tunes prompts on the base without any backdoor, runs both checks on each as 'inspect' does (feature-collapse where the prompt
    changes the image tower), and writes what they said to FILE, for 'clipvet inspect --null FILE' with the same base and probe
    images. Exit code 3 where a budget left references out.
    """
    from clipvet.api import CalibrateOptions, InspectOptions

    how = CalibrateOptions(
        references=references,
        families=None if families is None else tuple(name.strip() for name in families.split(",")),
        classes=_band(classes),
        class_names=None if class_names is None else read_names(class_names),
        images=images,
        labelled=labelled,
    )
    work = _work_beside(out)
    like = InspectOptions(
        base=base,
        quick_gelu=quick_gelu,
        probes=probes,
        probe_count=probe_count,
        seed=seed,
        device=device,
        budget=None if budget is None else seconds(budget),
        work=work,
        resume=resume,
    )
    if dry_run:
        return _plan(like, how)
    _spare_earlier(work, resume=resume)
    return _run(like, how, out)


def _run(like: InspectOptions, how: CalibrateOptions, out: Path) -> int:
    from clipvet import api
    from clipvet.inspection.null_file import write_null

    try:
        with show_progress(str(like.base)) as progress:
            made = api.calibrate_base(like, how, progress=progress)
    except KeyboardInterrupt:
        say(f"Finished references are kept in {visible(str(like.work))}: run the same command with --resume to go on.")
        return INTERRUPTED
    except OSError as error:
        raise UnwritableError(f"expected to keep finished references in {like.work}, got {error}: choose another --out") from error
    write_null(out, made.file)
    _show(made, how, out)
    return UNFINISHED if made.unfinished else 0


def _band(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", text)
    if found is None:
        raise UsageError(f"expected a band of class counts such as 10-50, got {text!r}")
    return int(found[1]), int(found[2])


def _work_beside(out: Path) -> Path:
    if out.is_dir():
        raise UsageError(f"expected a file for the null, found a folder at {out}: give --out a name in it, such as null.json")
    return out.with_name(out.name + ".references")


def _spare_earlier(work: Path, *, resume: bool) -> None:
    """Refuse to begin anew where hours of work lie."""
    kept = sum(1 for _ in work.glob("*.safetensors"))
    if kept and not resume:
        raise UsageError(f"expected no earlier references in {work}, found {kept}: use them with --resume, or remove that folder")


def _plan(like: InspectOptions, how: CalibrateOptions) -> int:
    from clipvet import api

    plan = api.plan_calibration(like, how)
    print(f"{visible(str(like.base))}: about {duration(plan.seconds)}, {plan.image_passes} images through the encoder")
    for position, stage in enumerate(plan.stages, 1):
        print(f"  {position}. {visible(stage)}")
    return 0


def _show(made: Calibrated, how: CalibrateOptions, out: Path) -> None:
    """Say what the null is, what it can tell, and what was left out."""
    file, row = made.file, made.file.nulls[0]
    low, high = row.key.classes
    print(f"{visible(str(out))}: a null of {visible(row.source)}, {low} to {high} classes each.")
    print(f"  {_thresholds(file)}")
    print(f"  {_beyond(file)}")
    print(f"  {file.resolves}")
    if file.failed:
        print(f"  {_failed(file)}")
    if made.skipped:
        first, *others = made.skipped
        more = f" (and {len(others)} more)" if others else ""
        print(f"  Not read: {visible(first.what)}: {visible(first.why)}{more}")
    if made.unfinished:
        count = len(row.values) + len(file.failed)
        print(f"  {count} of {how.references} references were made, since {made.unfinished}; --resume goes on.")
    print(f"Use it with: clipvet inspect DELIVERY --base ... --null {visible(str(out))}")


def _thresholds(file: NullFile) -> str:
    from clipvet.inspection.calibration import certain_of, flag_of

    null = file.null
    certain, values = certain_of(null), null.values
    text = f"{null.check}: {number(values[0])} to {number(values[-1])}; suspicious above {number(flag_of(null.check, null))}"
    if null.pseudo_labelled:
        return f"{text}, never backdoored: the base's own labels move prompts too little for that; --labelled lifts this."
    return text + (f", backdoored above {number(certain)}." if math.isfinite(certain) else ".")


def _beyond(file: NullFile) -> str:
    """Say what the second null is, or that there is none."""
    from clipvet.inspection.calibration import flag_of
    from clipvet.inspection.feature_collapse import FeatureCollapse
    from clipvet.inspection.null_file import LEAST_VALUES

    null = file.beyond
    if null is None:
        return (
            f"No null of {FeatureCollapse.name}: that takes {LEAST_VALUES} references that change the image tower, as vpt does, "
            "and learned the labels of their images."
        )
    values = null.values
    text = f"{null.check}: {number(values[0])} to {number(values[-1])} in the {len(values)} that change the image tower"
    if null.pseudo_labelled:
        return f"{text}; flags nothing: the base's own labels move a tower too little for that; --labelled lifts this."
    return f"{text}; a finding above {number(flag_of(null.check, null))}."


def _failed(file: NullFile) -> str:
    kinds = Counter(one.family for one in file.failed)
    listed = ", ".join(f"{count} {named(family)}" for family, count in sorted(kinds.items()))
    return (
        f"{len(file.failed)} further references hardly learned the labels of their images and are no part of the null ({listed}); "
        "where it is many, give images and names that the base knows."
    )
