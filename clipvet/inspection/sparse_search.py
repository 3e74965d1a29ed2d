"""Reconstruct the smallest trigger that works, one per class: cross-entropy and the trigger's size, with a weight that adapts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.inspection.dynamic_weight import DynamicWeight
from clipvet.inspection.search import Logits, Search, margins
from clipvet.inspection.shapes import Shape, start_values

__all__ = ["SparseConfig", "SparseSearch", "SparseShape"]

BETAS = (0.5, 0.9)  # Adam's, in the code of both papers


class SparseShape(ABC):
    """Triggers without a bound, that are wanted as small as they can be: their size is part of the loss.

    Args:
        targets: ``k`` classes.
        size: side of the images in pixels.
        seed: initial values are drawn uniformly, a stream per (seed, target).
    """

    channels: ClassVar[dict[str, int]]  # of each free variable, by name
    goes_back: ClassVar[bool] = False  # whether the search goes on from the best trigger, each time that there is a better one
    step_unit: float = 1.0

    def __init__(self, targets: list[int], size: int, seed: int) -> None:
        drawn = start_values(targets, size, seed, sum(self.channels.values())).split(list(self.channels.values()), dim=1)
        self.load(dict(zip(self.channels, map(self.start, drawn), strict=True)))

    @staticmethod
    @abstractmethod
    def start(drawn: Tensor) -> Tensor:
        """Turn values drawn from [-1, 1] into a free variable to begin with."""

    @staticmethod
    @abstractmethod
    def size(variables: Mapping[str, Tensor]) -> Tensor:
        """Compute the sizes that classes are compared by, in pixels: ``(k,)``."""

    @abstractmethod
    def cost(self) -> Tensor:
        """Compute the differentiable sizes that the loss holds: ``(k,)``."""

    @abstractmethod
    def apply(self, images: Tensor, part: Tensor) -> Tensor:
        """Stamp the triggers ``part`` on ``(b, 3, h, w)``: ``(len(part), b, 3, h, w)`` in [0, 1]."""

    @abstractmethod
    def tensors(self, position: int) -> dict[str, Tensor]:
        """Return one trigger's tensors by name."""

    @staticmethod
    def pruned(variables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Drop what :meth:`size` does not count."""
        return dict(variables)

    def parameters(self) -> list[Tensor]:
        """Return the optimised tensors."""
        return list(self.variables.values())

    def project(self) -> None:  # noqa: B027  # a shape without bounds has nothing to do
        """Nothing is bounded: every value of the variables is a trigger."""

    def state(self) -> dict[str, Tensor]:
        """Return the free variables by name, detached copies."""
        return {name: value.detach().clone() for name, value in self.variables.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up free variables as :meth:`state` gives them."""
        self.variables = {name: state[name].clone().requires_grad_(True) for name in self.channels}


@dataclass(frozen=True, kw_only=True)
class SparseConfig:
    """How a smallest trigger is searched.

    Attributes:
        shape: what the trigger may look like, and how its size is counted.
        batch: probe images per class and step.
        lr: Adam's step, in the units of the free variables.
        reach: share of a batch that must be turned for a trigger to count as working.
        start_weight: of the size in the loss, in logits per pixel; see :class:`clipvet.inspection.dynamic_weight.DynamicWeight`.
        weight: what follows a weight of zero.
        patience: batches in a row before the weight changes.
        multiplier: of the weight.
        chunk: images in one pass through the tower.
    """

    shape: type[SparseShape]
    batch: int
    lr: float
    reach: float
    start_weight: float
    weight: float
    patience: int
    multiplier: float
    chunk: int = 128

    def new_shape(self, targets: list[int], size: int, seed: int) -> Shape:
        """Begin triggers; see :class:`clipvet.inspection.search.Searching`."""
        return self.shape(targets, size, seed)

    def optimizer(self, shape: Shape) -> torch.optim.Optimizer:
        """Begin Adam; see :class:`clipvet.inspection.search.Searching`."""
        return torch.optim.Adam(shape.parameters(), lr=self.lr, betas=BETAS)

    def begin(self, logits: Logits, probes: Tensor, targets: Tensor, *, seed: int, candidates: int | None = None) -> Search:
        """Begin a search; see :class:`clipvet.inspection.search.Searching`."""
        return SparseSearch(logits, probes, targets, config=self, seed=seed, candidates=candidates)


class SparseSearch(Search):
    """Smallest triggers of several classes, side by side; each class's result is independent of which others are searched.

    Each step's loss is the mean cross-entropy towards the target plus the weight times the trigger's differentiable size. The
    smallest trigger that turned at least ``reach`` of a batch is kept; the last one where none ever did.

    Args:
        logits: see :class:`clipvet.inspection.search.Search`, as are the others.
        probes: unlabelled images.
        targets: classes.
        config: of the search.
        seed: of the order of the images and of the initial values.
        candidates: how many of the first names the target must beat.
    """

    config: SparseConfig
    shape: SparseShape

    def __init__(
        self, logits: Logits, probes: Tensor, targets: Tensor, *, config: SparseConfig, seed: int, candidates: int | None = None
    ) -> None:
        super().__init__(logits, probes, targets, config=config, seed=seed, candidates=candidates)
        self.weight = DynamicWeight(
            len(targets),
            start=config.start_weight,
            first=config.weight,
            patience=config.patience,
            multiplier=config.multiplier,
            device=probes.device,
        )
        self._best = self.shape.state()
        self._best_size = torch.full((len(targets),), torch.inf, device=probes.device)

    def run(self, steps: int) -> None:
        """Take so many steps for every class, and end with the best triggers."""
        super().run(steps)
        self.load(self._chosen(self._best_size < torch.inf, self._best, self.shape.state()))

    def step(self) -> None:
        """Take one step for every class."""
        images = self._batch()
        self._optimizer.zero_grad()
        before = self.shape.state()
        losses, asr = [], []
        for part in torch.arange(len(self.targets)).split(max(1, self.config.chunk // len(images))):
            wanted = self.targets[part].repeat_interleave(len(images))
            found = self.logits(self.shape.apply(images, part).flatten(0, 1))
            loss = F.cross_entropy(found, wanted, reduction="none").view(len(part), -1).mean(1)
            loss.sum().backward()
            losses.append(loss.detach())
            asr.append((margins(found.detach(), wanted, self.candidates) > 0).view(len(part), -1).float().mean(1))
        (self.weight.value * self.shape.cost()).sum().backward()
        self._optimizer.step()
        self.last_loss = torch.cat(losses)
        reached = torch.cat(asr) >= self.config.reach
        self._keep(before, reached)
        self.weight.look(reached)

    def _keep(self, before: dict[str, Tensor], reached: Tensor) -> None:
        """Keep the triggers that were measured where they work and are smaller than any that did."""
        size = self.shape.size(before)
        better = reached & (size < self._best_size)
        self._best_size = size.where(better, self._best_size)
        self._best = self._chosen(better, self.shape.pruned(before), self._best)
        if self.shape.goes_back:
            with torch.no_grad():
                for name, value in self._chosen(better, self._best, self.shape.variables).items():
                    self.shape.variables[name].copy_(value)

    @staticmethod
    def _chosen(first: Tensor, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Variables of ``one`` for the classes ``first``, of ``other`` for the rest."""
        return {name: one[name].where(first[:, None, None, None], other[name]) for name in one}
