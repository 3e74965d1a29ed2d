"""The hand-written prompt: class names in fixed sentences, nothing learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.models._class_tokens import spoken
from clipvet.models._tensors import reject_unknown
from clipvet.models.base import ClipModel
from clipvet.models.prompts import FreshStart, Prompt, ReadAs

__all__ = ["DEFAULT_TEMPLATES", "HandWritten"]

DEFAULT_TEMPLATES = ("a photo of a {}.",)


class HandWritten(Prompt):
    """Zero-shot classification as CLIP does it: the mean over sentences of a name's unit features, of unit length again.

    Args:
        model: the base, which encodes the texts once.
        class_names: one per class; underscores are spaces.
        templates: sentences with ``{}`` for the name.

    Raises:
        UsageError: there is no template, one has no ``{}``, or a name is blank.

    Reference:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, section 3.1.4.
    """

    family: ClassVar[str] = "zero-shot"
    features: Tensor

    def __init__(self, model: ClipModel, class_names: Sequence[str], templates: Sequence[str] = DEFAULT_TEMPLATES) -> None:
        super().__init__()
        if not templates or not all("{}" in template for template in templates):
            raise UsageError(f"expected templates with {{}} where the class name goes, got {list(templates)}: add it")
        self.templates = tuple(templates)
        names = spoken(class_names)
        with torch.no_grad():
            each = [model.encode_text([template.replace("{}", name) for name in names]) for template in templates]
        self.register_buffer("features", F.normalize(torch.stack(each).mean(0), dim=-1), persistent=False)

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], model: ClipModel, class_names: Sequence[str] | None, read_as: ReadAs
    ) -> Self:
        """Build from class names alone; see :meth:`Prompt.from_tensors`."""
        reject_unknown(tensors, cls.family, ())
        if class_names is None:
            raise UsageError("expected class names for a zero-shot classifier, got none: give them with --classes")
        return cls(model, class_names, (read_as.wording,) if read_as.wording else DEFAULT_TEMPLATES)

    @classmethod
    def fresh(cls, model: ClipModel, class_names: Sequence[str], start: FreshStart) -> Self:
        """Build it; there is nothing to initialise."""
        return cls(model, class_names, (start.init + " {}.",) if start.init else ("{}.",))

    def text_features(self, model: ClipModel, image_features: Tensor | None = None, *, classes: Tensor | None = None) -> Tensor:
        """Return unit text features ``(k, d)``; see :meth:`Prompt.text_features`."""
        return self.features if classes is None else self.features[classes]

    def state(self) -> dict[str, Tensor]:
        """Return nothing: all is in the class names."""
        return {}
