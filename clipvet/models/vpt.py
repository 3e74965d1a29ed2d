"""Learned tokens inside the image tower: VPT alone, IVLP and PromptSRC together with tokens inside the text tower."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from clipvet.errors import UsageError
from clipvet.models._class_tokens import ClassTokens, encode_deep
from clipvet.models._start import begin, random_tokens
from clipvet.models._tensors import half_rounded, reject_unknown, take
from clipvet.models._towers import TOWERS, depth_within, fresh_deep, is_token, need_vit, read_deep
from clipvet.models.base import ClipModel
from clipvet.models.maple import MaPLe
from clipvet.models.prompts import FreshStart, Prompt, ReadAs
from clipvet.models.zeroshot import HandWritten

__all__ = ["IVLP", "VPT", "PromptSRC"]

_FIRST = "image_encoder.VPT"
_BLOCKS = "transformer.resblocks"


class VPT(Prompt):
    """Learned tokens behind the patches in the first D blocks of the image tower; texts are "a photo of a name.".

    The first tokens join before the tower's first normalisation; before each of the blocks 1..D-1 the outputs at their
    places are replaced. The official code rounds the tokens to fp16 before they enter, and so does this. The file carries no
    class names.

    Args:
        visual: D tensors ``(n_tokens, vision_width)``.
        texts: the hand-written prompt.

    Reference:
        The deep visual prompting of MaPLe's repository, after Jia et al., Visual Prompt Tuning, ECCV 2022;
        https://github.com/muzairkhattak/multimodal-prompt-learning/blob/69bce21/trainers/vpt.py
    """

    family: ClassVar[str] = "vpt"
    changes_image_tower: ClassVar[bool] = True

    def __init__(self, visual: Sequence[Tensor], texts: HandWritten) -> None:
        super().__init__()
        self.visual = nn.ParameterList([nn.Parameter(tensor) for tensor in visual])
        self.texts = texts

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], model: ClipModel, class_names: Sequence[str] | None, read_as: ReadAs
    ) -> Self:
        """Build from ``image_encoder.VPT`` and ``….VPT_shallow``; whole towers beside them are left alone."""
        need_vit(model, cls.family)
        _reject_others(tensors, cls.family, ("image_encoder.",))
        texts = HandWritten.from_tensors({}, model, class_names, read_as)
        return cls(_read_visual(tensors, model), texts).to(model.device)

    @classmethod
    def fresh(cls, model: ClipModel, class_names: Sequence[str], start: FreshStart) -> Self:
        """Build an untuned prompt: eight tokens in twelve blocks, or in as many as the tower has."""
        need_vit(model, cls.family)
        generator = torch.Generator().manual_seed(start.seed)
        tensors = _fresh_visual(model, start, generator, n_tokens=8, depth=12)
        return cls.from_tensors(tensors, model, class_names, ReadAs(wording=f"{start.init} {{}}.".strip()))

    def visual_prompts(self) -> list[Tensor]:
        """Return D tensors ``(n_tokens, vision_width)``."""
        return [half_rounded(prompt) for prompt in self.visual]

    def text_features(self, model: ClipModel, image_features: Tensor | None = None, *, classes: Tensor | None = None) -> Tensor:
        """Return unit text features ``(k, d)``; see :meth:`Prompt.text_features`."""
        return self.texts.text_features(model, classes=classes)

    def state(self) -> dict[str, Tensor]:
        """Return the tokens; the whole file has both towers besides (:func:`full_state`)."""
        return _deep_state("image_encoder", self.visual[1:]) | {_FIRST: self.visual[0].detach().clone()}


class IVLP(Prompt):
    """Independent tokens in the first blocks of both towers: VPT's in the image tower, MaPLe's in the text tower.

    As with MaPLe, the official configuration has two context vectors and keeps the words "of a" in front of the name.

    Args:
        ctx: ``(n_ctx, width)``.
        visual: tensors ``(n_tokens, vision_width)``, one per block from the first.
        deep: tensors ``(n_ctx, width)``, one per block of the text tower from the second.
        tokens: the class names.

    Reference:
        https://github.com/muzairkhattak/multimodal-prompt-learning/blob/69bce21/trainers/independentVL.py
    """

    family: ClassVar[str] = "ivlp"
    changes_image_tower: ClassVar[bool] = True
    learner_ignored: ClassVar[tuple[str, ...]] = ()  # beginnings of names that no logit depends on
    official: ClassVar[tuple[int, int]] = (2, 12)  # tokens and depth of a new prompt

    def __init__(self, ctx: Tensor, visual: Sequence[Tensor], deep: Sequence[Tensor], tokens: ClassTokens) -> None:
        super().__init__()
        self.ctx = nn.Parameter(ctx)
        self.visual = nn.ParameterList([nn.Parameter(tensor) for tensor in visual])
        self.deep = nn.ParameterList([nn.Parameter(tensor) for tensor in deep])
        self.tokens = tokens

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], model: ClipModel, class_names: Sequence[str] | None, read_as: ReadAs
    ) -> Self:
        """Build from ``prompt_learner.*``, ``image_encoder.VPT`` and ``….VPT_shallow``; see :meth:`Prompt.from_tensors`."""
        need_vit(model, cls.family)
        if read_as.position != "end":
            raise UsageError(f"expected the class name at end for {cls.family}, got '{read_as.position}'")
        _reject_others(tensors, cls.family, ("image_encoder.", "text_encoder."), cls.learner_ignored)
        own = {key.removeprefix("prompt_learner."): tensor for key, tensor in tensors.items()}
        ctx = take(own, "ctx", None, model.text_width)
        deep = read_deep(tensors, "text_encoder", model.text_layers, *ctx.shape)
        wordings = [read_as.wording] if read_as.wording else MaPLe.wordings(len(ctx))
        tokens = ClassTokens.build(model, class_names, len(ctx), own, wordings)
        return cls(ctx, _read_visual(tensors, model), deep, tokens).to(model.device)

    @classmethod
    def fresh(cls, model: ClipModel, class_names: Sequence[str], start: FreshStart) -> Self:
        """Build an untuned prompt with the official number of tokens, in as many blocks as the towers have."""
        need_vit(model, cls.family)
        generator = torch.Generator().manual_seed(start.seed)
        n_tokens, depth = cls.official
        ctx, read_as = begin(model, start, n_tokens, generator)
        text_depth = min(start.depth or depth, model.text_layers)
        tensors = {
            "prompt_learner.ctx": ctx,
            **_fresh_visual(model, start, generator, n_tokens=n_tokens, depth=depth),
            **fresh_deep(generator, "text_encoder", text_depth, len(ctx), model.text_width),
        }
        return cls.from_tensors(tensors, model, class_names, read_as)

    def visual_prompts(self) -> list[Tensor]:
        """Return tensors ``(n_tokens, vision_width)``, one per block."""
        return [half_rounded(prompt) for prompt in self.visual]

    def text_features(self, model: ClipModel, image_features: Tensor | None = None, *, classes: Tensor | None = None) -> Tensor:
        """Compute unit text features ``(k, d)``; see :meth:`Prompt.text_features`."""
        return encode_deep(model, self.tokens, self.ctx, self.deep, classes)

    def state(self) -> dict[str, Tensor]:
        """Return the tokens of both towers; the whole file has the towers besides (:func:`full_state`)."""
        return {
            "prompt_learner.ctx": self.ctx.detach().clone(),
            **self.tokens.state("prompt_learner."),
            _FIRST: self.visual[0].detach().clone(),
            **_deep_state("image_encoder", self.visual[1:]),
            **_deep_state("text_encoder", self.deep),
        }


class PromptSRC(IVLP):
    """IVLP tuned to stay near the frozen model, averaged over epochs; its file carries a second, unused image tower.

    Reference:
        Khattak et al., Self-regulating Prompts, ICCV 2023;
        https://github.com/muzairkhattak/PromptSRC/blob/bb95c77/trainers/promptsrc.py
    """

    family: ClassVar[str] = "promptsrc"
    learner_ignored: ClassVar[tuple[str, ...]] = ("prompt_learner.ZS_image_encoder.",)
    official: ClassVar[tuple[int, int]] = (4, 9)


def _reject_others(tensors: Mapping[str, Tensor], family: str, towers: tuple[str, ...], ignored: tuple[str, ...] = ()) -> None:
    learner = tuple(f"prompt_learner.{key}" for key in ("ctx", "token_prefix", "token_suffix")) if len(towers) > 1 else ()
    tokens = tuple(key for key in tensors if is_token(key) and key.startswith(towers))
    frozen = {key: tensor for key, tensor in tensors.items() if is_token(key) or not key.startswith(TOWERS)}
    reject_unknown(frozen, family, (*learner, *tokens), ignored)


def _read_visual(tensors: Mapping[str, Tensor], model: ClipModel) -> list[Tensor]:
    first = take(tensors, _FIRST, None, model.vision_width)
    return [first, *read_deep(tensors, "image_encoder", model.vision_layers, *first.shape)]


def _fresh_visual(
    model: ClipModel, start: FreshStart, generator: torch.Generator, *, n_tokens: int, depth: int
) -> dict[str, Tensor]:
    n_tokens = start.n_ctx or n_tokens
    depth = depth_within(start.depth, depth, model.vision_layers)
    first = {_FIRST: random_tokens(generator, n_tokens, model.vision_width)}
    return first | fresh_deep(generator, "image_encoder", depth, n_tokens, model.vision_width)


def _deep_state(tower: str, tokens: Iterable[Tensor]) -> dict[str, Tensor]:
    return {f"{tower}.{_BLOCKS}.{index}.VPT_shallow": token.detach().clone() for index, token in enumerate(tokens, start=1)}
