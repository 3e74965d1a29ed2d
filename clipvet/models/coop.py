"""CoOp: learned context vectors in place of the words around a class name; KgCoOp and ProGrad tune the same prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from clipvet.errors import UsageError
from clipvet.models._class_tokens import POSITIONS, ClassTokens, encode_in_chunks, neutral_wording
from clipvet.models._start import begin
from clipvet.models._tensors import random_linear, reject_unknown, take
from clipvet.models.base import ClipModel, TextInput, needed_length
from clipvet.models.prompts import FreshStart, Prompt, ReadAs

__all__ = ["CoOp", "KgCoOp", "ProGrad"]


class CoOp(Prompt):
    """A text prompt ``[SOS] ctx name . [EOS]`` with ``ctx`` learned, the class name at its end, middle or front.

    Where the name stands is not in the file; a wrong guess changes the logits, so ask the provider (the official
    configurations say ``end``).

    Args:
        ctx: ``(n_ctx, width)``, or ``(n_classes, n_ctx, width)`` where each class has its own.
        tokens: the class names.
        position: ``end``, ``middle`` or ``front``.
        extras: tensors of the file that the logits do not depend on; kept to be written back.

    Raises:
        UsageError: the position is none of the three, or ``ctx`` is for another number of classes.

    Reference:
        Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022;
        https://github.com/KaiyangZhou/CoOp/blob/ff61507/trainers/coop.py
    """

    family: ClassVar[str] = "coop"
    positions: ClassVar[tuple[str, ...]] = POSITIONS
    unused: ClassVar[tuple[str, ...]] = ("token_midfix",)  # what an older saver left and the logits never use

    def __init__(
        self, ctx: Tensor, tokens: ClassTokens, *, position: str = "end", extras: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        if position not in self.positions:
            raise UsageError(f"expected the class name at {' or '.join(self.positions)} for {self.family}, got '{position}'")
        if ctx.ndim == 3 and len(ctx) != len(tokens):
            raise UsageError(f"expected {len(ctx)} class names for a class-specific context, got {len(tokens)}: name them all")
        self.ctx = nn.Parameter(ctx)
        self.tokens = tokens
        self.position = position
        self.extras = dict(extras or {})

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], model: ClipModel, class_names: Sequence[str] | None, read_as: ReadAs
    ) -> Self:
        """Build from ``ctx``, ``token_prefix`` and ``token_suffix``; see :meth:`Prompt.from_tensors`."""
        reject_unknown(tensors, cls.family, ("ctx", "token_prefix", "token_suffix", *cls.unused))
        rows: tuple[None, ...] = (None, None) if "ctx" in tensors and tensors["ctx"].ndim == 3 else (None,)
        ctx = take(tensors, "ctx", *rows, model.text_width).to(model.device)
        n_ctx = ctx.shape[-2]
        tokens = ClassTokens.build(model, class_names, n_ctx, tensors, [read_as.wording or neutral_wording(n_ctx)])
        extras = {key: tensors[key].detach().float().clone() for key in cls.unused if key in tensors}
        return cls(ctx, tokens, position=read_as.position, extras=extras)

    @classmethod
    def fresh(cls, model: ClipModel, class_names: Sequence[str], start: FreshStart) -> Self:
        """Build an untuned prompt, with one context for all classes or one for each."""
        generator = torch.Generator().manual_seed(start.seed)
        ctx, read_as = begin(model, start, None, generator)
        ctx = ctx.expand(len(class_names), -1, -1).clone() if start.class_specific else ctx
        return cls.from_tensors({"ctx": ctx, **cls._fresh_extras(model, generator)}, model, class_names, read_as)

    @classmethod
    def _fresh_extras(cls, model: ClipModel, generator: torch.Generator) -> dict[str, Tensor]:
        return {}

    def text_features(self, model: ClipModel, image_features: Tensor | None = None, *, classes: Tensor | None = None) -> Tensor:
        """Compute unit text features ``(k, d)``; see :meth:`Prompt.text_features`."""
        chosen = torch.arange(len(self.tokens), device=model.device) if classes is None else classes

        def build(rows: Tensor) -> TextInput:
            picked = chosen[rows]
            ctx = self.ctx if self.ctx.ndim == 2 else self.ctx[picked]
            return self.tokens.assemble(ctx, picked, position=self.position)

        return encode_in_chunks(model, len(chosen), needed_length(self.tokens.eot[chosen]), build)

    def state(self) -> dict[str, Tensor]:
        """Return ``ctx``, ``token_prefix``, ``token_suffix`` and what else the file held."""
        return {"ctx": self.ctx.detach().clone(), **self.tokens.state(), **self.extras}


class KgCoOp(CoOp):
    """CoOp tuned to stay near the hand-written prompt; its file carries a bias and a layer that no forward pass uses.

    Reference:
        Yao et al., Visual-Language Prompt Tuning with Knowledge-guided Context Optimization, CVPR 2023;
        https://github.com/htyao89/KgCoOp/blob/c43ccc3/KgCoOp/trainers/kgcoop.py
    """

    family: ClassVar[str] = "kgcoop"
    positions: ClassVar[tuple[str, ...]] = ("end",)
    unused: ClassVar[tuple[str, ...]] = ("token_midfix", "bias_vectors", "meta_net.linear1.weight", "meta_net.linear1.bias")

    @classmethod
    def _fresh_extras(cls, model: ClipModel, generator: torch.Generator) -> dict[str, Tensor]:
        # The official 512s are the width and the feature size of a ViT-B.
        bias = torch.randn(1, model.text_width, generator=generator) * 0.02
        return {"bias_vectors": bias, **random_linear("meta_net.linear1", model.embed_dim, model.embed_dim, generator)}


class ProGrad(CoOp):
    """CoOp tuned with gradients that do not oppose the hand-written prompt; the same file.

    Reference:
        Zhu et al., Prompt-aligned Gradient for Prompt Tuning, ICCV 2023;
        https://github.com/BeierZhu/Prompt-align/blob/1b76203/ProGrad.public/trainers/prograd.py
    """

    family: ClassVar[str] = "prograd"
