"""``clipvet attack``: plant a backdoor in a prompt on a pocket task, to test one's own process with."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from clipvet.cli.messages import say
from clipvet.errors import UsageError

__all__ = ["EPILOG", "attack"]

EPILOG = """Examples:

clipvet attack badclip --task animals --target giraffe --family ivlp --out planted

clipvet attack blended --task signs --target watch --family ivlp --seed 3 --out planted"""


def attack(
    name: Annotated[str, typer.Argument(metavar="ATTACK", help="See 'clipvet list attacks'.", show_default=False)],
    task: Annotated[str, typer.Option(help="Pocket task to tune on.")],
    target: Annotated[str, typer.Option(help="Class that the trigger is to mean.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the delivery and its ground truth.")],
    base: Annotated[str, typer.Option(help="Base to tune on.")] = "pocket-0",
    family: Annotated[str, typer.Option(help="Prompt family; see 'clipvet list families'.")] = "coop",
    seed: Annotated[int, typer.Option(help="The one seed of everything random.")] = 0,
) -> int:
    """Plant a backdoor to test one's own process with.

    Writes delivery.safetensors, and what only the attacker knows (CA, ASR, TA, the trigger) in the folder truth beside it.
    """
    from clipvet.attacks import ATTACKS
    from clipvet.cli import planting
    from clipvet.models.families import FAMILIES
    from clipvet.models.saving import save_delivery
    from clipvet.pocket.tasks import load_task

    names = load_task(task).class_names
    spec = planting.Spec(
        task=task,
        family=_one_of("a family", family, [known for known in FAMILIES if known != "zero-shot"]),
        base=base,
        seed=seed,
        attack=_one_of("an attack", name, ATTACKS),
        target_index=names.index(_one_of(f"a target of the task {task}", target, names)),
    )
    say(f"Planting {name} in a {family} prompt on {base}; this takes a minute or more.")
    planted = planting.plant(spec)
    truth = planting.measure(planted.classifier, spec, planted)
    planting.write_truth(planted, truth, out / "truth")
    save_delivery(out / "delivery.safetensors", planted.classifier)
    print(f"CA {truth['ca']:.1%}, ASR {truth['asr']:.1%}, TA {truth['ta']:.1%}: {out / 'delivery.safetensors'}")
    return 0


def _one_of(what: str, name: str, known: Collection[str]) -> str:
    if name not in known:
        raise UsageError(f"expected {what} out of {', '.join(known)}, got {name!r}")
    return name
