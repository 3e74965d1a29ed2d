"""What a reconstructed trigger may look like: additive, a patch with its mask, or a blended picture."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar, Protocol

import torch
from torch import Tensor

__all__ = ["SHAPES", "AdditiveShape", "BlendShape", "PatchShape", "Shape", "start_values"]


class Shape(Protocol):
    """Free variables of ``k`` triggers and how they change images."""

    step_unit: float

    def __init__(self, targets: list[int], size: int, strength: float, seed: int) -> None: ...

    def parameters(self) -> Iterable[Tensor]:
        """Return the optimised tensors, first dimension ``k``."""
        ...

    def apply(self, images: Tensor, part: Tensor) -> Tensor:
        """Stamp the triggers ``part`` on ``(b, 3, h, w)``: ``(len(part), b, 3, h, w)`` in [0, 1]."""
        ...

    def project(self) -> None:
        """Bring the variables back into their bounds."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return the free variables by name, detached copies."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up free variables as :meth:`state` gives them."""
        ...

    def tensors(self, position: int) -> dict[str, Tensor]:
        """Return one trigger's tensors by name: ``delta``, or ``mask`` and ``pattern``."""
        ...


def start_values(targets: list[int], size: int, seed: int, channels: int = 3) -> Tensor:
    """Draw uniform values in [-1, 1], a stream per (seed, target)."""
    drawn = []
    for target in targets:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + target)
        drawn.append(torch.rand(channels, size, size, generator=generator) * 2 - 1)
    return torch.stack(drawn)


class AdditiveShape:
    """``clip(x + delta)`` with ``|delta| <= eps``: CLIP-Inspector's trigger, and that of BadCLIP."""

    name: ClassVar[str] = "additive"

    def __init__(self, targets: list[int], size: int, strength: float, seed: int) -> None:
        self.eps = self.step_unit = strength
        self.delta = (start_values(targets, size, seed) * strength * 0.1).requires_grad_(True)

    def parameters(self) -> list[Tensor]:
        """Return the optimised tensors."""
        return [self.delta]

    def apply(self, images: Tensor, part: Tensor) -> Tensor:
        """Stamp the triggers ``part`` on images."""
        return (images[None] + self.delta[part, None]).clamp(0, 1)

    @torch.no_grad()
    def project(self) -> None:
        """Clip to the bound."""
        self.delta.clamp_(-self.eps, self.eps)

    def state(self) -> dict[str, Tensor]:
        """Return the free variables by name."""
        return {"delta": self.delta.detach().clone()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up free variables."""
        self.delta = state["delta"].clone().requires_grad_(True)

    def tensors(self, position: int) -> dict[str, Tensor]:
        """Return the delta ``(3, h, w)``."""
        return {"delta": self.delta[position].detach().clone()}


class BlendShape:
    """``(1 - r) x + r pattern`` with a free pattern and a fixed ratio r."""

    name: ClassVar[str] = "blend"
    step_unit: float = 0.5

    def __init__(self, targets: list[int], size: int, strength: float, seed: int) -> None:
        self.ratio = strength
        self.pattern = (0.5 + start_values(targets, size, seed) * 0.05).requires_grad_(True)

    def parameters(self) -> list[Tensor]:
        """Return the optimised tensors."""
        return [self.pattern]

    def apply(self, images: Tensor, part: Tensor) -> Tensor:
        """Stamp the triggers ``part`` on images."""
        return (1 - self.ratio) * images[None] + self.ratio * self.pattern[part, None]

    @torch.no_grad()
    def project(self) -> None:
        """Clip the pattern to pixels."""
        self.pattern.clamp_(0, 1)

    def state(self) -> dict[str, Tensor]:
        """Return the free variables by name."""
        return {"pattern": self.pattern.detach().clone()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up free variables."""
        self.pattern = state["pattern"].clone().requires_grad_(True)

    def tensors(self, position: int) -> dict[str, Tensor]:
        """Return the pattern ``(3, h, w)`` and the constant mask ``(1, h, w)``."""
        pattern = self.pattern[position].detach().clone()
        return {"pattern": pattern, "mask": torch.full_like(pattern[:1], self.ratio)}


class PatchShape:
    """A square of a given area with a free pattern at a place found by a soft choice over a grid of places.

    The mask is a mixture of squares at grid places with softmax weights; the temperature is fixed, so that the mixture ends at one
    place where one place is best. Differs from Neural Cleanse, whose mask is free and whose size is penalised: here the area is the
    attacker's budget, so classes are compared at the same strength.
    """

    name: ClassVar[str] = "patch"
    step_unit: float = 0.5

    def __init__(self, targets: list[int], size: int, strength: float, seed: int) -> None:
        side = max(1, math.floor(size * math.sqrt(strength)))
        stride = max(1, side // 2)
        places = range(0, size - side + 1, stride)
        squares = torch.zeros(len(places) ** 2, 1, size, size)
        for i, (top, left) in enumerate((t, le) for t in places for le in places):
            squares[i, :, top : top + side, left : left + side] = 1
        self.squares = squares
        self.pattern = (0.5 + start_values(targets, size, seed) * 0.05).requires_grad_(True)
        self.place = torch.zeros(len(targets), len(squares)).requires_grad_(True)

    def parameters(self) -> list[Tensor]:
        """Return the optimised tensors."""
        return [self.pattern, self.place]

    def _masks(self, part: Tensor) -> Tensor:
        weights = (self.place[part] * 4).softmax(1)
        return torch.einsum("kp,pchw->kchw", weights, self.squares.to(weights.device)).clamp(0, 1)

    def apply(self, images: Tensor, part: Tensor) -> Tensor:
        """Stamp the triggers ``part`` on images."""
        mask = self._masks(part)[:, None]
        return images[None] * (1 - mask) + self.pattern[part, None] * mask

    @torch.no_grad()
    def project(self) -> None:
        """Clip the pattern to pixels."""
        self.pattern.clamp_(0, 1)

    def state(self) -> dict[str, Tensor]:
        """Return the free variables by name."""
        return {"pattern": self.pattern.detach().clone(), "place": self.place.detach().clone()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up free variables."""
        self.pattern = state["pattern"].clone().requires_grad_(True)
        self.place = state["place"].clone().requires_grad_(True)

    def tensors(self, position: int) -> dict[str, Tensor]:
        """Return the pattern ``(3, h, w)`` and the mask ``(1, h, w)``."""
        mask = self._masks(torch.tensor([position]))[0].detach()
        return {"pattern": self.pattern[position].detach().clone(), "mask": mask}


SHAPES: dict[str, type[Shape]] = {"additive": AdditiveShape, "patch": PatchShape, "blend": BlendShape}
