"""What every prompt family offers, and the classifier made of a model and a prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from clipvet.models.base import ClipModel

__all__ = ["Classifier", "FreshStart", "Prompt", "PromptedClassifier", "ReadAs"]


class Classifier(Protocol):
    """Images in [0, 1] to logits, differentiable."""

    class_names: tuple[str, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Map ``(n, 3, h, w)`` to ``(n, n_classes)``."""
        ...


@dataclass(frozen=True, kw_only=True)
class ReadAs:
    """What a prompt's file does not say about how its text is put together.

    Attributes:
        position: where the class name stands among the context vectors: ``end``, ``middle`` or ``front`` (CoOp, ProGrad).
        wording: the text around the class name with ``{}`` in its place, of which the first words are replaced by the
            context; empty where it is to be found from ``token_suffix`` or, failing that, taken from the official code.
        feature_wording: the text whose frozen feature stands for a class (TCP); empty as above.
    """

    position: str = "end"
    wording: str = ""
    feature_wording: str = ""


@dataclass(frozen=True, kw_only=True)
class FreshStart:
    """How a new prompt begins.

    Attributes:
        n_ctx: number of context vectors; None takes as many as ``init`` has tokens (CoOp, CoCoOp, TCP), else the official
            default.
        depth: number of blocks that get tokens; None takes the official default, at most the tower's blocks.
        init: words whose embeddings the context vectors begin as; empty for random ones.
        seed: of everything that is random.
        class_specific: whether every class has a context of its own (CoOp's ``CSC``).
    """

    n_ctx: int | None = None
    depth: int | None = None
    init: str = "a photo of a"
    seed: int = 0
    class_specific: bool = False


class Prompt(nn.Module, ABC):
    """The learned part of a prompt-tuned model: one subclass per family, parameters are what tuning changes.

    A family that changes the image tower also overrides :meth:`visual_prompts`.
    """

    family: ClassVar[str]
    image_dependent: ClassVar[bool] = False  # text features differ from image to image (CoCoOp)
    changes_image_tower: ClassVar[bool] = False  # features of one frozen tower cannot be reused (VPT, IVLP, MaPLe)

    @classmethod
    @abstractmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], model: ClipModel, class_names: Sequence[str] | None, read_as: ReadAs
    ) -> Self:
        """Build the prompt from tensors under the official names; ``class_names`` None takes them from the tensors.

        Raises:
            UnknownLayoutError: a tensor is missing or is none of this family's.
            UsageError: a shape does not fit the base, or the family needs class names and got none.
        """

    @classmethod
    @abstractmethod
    def fresh(cls, model: ClipModel, class_names: Sequence[str], start: FreshStart) -> Self:
        """Build an untuned prompt, initialised as the official code does."""

    def visual_prompts(self) -> Sequence[Tensor]:
        """Return the tokens for :meth:`ClipModel.encode_image`, none where the tower is untouched."""
        return ()

    @abstractmethod
    def text_features(self, model: ClipModel, image_features: Tensor | None = None, *, classes: Tensor | None = None) -> Tensor:
        """Compute unit text features, differentiable with respect to the prompt and the image features.

        Args:
            model: the CLIP that the prompt was tuned on.
            image_features: ``(n, d)`` of unit length; read where :attr:`image_dependent` only.
            classes: ``long (k,)``, the classes in play; None for all.

        Returns:
            ``(k, d)``, or ``(n, k, d)`` where :attr:`image_dependent`.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return the tensors as the family's official code saves them, so that it can load them back."""


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

    def from_features(self, image_features: Tensor, *, classes: Tensor | None = None) -> Tensor:
        """Turn image features into logits ``(n, n_classes)``, or ``(n, k)`` of the ``k`` classes given by index."""
        if self._cached is None:
            text = self.prompt.text_features(self.model, image_features, classes=classes)
        else:
            text = self._cached if classes is None else self._cached[classes]
        if text.ndim == 3:
            return self.model.logit_scale * torch.einsum("nd,ncd->nc", image_features, text)
        return self.model.logit_scale * image_features @ text.T

    def __call__(self, images: Tensor, *, classes: Tensor | None = None) -> Tensor:
        """Classify images in [0, 1]: ``(n, 3, h, w)`` to ``(n, n_classes)``, or to the classes given by index."""
        return self.from_features(self.image_features(images), classes=classes)
