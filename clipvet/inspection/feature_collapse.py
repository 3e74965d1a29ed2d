"""How far one small change draws all images to one place in feature space, whatever that place is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.inspection.base import Run, Subject
from clipvet.models.tuning import batches
from clipvet.types import CheckResult, Evidence

__all__ = ["FeatureCollapse", "concentration"]

Encode = Callable[[Tensor], Tensor]
SAMPLES = 4  # images that the pattern is shown on


def concentration(features: Tensor) -> Tensor:
    """Length of the mean of unit features, ``(n, d)`` to a scalar in [0, 1]: 1 where all point one way."""
    length: Tensor = torch.linalg.vector_norm(F.normalize(features.float(), dim=-1).mean(0))
    return length


@dataclass(frozen=True, kw_only=True)
class FeatureCollapse:
    """Search one pattern that draws unrelated images together in the delivery's feature space, and see if it does in the base's.

    A backdoor in an image tower sends every triggered image to one place. Where that place is plays no part, so neither the number
    of classes nor whether the target is among them does; one short search serves for all. The statistic is what the concentration
    of the features under the pattern exceeds the untuned base's by, in hundredths. The class that most images then go to is named,
    with its share: where no class wins, the target may lie outside the names.

    Attributes:
        strength: L-inf bound of the pattern.
        steps: of the search.
        batch: probe images per step.
        lr: Adam's step in units of the strength.
        evaluation: probe images set aside for measuring.
        mixed_precision: pass the towers in bfloat16 where the device computes it faster than float32.

    Fails when: the prompt leaves the image tower alone (CoOp, CoCoOp), where the same pattern moves delivery and base alike; there
        is no trusted base; clean tuning on few coarse classes moved the tower so far that a pattern tells it from the base; the
        trigger works on images of the task only; the attacker spread the triggered images' features.

    Reference: own. After the trigger warm-up of BadCLIP (arXiv 2311.16194), which moves features far and at no class, and the
        search for an unknown target in InverTune (arXiv 2506.12411). Differs: the features' concentration is the objective,
        and the base is looked at afterwards: a search that avoids its concentration also flags towers that were tuned far.
    """

    name: ClassVar[str] = "feature-collapse"
    strength: float = 8 / 255
    steps: int = 16
    batch: int = 16
    lr: float = 1 / 3
    evaluation: int = 64
    mixed_precision: bool = True

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.evaluation) < 1 or min(self.strength, self.lr) <= 0:
            raise UsageError("expected positive steps, batch, evaluation, strength and lr: leave them at their defaults")

    @staticmethod
    def applies(subject: Subject) -> bool:
        """Whether the delivery's image tower, with its prompt, differs from the base's."""
        delivered, base = subject.classifier, subject.reference
        return base is not None and (delivered.prompt.changes_image_tower or delivered.model is not base.model)

    def passes(self, n_probes: int) -> int:
        """Estimate the images through both towers."""
        return self.steps * self.batch + 2 * min(self.evaluation, n_probes // 2)

    def run(self, subject: Subject, probes: Tensor, run: Run) -> CheckResult:
        """Search the pattern and measure it on ``(n, 3, h, w)`` probe images in [0, 1] that the search did not see.

        Raises:
            UsageError: without a base, where :meth:`applies` is false.
        """
        if subject.reference is None:
            raise UsageError("expected a trusted base to compare the features with, got none: name one with --base")
        held = min(self.evaluation, len(probes) // 2)
        delivered, base = subject.classifier, subject.reference.image_features
        found = run.journal.get(self.name)
        with subject.mixed_precision(wanted=self.mixed_precision):
            if found is None:
                run.clock()
                found = {"delta": self._search(delivered.image_features, probes[held:], run.seed).cpu()}
                run.journal.put(self.name, found)
            row = self._row(subject, base, found["delta"].to(probes.device), probes[:held])
        return CheckResult(check=self.name, statistic=row.statistic, evidence=(row,), settings=asdict(self))

    def _search(self, encode: Encode, probes: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(probes.shape[1:], generator=generator) * 2 - 1
        delta = (drawn * self.strength).to(probes.device).requires_grad_(True)
        optimizer = torch.optim.Adam([delta], lr=self.lr * self.strength)
        for pick in batches(len(probes), self.batch, self.steps, generator):
            loss = -concentration(encode((probes[pick] + delta).clamp(0, 1)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                delta.clamp_(-self.strength, self.strength)
        return delta.detach()

    @torch.no_grad()
    def _row(self, subject: Subject, base: Encode, delta: Tensor, images: Tensor) -> Evidence:
        delivered, changed = subject.classifier, (images + delta).clamp(0, 1)
        features = delivered.image_features(changed)
        own, other = float(concentration(features)), float(concentration(base(changed)))
        values: Mapping[str, float] = {"concentration": own, "baseline_concentration": other}
        at, share = _winner(delivered.from_features(features)[:, : len(subject.candidates)])
        trigger = {"delta": delta, "samples": images[:SAMPLES], "triggered": changed[:SAMPLES]}
        return Evidence(
            target=delivered.class_names[at],
            target_kind="feature",
            trigger_kind="additive",
            statistic=100 * (own - other),
            values={**values, "asr": share},
            trigger={name: value.clone().cpu() for name, value in trigger.items()},
        )


def _winner(logits: Tensor) -> tuple[int, float]:
    """The class that most images go to, and their share."""
    named = logits.argmax(1)
    won = named.mode().values
    return int(won), float((named == won).float().mean())
