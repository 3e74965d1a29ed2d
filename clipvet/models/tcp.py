"""TCP: tokens made from each class's own frozen text feature, put into the middle of the text tower."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from clipvet.errors import UsageError
from clipvet.models._class_tokens import ClassTokens, encode_in_chunks, neutral_wording, spoken
from clipvet.models._start import begin
from clipvet.models._tensors import linear, random_linear, reject_unknown, take
from clipvet.models.base import ClipModel, TextInput, needed_length
from clipvet.models.prompts import FreshStart, Prompt, ReadAs

__all__ = ["TCP"]

_KEYS = ("ctx", "token_prefix", "token_suffix", *(f"meta_net.linear{i}.{part}" for i in (1, 2) for part in ("weight", "bias")))
_BLOCK = 8
_PLAIN = "a photo of a {}."
# The official code has a pair of texts per data set: around the learned context, and for the frozen feature of the class.
# Two data sets share a first text with "{}." alone: EuroSAT's second one cannot be told from the file and is not here.
_TEXTS = {
    "{}, a type of pet.": "a photo of a {}, a type of pet.",
    "{}, a type of flower.": "a photo of a {}, a type of flower.",
    "{}, a type of aircraft.": "a photo of an aircraft {}.",
    "{} texture.": "a photo of a {}, a type of texture.",
    "{}, a type of car": _PLAIN,
    "{}, a type of food.": "a photo of a {}, a type of food.",
}
_ACTION = "a photo of a person doing {}."


class _QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class TCP(Prompt):
    """A text prompt ``[SOS] ctx name . [EOS]`` whose first positions are replaced by class tokens before a later block.

    The block is the ninth (index 8), as hard-coded in the official code, or the last where the text tower has fewer. The
    class tokens come from the frozen text feature of the class in a wording that depends on the data set; it is recognised
    from ``token_suffix`` and is otherwise "a photo of a {}.". EuroSAT's ("a centered satellite photo of {}.") cannot be
    recognised: give ``feature_wording``.

    Args:
        ctx: ``(n_ctx, width)``.
        layers: the first of the class feature, followed by QuickGELU; the second to ``k * width``, which makes ``k`` tokens
            (4 in the official code).
        tokens: the class names.
        class_features: ``(n_classes, embed_dim)`` of unit length.
        block: index of the block before which the tokens are put in.

    Reference:
        Yao et al., TCP: Textual-based Class-aware Prompt Tuning, CVPR 2024;
        https://github.com/htyao89/Textual-based_Class-aware_prompt_tuning/blob/bd97bec/trainers/tcp.py
    """

    family: ClassVar[str] = "tcp"
    class_features: Tensor

    def __init__(
        self, ctx: Tensor, layers: tuple[nn.Linear, nn.Linear], tokens: ClassTokens, class_features: Tensor, block: int
    ) -> None:
        super().__init__()
        self.ctx = nn.Parameter(ctx)
        self.meta_net = nn.Sequential(OrderedDict([("linear1", layers[0]), ("relu", _QuickGELU()), ("linear2", layers[1])]))
        self.tokens = tokens
        self.register_buffer("class_features", class_features, persistent=False)
        self.block = block

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], model: ClipModel, class_names: Sequence[str] | None, read_as: ReadAs
    ) -> Self:
        """Build from CoOp's three tensors and ``meta_net.*``; see :meth:`Prompt.from_tensors`."""
        reject_unknown(tensors, cls.family, _KEYS)
        if class_names is None:
            raise UsageError("expected class names for a TCP prompt, whose tokens are made from them: give them with --classes")
        if read_as.position != "end":
            raise UsageError(f"expected the class name at end for {cls.family}, got '{read_as.position}'")
        ctx = take(tensors, "ctx", None, model.text_width)
        linear1 = linear(tensors, "meta_net.linear1", model.embed_dim, None)
        linear2 = linear(tensors, "meta_net.linear2", linear1.out_features, None)
        if linear2.out_features % model.text_width:
            raise UsageError(
                f"expected meta_net.linear2 to give a multiple of {model.text_width} values, found {linear2.out_features}: "
                "name the base that the prompt was tuned on"
            )
        pairs = _pairs(len(ctx)) if not read_as.wording else {read_as.wording: _PLAIN}
        tokens = ClassTokens.build(model, class_names, len(ctx), tensors, list(pairs))
        features = _class_features(model, class_names, read_as.feature_wording or pairs[tokens.wording])
        return cls(ctx, (linear1, linear2), tokens, features, min(_BLOCK, model.text_layers - 1)).to(model.device)

    @classmethod
    def fresh(cls, model: ClipModel, class_names: Sequence[str], start: FreshStart) -> Self:
        """Build an untuned prompt; the network's hidden layer has a quarter of the feature's size."""
        generator = torch.Generator().manual_seed(start.seed)
        ctx, read_as = begin(model, start, None if start.init else 4, generator)
        hidden = max(1, model.embed_dim // 4)
        tensors = {
            "ctx": ctx,
            **random_linear("meta_net.linear1", model.embed_dim, hidden, generator),
            **random_linear("meta_net.linear2", hidden, 4 * model.text_width, generator),
        }
        return cls.from_tensors(tensors, model, class_names, read_as)

    def text_features(self, model: ClipModel, image_features: Tensor | None = None, *, classes: Tensor | None = None) -> Tensor:
        """Compute unit text features ``(k, d)``; see :meth:`Prompt.text_features`."""
        chosen = torch.arange(len(self.tokens), device=model.device) if classes is None else classes
        made = self.meta_net(self.class_features[chosen]).unflatten(1, (-1, model.text_width))  # (k, tokens, width)

        def build(rows: Tensor) -> TextInput:
            return self.tokens.assemble(self.ctx, chosen[rows], deep={self.block: made[rows]})

        return encode_in_chunks(model, len(chosen), needed_length(self.tokens.eot[chosen], {self.block: made}), build)

    def state(self) -> dict[str, Tensor]:
        """Return CoOp's three tensors and ``meta_net.*``."""
        learned = {name: tensor.detach().clone() for name, tensor in self.named_parameters()}
        return learned | self.tokens.state()


def _pairs(n_ctx: int) -> dict[str, str]:
    """Return wording of the prompt -> wording of the frozen feature, the most common first."""
    return {neutral_wording(n_ctx): _PLAIN, **{"X " * n_ctx + a: b for a, b in _TEXTS.items()}, _ACTION: _ACTION}


def _class_features(model: ClipModel, class_names: Sequence[str], wording: str) -> Tensor:
    with torch.no_grad():
        return model.encode_text([wording.replace("{}", name) for name in spoken(class_names)])
