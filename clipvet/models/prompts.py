"""What every prompt family offers, and the classifier made of a model and a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from clipvet.models.base import ClipModel

__all__ = ["Classifier", "Prompt", "PromptedClassifier"]


class Classifier(Protocol):
    """Images in [0, 1] to logits, differentiable."""

    class_names: tuple[str, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Map ``(n, 3, h, w)`` to ``(n, n_classes)``."""
        ...


class Prompt(nn.Module):
    """The learned part of a prompt-tuned model: one subclass per family, parameters are what tuning changes.

    A family overrides :meth:`text_features`, and :meth:`visual_prompts` where it changes the image tower.
    """

    family: ClassVar[str]
    image_dependent: ClassVar[bool] = False  # text features differ from image to image (CoCoOp)
    changes_image_tower: ClassVar[bool] = False  # features of one frozen tower cannot be reused (VPT, IVLP, MaPLe)

    def visual_prompts(self) -> Sequence[Tensor]:
        """Return the tokens for :meth:`ClipModel.encode_image`, none where the tower is untouched."""
        return ()

    def text_features(self, model: ClipModel, image_features: Tensor | None = None) -> Tensor:
        """Return unit text features: ``(n_classes, d)``, or ``(n, n_classes, d)`` where :attr:`image_dependent`."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """Return the tensors as the family's official code saves them, so that it can load them back."""
        raise NotImplementedError


class PromptedClassifier:
    """A model and a prompt as one classifier.

    Args:
        model: the CLIP that the prompt was tuned on.
        prompt: the learned part; its parameters may require gradients.
        class_names: one name per class, in the order of the logits.
    """

    def __init__(self, model: ClipModel, prompt: Prompt, class_names: Sequence[str]) -> None:
        self.model, self.prompt = model, prompt
        self.class_names = tuple(class_names)
        self._cached: Tensor | None = None

    def freeze(self) -> PromptedClassifier:
        """Stop gradients to the prompt and compute fixed text features once; returns itself."""
        self.prompt.requires_grad_(False)
        if not self.prompt.image_dependent:
            with torch.no_grad():
                self._cached = self.prompt.text_features(self.model)
        return self

    def image_features(self, images: Tensor) -> Tensor:
        """Encode images through the tower with the prompt's visual part: ``(n, d)``, unit length."""
        return self.model.encode_image(images, self.prompt.visual_prompts())

    def from_features(self, image_features: Tensor) -> Tensor:
        """Turn image features into logits ``(n, n_classes)``."""
        text = self._cached if self._cached is not None else self.prompt.text_features(self.model, image_features)
        if text.ndim == 3:
            return self.model.logit_scale * torch.einsum("nd,ncd->nc", image_features, text)
        return self.model.logit_scale * image_features @ text.T

    def __call__(self, images: Tensor) -> Tensor:
        """Classify images in [0, 1]: ``(n, 3, h, w)`` to ``(n, n_classes)``."""
        return self.from_features(self.image_features(images))
