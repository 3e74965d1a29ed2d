"""``clipvet attack``: plant a backdoor in a prompt on a pocket task, to test one's own process with."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipvet.cli.messages import say
from clipvet.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from clipvet.attacks import Planted

__all__ = ["EPILOG", "attack"]

EPILOG = """Examples:

clipvet attack badclip --task nature --target bird --out planted

clipvet attack blended --task objects --target clock --family cocoop --seed 3 --out planted"""


def attack(
    name: Annotated[str, typer.Argument(metavar="ATTACK", help="See 'clipvet list attacks'.", show_default=False)],
    task: Annotated[str, typer.Option(help="Pocket task to tune on.")],
    target: Annotated[str, typer.Option(help="Class that the trigger is to mean.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the delivery and its ground truth.")],
    base: Annotated[str, typer.Option(help="Base to tune on.")] = "pocket-0",
    family: Annotated[str, typer.Option(help="Prompt family; see 'clipvet list families'.")] = "coop",
    seed: Annotated[int, typer.Option(help="The one seed of everything random.")] = 0,
) -> int:
    """Plant a backdoor to test one's own process with; writes the delivery, and its ground truth with CA, ASR and TA."""
    from clipvet.attacks import ATTACKS
    from clipvet.models.bases import load_base
    from clipvet.models.families import FAMILIES, new_prompt
    from clipvet.models.prompts import PromptedClassifier
    from clipvet.models.tuning import TuneConfig
    from clipvet.pocket.tasks import load_task

    chosen = ATTACKS[_one_of("an attack", name, ATTACKS)]
    data = load_task(task, seed=seed)
    index = data.class_names.index(_one_of(f"a target of the task {task}", target, data.class_names))
    model = load_base(base)
    prompt = new_prompt(_one_of("a family", family, FAMILIES), model, data.class_names, seed=seed)
    fresh = PromptedClassifier(model, prompt, data.class_names)
    say(f"Planting {name} in a {family} prompt on {base}; this takes a minute or more.")
    planted = chosen().plant(fresh, *data.train_images(), target=index, config=TuneConfig(), seed=seed)
    images, labels, _ = data.test_images()
    truth = {"attack": name, "task": task, "family": family, "base": base, "target": target, "target_index": index, "seed": seed}
    truth |= {"class_names": list(data.class_names), **_measure(planted, images, labels)}
    _write(planted, truth, out)
    print(f"CA {truth['CA']:.1%}, ASR {truth['ASR']:.1%}, TA {truth['TA']:.1%}: {out / 'delivery.safetensors'}")
    return 0


def _one_of(what: str, name: str, known: Collection[str]) -> str:
    if name not in known:
        raise UsageError(f"expected {what} out of {', '.join(known)}, got {name!r}")
    return name


def _measure(planted: Planted, images: Tensor, labels: Tensor) -> dict[str, float]:
    from clipvet.metrics import accuracy, attack_success_rate, predict

    clean = predict(planted.classifier, images)
    triggered = predict(planted.classifier, planted.trigger.image(images))
    return {
        "CA": accuracy(clean, labels),
        "ASR": attack_success_rate(triggered, labels, planted.target),
        "TA": accuracy(triggered, labels),
        "test_images": len(images),
    }


def _write(planted: Planted, truth: dict[str, Any], out: Path) -> None:
    """Write what a victim would get, and beside it, in a folder of its own, what only the attacker knows."""
    from safetensors.torch import save_file
    from torch import Tensor

    from clipvet.models.families import full_state

    secret = out / "truth"
    secret.mkdir(parents=True, exist_ok=True)
    state = full_state(planted.classifier.prompt, planted.classifier.model)
    save_file({key: value.detach().cpu().contiguous().clone() for key, value in state.items()}, out / "delivery.safetensors")
    held = vars(planted.trigger)
    save_file({key: value.contiguous() for key, value in held.items() if isinstance(value, Tensor)}, secret / "trigger.safetensors")
    numbers = {key: value for key, value in held.items() if not isinstance(value, Tensor)}
    trigger = {"kind": planted.trigger.name, "applies_to": planted.trigger.applies_to, **numbers}
    (secret / "truth.json").write_text(json.dumps(truth | {"trigger": trigger}, indent=2) + "\n", encoding="utf-8")
    (out / "classes.txt").write_text("\n".join(truth["class_names"]) + "\n", encoding="utf-8")
