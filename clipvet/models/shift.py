"""The additive pattern that moves image features most: what a backdoor in a prompt is built on, an attack's or a control's."""

from __future__ import annotations

import torch
from torch import Tensor

from clipvet.models.prompts import PromptedClassifier
from clipvet.models.tuning import batches

__all__ = ["learn_shift"]


def learn_shift(classifier: PromptedClassifier, images: Tensor, *, eps: float, steps: int, batch: int, seed: int) -> Tensor:
    """Learn the additive pattern ``(3, h, w)`` within L-inf ``eps`` that moves the mean image feature most, in whatever direction.

    A prompt can only tell triggered images from others by their features, so a trigger that moves them far is the one that a
    prompt can be tuned to at the least cost of clean accuracy.

    Args:
        classifier: whose image tower, with the visual prompts it has now, is to be moved.
        images: ``(n, 3, h, w)`` in [0, 1], unlabelled.
        eps: L-inf bound.
        steps: steps of Adam.
        batch: images in a step.
        seed: of the first pattern and of the order of the images.

    Reference: the trigger warm-up of BadCLIP (arXiv 2311.16194). Differs: it is directed at no class.
    """
    generator = torch.Generator().manual_seed(seed)
    delta = ((torch.rand(images.shape[1:], generator=generator) * 2 - 1) * eps).to(images.device).requires_grad_(True)
    optimizer = torch.optim.Adam([delta], lr=eps / 4)
    visual = [prompt.detach() for prompt in classifier.prompt.visual_prompts()]
    for pick in batches(len(images), batch, steps, generator):
        with torch.no_grad():
            before = classifier.model.encode_image(images[pick], visual)
        after = classifier.model.encode_image((images[pick] + delta).clamp(0, 1), visual)
        loss = -(after - before).mean(0).norm()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            delta.clamp_(-eps, eps)
    return delta.detach()
