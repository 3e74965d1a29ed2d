"""MaPLe: text prompts in several blocks, and their projections as visual prompts in the same blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from clipvet.errors import UnknownLayoutError, UsageError
from clipvet.models._class_tokens import ClassTokens, encode_deep, neutral_wording
from clipvet.models._start import begin, random_tokens
from clipvet.models._tensors import half_rounded, linear, random_linear, reject_unknown, take
from clipvet.models._towers import TOWERS, depth_within, need_vit
from clipvet.models.base import ClipModel
from clipvet.models.prompts import FreshStart, Prompt, ReadAs

__all__ = ["MaPLe"]

_LEARNER = "prompt_learner."
_TEXT = "compound_prompts_text."
_PROJECTION = "compound_prompt_projections."


class MaPLe(Prompt):
    """Learned tokens in the first J blocks of the text tower, linearly projected into the image tower's blocks.

    In the text tower they stand behind the start token, in the image tower behind the patches; before each of the blocks
    1..J-1 the outputs at their places are replaced. The official code rounds visual and deep tokens to fp16 before they
    enter a tower, and so does this. The official configuration has two context vectors but initialises from "a photo of
    a", so that the words "of a" stay in front of the class name; ``token_suffix`` tells.

    Args:
        ctx: ``(n_ctx, width)``.
        deep: J-1 tensors like ``ctx``.
        projections: J layers from the text width to the image tower's, the first for ``ctx``.
        tokens: the class names.

    Reference:
        Khattak et al., MaPLe: Multi-modal Prompt Learning, CVPR 2023;
        https://github.com/muzairkhattak/multimodal-prompt-learning/blob/69bce21/trainers/maple.py
    """

    family: ClassVar[str] = "maple"
    changes_image_tower: ClassVar[bool] = True

    def __init__(self, ctx: Tensor, deep: Sequence[Tensor], projections: Sequence[nn.Linear], tokens: ClassTokens) -> None:
        super().__init__()
        self.ctx = nn.Parameter(ctx)
        self.proj = projections[0]
        self.compound_prompts_text = nn.ParameterList([nn.Parameter(tensor) for tensor in deep])
        self.compound_prompt_projections = nn.ModuleList(projections[1:])
        self.tokens = tokens

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], model: ClipModel, class_names: Sequence[str] | None, read_as: ReadAs
    ) -> Self:
        """Build from ``prompt_learner.*``; whole towers beside it are left alone. See :meth:`Prompt.from_tensors`."""
        need_vit(model, cls.family)
        if read_as.position != "end":
            raise UsageError(f"expected the class name at end for {cls.family}, got '{read_as.position}'")
        own = {key.removeprefix(_LEARNER): tensor for key, tensor in tensors.items() if key.startswith(_LEARNER)}
        n_deep = sum(key.startswith(_TEXT) for key in own)
        layers = ["proj", *(f"{_PROJECTION}{i}" for i in range(n_deep))]
        texts = [f"{_TEXT}{i}" for i in range(n_deep)]
        known = {"ctx", "token_prefix", "token_suffix", *texts}
        known |= {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
        reject_unknown(tensors, cls.family, {_LEARNER + key for key in known}, TOWERS)
        deepest = max(model.text_layers, model.vision_layers)
        if n_deep >= deepest:
            raise UnknownLayoutError(
                f"expected prompts in at most {deepest} blocks of the base, found {n_deep + 1}: name another base"
            )
        ctx = take(own, "ctx", None, model.text_width)
        deep = [take(own, key, *ctx.shape) for key in texts]
        projections = [linear(own, layer, model.text_width, model.vision_width) for layer in layers]
        wordings = [read_as.wording] if read_as.wording else cls.wordings(len(ctx))
        return cls(ctx, deep, projections, ClassTokens.build(model, class_names, len(ctx), own, wordings)).to(model.device)

    @staticmethod
    def wordings(n_ctx: int) -> list[str]:
        """Return the texts that the official configurations tokenise, the commonest first."""
        return ["a photo of a {}.", neutral_wording(n_ctx)] if n_ctx <= 4 else [neutral_wording(n_ctx)]

    @classmethod
    def fresh(cls, model: ClipModel, class_names: Sequence[str], start: FreshStart) -> Self:
        """Build an untuned prompt: two context vectors in nine blocks, or in as many as the shorter tower has."""
        need_vit(model, cls.family)
        generator = torch.Generator().manual_seed(start.seed)
        ctx, read_as = begin(model, start, 2, generator)
        depth = depth_within(start.depth, 9, min(model.text_layers, model.vision_layers))
        tensors = {"ctx": ctx, **random_linear("proj", model.text_width, model.vision_width, generator)}
        for i in range(depth - 1):
            tensors[f"{_TEXT}{i}"] = random_tokens(generator, *ctx.shape)
            tensors |= random_linear(f"{_PROJECTION}{i}", model.text_width, model.vision_width, generator)
        return cls.from_tensors({_LEARNER + key: tensor for key, tensor in tensors.items()}, model, class_names, read_as)

    def visual_prompts(self) -> list[Tensor]:
        """Return J tensors ``(n_ctx, vision_width)``."""
        deep = zip(self.compound_prompt_projections, self.compound_prompts_text, strict=True)
        return [half_rounded(self.proj(self.ctx)), *(half_rounded(layer(prompt)) for layer, prompt in deep)]

    def text_features(self, model: ClipModel, image_features: Tensor | None = None, *, classes: Tensor | None = None) -> Tensor:
        """Compute unit text features ``(k, d)``; see :meth:`Prompt.text_features`."""
        return encode_deep(model, self.tokens, self.ctx, self.compound_prompts_text, classes)

    def state(self) -> dict[str, Tensor]:
        """Return ``prompt_learner.*``; the whole file has both towers besides (:func:`full_state`)."""
        learned = {_LEARNER + name: tensor.detach().clone() for name, tensor in self.named_parameters()}
        return learned | self.tokens.state(_LEARNER)
