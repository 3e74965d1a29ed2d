"""The smallest part of a picture that keeps its features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.models.base import ClipModel

__all__ = ["CognitiveDistillation"]


@dataclass(frozen=True, kw_only=True)
class CognitiveDistillation:
    """Learn the smallest mask that keeps an image's feature while the rest becomes a random colour; triggers leave small ones.

    Minimises ``mean |f(x m + (1 - m) c) - f(x)| + gamma |m|_1 + beta TV(m)`` with Adam; m is a tanh of what is learnt. Score:
    ``- |m|_1``, as a share of the image.

    Attributes:
        steps: of Adam.
        rate: its learning rate.
        gamma: weight of the mask's size; scaled so that it means the same at any image size as it does at 224 px.
        beta: weight of the mask's total variation.

    Fails when: the trigger covers the whole image (blends, warps, filters); the feature of a clean image hangs on a small part. On
        the pocket it does not work with these weights: the mask's size outweighs the features, all masks vanish alike, and the
        scores differ by rounding. Costs ``steps`` passes forward and backward
        per image.

    Reference: Huang et al., ICLR 2023 (arXiv 2301.10908); gamma, beta, steps and rate as in the script of Huang et al., ICLR 2025
        (arXiv 2502.01385). Differs: the sign, so that higher is more suspicious; a step's colour derives from a seed and is one for
        all images, and the losses are summed, so that a score does not depend on the batch that its image lies in.
    """

    name: ClassVar[str] = "cognitive-distillation"
    steps: int = 100
    rate: float = 0.1
    gamma: float = 0.001
    beta: float = 100.0

    def __post_init__(self) -> None:
        if self.steps < 1 or min(self.rate, self.gamma, self.beta) <= 0:
            raise UsageError("expected positive steps, rate, gamma and beta: leave them at their defaults")

    def score_pixels(self, model: ClipModel, images: Tensor, texts: list[str], *, seed: int) -> Tensor:
        """Score ``images``; the texts are not used. See :class:`clipvet.scan.base.PixelScorer`."""
        generator = torch.Generator().manual_seed(seed)
        learnt = torch.ones(len(images), 1, *images.shape[2:], device=images.device, requires_grad=True)
        adam = torch.optim.Adam([learnt], lr=self.rate, betas=(0.1, 0.1))
        with torch.no_grad():
            wanted = model.encode_image(images)
        gamma = self.gamma * 224 * 224 / images[0, 0].numel()
        for _ in range(self.steps):
            # one colour for all images, and a sum over them: a score does not depend on its batch
            colour = torch.rand(1, 3, 1, 1, generator=generator).to(images.device)
            mask = (learnt.tanh() + 1) / 2
            near = (model.encode_image(images * mask + (1 - mask) * colour) - wanted).abs().mean(1)
            loss = near + gamma * mask.sum((1, 2, 3)) + self.beta * total_variation(mask)
            (gradient,) = torch.autograd.grad(loss.sum(), learnt)
            learnt.grad = gradient
            adam.step()
        return -((learnt.detach().tanh() + 1) / 2).mean((1, 2, 3))


def total_variation(mask: Tensor) -> Tensor:
    """Sum of squared differences of neighbouring pixels over the number of pixels: ``(n, 1, h, w)`` to ``(n,)``."""
    down, right = (mask[:, :, 1:] - mask[:, :, :-1]).square(), (mask[..., 1:] - mask[..., :-1]).square()
    return (down.sum((1, 2, 3)) + right.sum((1, 2, 3))) / mask[0].numel()
