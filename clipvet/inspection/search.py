"""Reconstruct one trigger per class from unlabelled images: many classes in one pass through the tower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.inspection.shapes import SHAPES, Shape
from clipvet.models.base import ClipModel

__all__ = ["Logits", "Measured", "Search", "SearchConfig", "Searching", "chunk_for", "margins"]

POCKET_SIZE = 65 * 128 * 6  # tokens, width and layers of the tower that the largest chunk was measured on

Logits = Callable[[Tensor], Tensor]


class Searching(Protocol):
    """How a trigger is searched: :class:`SearchConfig`, or the configuration of a search with another loss."""

    @property
    def batch(self) -> int:
        """Probe images per class and step."""
        ...

    @property
    def chunk(self) -> int:
        """Images in one pass through the tower."""
        ...

    def new_shape(self, targets: list[int], size: int, seed: int) -> Shape:
        """Begin the triggers of several classes, for images of ``size`` pixels."""
        ...

    def optimizer(self, shape: Shape) -> torch.optim.Optimizer:
        """Begin an optimiser of their free variables."""
        ...

    def begin(self, logits: Logits, probes: Tensor, targets: Tensor, *, seed: int, candidates: int | None = None) -> Search:
        """Begin a search; see :class:`Search` for the arguments."""
        ...


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How a trigger is searched.

    Attributes:
        shape: ``additive``, ``patch`` or ``blend``: what the trigger may look like.
        strength: L-inf bound of an additive trigger, share of the area of a patch, ratio of a blend.
        batch: probe images per class and step.
        lr: Adam's step in units of the strength.
        chunk: images in one pass through the tower; bounds memory whatever the number of classes.
    """

    shape: str = "additive"
    strength: float = 8 / 255
    batch: int = 32
    lr: float = 0.25
    chunk: int = 128

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise UsageError(f"expected a trigger shape out of {', '.join(SHAPES)}, got {self.shape!r}")
        if not 0 < self.strength <= 1:
            raise UsageError(f"expected a trigger strength in (0, 1], got {self.strength}")
        if self.batch < 1 or self.chunk < 1 or self.lr <= 0:
            raise UsageError(f"expected positive batch, chunk and lr, got {self.batch}, {self.chunk}, {self.lr}")

    def new_shape(self, targets: list[int], size: int, seed: int) -> Shape:
        """Begin triggers of the configured shape; see :class:`Searching`."""
        return SHAPES[self.shape](targets, size, self.strength, seed)

    def optimizer(self, shape: Shape) -> torch.optim.Optimizer:
        """Begin Adam; see :class:`Searching`."""
        return torch.optim.Adam(shape.parameters(), lr=self.lr * shape.step_unit)

    def begin(self, logits: Logits, probes: Tensor, targets: Tensor, *, seed: int, candidates: int | None = None) -> Search:
        """Begin a search; see :class:`Searching`."""
        return Search(logits, probes, targets, config=self, seed=seed, candidates=candidates)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the triggers of ``k`` classes do to probe images: mean margins over all names, shares among the candidates; ``(k,)``."""

    margin: Tensor
    asr: Tensor


def chunk_for(model: ClipModel) -> int:
    """Images in one pass that keep a tower's activations near a gigabyte: 128 for the pocket, 16 for ViT-B/16."""
    if not model.is_vit:
        return 32
    tokens = int(model.clip.visual.positional_embedding.shape[0])
    ratio = tokens * model.vision_width * model.vision_layers / POCKET_SIZE
    return max(16, min(128, round(4 * 128 / ratio)))


def margins(logits: Tensor, targets: Tensor, among: int | None = None) -> Tensor:
    """Logit of the target minus the largest other: ``(n, c)`` and ``(n,)`` give ``(n,)``; positive where the target wins.

    The others are the first ``among`` names, or all.
    """
    wanted = logits.gather(1, targets[:, None])[:, 0]
    others = logits.scatter(1, targets[:, None], float("-inf"))[:, :among].amax(1)
    return wanted - others


class Search:
    """Triggers of several classes, optimised side by side; each class's result is independent of which others are searched.

    Args:
        logits: a differentiable classifier, on the device of ``probes``.
        probes: ``(n, 3, h, w)`` in [0, 1], unlabelled.
        targets: ``(k,)``, the classes to reconstruct a trigger for.
        config: shape, bound and schedule.
        seed: order of the probe images, shared by all classes, and initial values, drawn per class.
        candidates: how many of the first names the target must beat to be reached; None for all.

    Reference: CLIP-Inspector (arXiv 2604.09101): margin loss, universal change per class, Adam. Differs: classes share passes.
    """

    def __init__(
        self, logits: Logits, probes: Tensor, targets: Tensor, *, config: Searching, seed: int, candidates: int | None = None
    ) -> None:
        self.logits, self.probes, self.config, self.candidates = logits, probes, config, candidates
        self.targets = targets.to(probes.device)
        self.shape = config.new_shape(targets.tolist(), probes.shape[-1], seed)
        self.load(self.shape.state())
        self._generator = torch.Generator().manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.long)
        self.last_loss = torch.full((len(targets),), float("nan"))

    def _batch(self) -> Tensor:
        while len(self._order) < self.config.batch:
            self._order = torch.cat([self._order, torch.randperm(len(self.probes), generator=self._generator)])
        pick, self._order = self._order[: self.config.batch], self._order[self.config.batch :]
        return self.probes[pick]

    def run(self, steps: int) -> None:
        """Take so many steps for every class."""
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        """Take one step for every class."""
        images = self._batch()
        self._optimizer.zero_grad()
        losses = []
        for part in torch.arange(len(self.targets)).split(max(1, self.config.chunk // len(images))):
            stamped = self.shape.apply(images, part)  # (k, b, 3, h, w)
            wanted = self.targets[part].repeat_interleave(len(images))
            loss = -margins(self.logits(stamped.flatten(0, 1)), wanted).view(len(part), -1).mean(1)
            loss.sum().backward()
            losses.append(loss.detach())
        self._optimizer.step()
        self.shape.project()
        self.last_loss = torch.cat(losses)

    def load(self, variables: dict[str, Tensor]) -> None:
        """Take up free variables, on the device of the probe images, and begin Adam anew."""
        self.shape.load({name: value.to(self.probes.device) for name, value in variables.items()})
        self._optimizer = self.config.optimizer(self.shape)

    @torch.no_grad()
    def measure(self, logits: Logits, images: Tensor) -> Measured:
        """Put the triggers on ``images`` and see what a classifier (this one or another) makes of them."""
        margin, asr = [], []
        for part in torch.arange(len(self.targets)).split(max(1, self.config.chunk // len(images))):
            pairs = [self._margins(logits, some, part) for some in images.split(self.config.chunk)]
            margin.append(torch.cat([every for every, _ in pairs], dim=1).mean(1))
            asr.append((torch.cat([own for _, own in pairs], dim=1) > 0).float().mean(1))
        return Measured(margin=torch.cat(margin), asr=torch.cat(asr))

    def _margins(self, logits: Logits, images: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
        """Margins of the triggers ``part`` on every image, over all names and among the candidates: ``(len(part), n)`` each."""
        wanted = self.targets[part].repeat_interleave(len(images))
        found = logits(self.shape.apply(images, part).flatten(0, 1))
        every, own = margins(found, wanted), margins(found, wanted, self.candidates)
        return every.view(len(part), -1), own.view(len(part), -1)

    def trigger(self, position: int) -> dict[str, Tensor]:
        """Return the tensors of the trigger at ``position``, by name."""
        return self.shape.tensors(position)
