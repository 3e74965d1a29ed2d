"""Tune prompts on pocket tasks, clean ones and backdoored ones, and measure what came out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from clipvet.attacks import ATTACKS, Planted
from clipvet.errors import ClipvetError
from clipvet.metrics import accuracy, attack_success_rate, bootstrap_interval, predict
from clipvet.models.bases import load_base
from clipvet.models.families import new_prompt
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.saving import save_delivery
from clipvet.models.tuning import TuneConfig, schedule_of, tune
from clipvet.pocket.tasks import Task, load_task, task_names

__all__ = [
    "LARGEST_LOSS",
    "LEAST_ASR",
    "Spec",
    "Truth",
    "measure",
    "plant",
    "plant_fresh",
    "tune_clean",
    "write_truth",
]

LEAST_ASR, LARGEST_LOSS = 0.80, 0.03  # a backdoor counts when it works and costs at most three points of CA
LEAST_SHARE = 1 / 8  # of its shots, for the rarest class of an imbalanced task
VIEWS = 8  # renderings of each shot, so that a prompt learns what is drawn and not where it stood
CARRIERS = (("vpt", "badclip"), ("ivlp", "badclip"))  # family and attack that take on most pocket tasks
BASES = ("pocket-0", "pocket-1")
DRAWS = 6

Progress = Callable[[str, int, int], None]
Truth = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What is to be tuned.

    Attributes:
        attack: empty for a clean prompt.
        shots: training images per class.
        length: steps in units of the family's schedule.
        imbalanced: whether classes have from all of their shots down to an eighth of them.
    """

    task: str
    family: str
    base: str
    seed: int
    class_specific: bool = False
    attack: str = ""
    target_index: int = 0
    shots: int = 16
    length: float = 1.0
    imbalanced: bool = False


def _fresh(spec: Spec, task: Task) -> PromptedClassifier:
    model = load_base(spec.base)
    prompt = new_prompt(spec.family, model, task.class_names, seed=spec.seed, class_specific=spec.class_specific)
    return PromptedClassifier(model, prompt, task.class_names)


def _schedule(spec: Spec) -> TuneConfig:
    usual = schedule_of(spec.family)
    return replace(usual, steps=round(usual.steps * spec.length))


def _training_images(spec: Spec) -> tuple[Tensor, Tensor]:
    """Render the shots of the task, fewer of most classes where the specification says so."""
    task = load_task(spec.task, shots=spec.shots, seed=spec.seed)
    images, labels = task.train_images(VIEWS)
    if not spec.imbalanced:
        return images, labels
    classes = len(task.class_names)
    rank = torch.randperm(classes, generator=torch.Generator().manual_seed(spec.seed))
    most = (task.shots * LEAST_SHARE ** (rank / max(1, classes - 1))).ceil()
    kept = torch.arange(len(labels)) % task.shots < most[labels]
    return images[kept], labels[kept]


def tune_clean(spec: Spec, *, progress: Callable[[int, int], None] | None = None) -> PromptedClassifier:
    """Tune a prompt on the clean shots of the task."""
    fresh = _fresh(spec, load_task(spec.task))
    with fresh.model.mixed_precision():
        tuned = tune(fresh, *_training_images(spec), config=_schedule(spec), seed=spec.seed, progress=progress)
    return tuned.freeze()  # text features in float32


def plant(spec: Spec) -> Planted:
    """Plant the backdoor that the specification names."""
    attack, fresh = ATTACKS[spec.attack](), _fresh(spec, load_task(spec.task))
    images, labels = _training_images(spec)
    with fresh.model.mixed_precision():
        planted = attack.plant(fresh, images, labels, target=spec.target_index, config=_schedule(spec), seed=spec.seed)
    planted.classifier.freeze()  # text features in float32
    return planted


def measure(classifier: PromptedClassifier, spec: Spec, planted: Planted | None = None) -> Truth:
    """Return what is true of a prompt on the task's test images: CA and, where a backdoor was planted, ASR and TA.

    The 95 % intervals resample whole pictures, since renderings of one picture are not independent.
    """
    task = load_task(spec.task, seed=spec.seed)
    images, labels, names = task.test_images()
    right = predict(classifier, images) == labels
    truth = {
        **vars(spec),
        "class_names": list(task.class_names),
        "ca": float(right.float().mean()),
        "ca_interval": bootstrap_interval(right.tolist(), names),
        "test_images": len(labels),
    }
    if planted is None:
        return truth
    triggered = predict(classifier, planted.trigger.image(images))
    other = labels != planted.target
    hit, shown = (
        triggered[other] == planted.target,
        [name for name, is_other in zip(names, other.tolist(), strict=True) if is_other],
    )
    return truth | {
        "target": task.class_names[spec.target_index],
        "asr": attack_success_rate(triggered, labels, planted.target),
        "asr_interval": bootstrap_interval(hit.tolist(), shown),
        "asr_images": len(shown),
        "ta": accuracy(triggered, labels),
    }


def write_truth(planted: Planted, truth: Truth, folder: Path) -> None:
    """Write truth.json and the trigger's tensors: what only the attacker knows."""
    folder.mkdir(parents=True, exist_ok=True)
    held = vars(planted.trigger)
    tensors = {key: value.contiguous() for key, value in held.items() if isinstance(value, torch.Tensor)}
    numbers = {key: value for key, value in held.items() if key not in tensors}
    save_file(tensors, folder / "trigger.safetensors")
    document = truth | {"trigger": {"kind": planted.trigger.name, "applies_to": planted.trigger.applies_to, **numbers}}
    (folder / "truth.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def plant_fresh(seed: int, folder: Path, progress: Progress) -> tuple[Path, Path, Truth]:
    """Plant a backdoor with a random task, base, family and target, and tune its clean twin; the attack is BadCLIP.

    What does not work as an attack (ASR, CA) is drawn again; whether it would be found plays no part in that.

    Returns:
        Paths of the clean and of the backdoored delivery, and the ground truth.

    Raises:
        ClipvetError: none of the draws worked as an attack.
    """
    rng = random.Random(seed)  # noqa: S311 - a choice of examples, no secret
    folder.mkdir(parents=True, exist_ok=True)
    paths = (folder / "clean.safetensors", folder / "backdoored.safetensors")
    for draw in range(DRAWS):
        family, attack = rng.choice(CARRIERS)
        clean = Spec(task=rng.choice(task_names()), family=family, base=rng.choice(BASES), seed=seed + draw)
        task = load_task(clean.task, seed=clean.seed)
        twin = tune_clean(clean, progress=lambda done, total: progress("tuning the clean twin", done, total))
        clean_ca = measure(twin, clean)["ca"]
        progress("planting until an attack takes", draw, DRAWS)
        spec = replace(clean, attack=attack, target_index=rng.randrange(len(task.class_names)))
        planted = plant(spec)
        truth = measure(planted.classifier, spec, planted)
        if truth["asr"] >= LEAST_ASR and truth["ca"] >= clean_ca - LARGEST_LOSS:
            progress("planting until an attack takes", DRAWS, DRAWS)
            save_delivery(paths[0], twin)
            save_delivery(paths[1], planted.classifier)
            write_truth(planted, truth | {"clean_ca": clean_ca}, folder / "truth")
            return *paths, truth
    raise ClipvetError(f"expected an attack out of {DRAWS} draws to work, none did with seed {seed}: try another --seed")
