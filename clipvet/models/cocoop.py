"""CoCoOp: context vectors shifted by a small network of the image's own feature."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from clipvet.errors import UsageError
from clipvet.models._class_tokens import ClassTokens, encode_in_chunks, neutral_wording
from clipvet.models._start import begin
from clipvet.models._tensors import linear, random_linear, reject_unknown, take
from clipvet.models.base import ClipModel, TextInput, needed_length
from clipvet.models.prompts import FreshStart, Prompt, ReadAs

__all__ = ["CoCoOp"]

_KEYS = ("ctx", "token_prefix", "token_suffix", *(f"meta_net.linear{i}.{part}" for i in (1, 2) for part in ("weight", "bias")))


class CoCoOp(Prompt):
    """A text prompt whose context is ``ctx + meta_net(image feature)``, so that texts differ from image to image.

    ``n`` images and ``c`` classes make ``n * c`` texts. They are cut behind the last end-of-text token, which is exact, and
    encoded in chunks of bounded memory; restrict the classes where only some are in play.

    The files that BadCLIP's victims receive are of this family.

    Args:
        ctx: ``(n_ctx, width)``.
        linear1: of the image feature, followed by ReLU.
        linear2: to the text width.
        tokens: the class names.

    Reference:
        Zhou et al., Conditional Prompt Learning for Vision-Language Models, CVPR 2022;
        https://github.com/KaiyangZhou/CoOp/blob/ff61507/trainers/cocoop.py
        Bai et al., BadCLIP, CVPR 2024; https://github.com/jiawangbai/BadCLIP/blob/0a88c08/trainers/badclip.py
    """

    family: ClassVar[str] = "cocoop"
    image_dependent: ClassVar[bool] = True

    def __init__(self, ctx: Tensor, linear1: nn.Linear, linear2: nn.Linear, tokens: ClassTokens) -> None:
        super().__init__()
        self.ctx = nn.Parameter(ctx)
        self.meta_net = nn.Sequential(OrderedDict([("linear1", linear1), ("relu", nn.ReLU()), ("linear2", linear2)]))
        self.tokens = tokens
        self.cut = True  # False encodes all positions, to measure what the cut saves

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], model: ClipModel, class_names: Sequence[str] | None, read_as: ReadAs
    ) -> Self:
        """Build from CoOp's three tensors and ``meta_net.*``; see :meth:`Prompt.from_tensors`."""
        reject_unknown(tensors, cls.family, _KEYS)
        if read_as.position != "end":
            raise UsageError(f"expected the class name at end for {cls.family}, got '{read_as.position}'")
        ctx = take(tensors, "ctx", None, model.text_width)
        layers = (
            linear(tensors, "meta_net.linear1", model.embed_dim, None),
            linear(tensors, "meta_net.linear2", None, model.text_width),
        )
        if layers[0].out_features != layers[1].in_features:
            raise UsageError(
                f"expected meta_net.linear2 to take the {layers[0].out_features} values of linear1, found "
                f"{layers[1].in_features}: ask for a complete delivery"
            )
        tokens = ClassTokens.build(model, class_names, len(ctx), tensors, [read_as.wording or neutral_wording(len(ctx))])
        return cls(ctx, *layers, tokens).to(model.device)

    @classmethod
    def fresh(cls, model: ClipModel, class_names: Sequence[str], start: FreshStart) -> Self:
        """Build an untuned prompt; the hidden layer has a sixteenth of the feature size, and 32 at least."""
        generator = torch.Generator().manual_seed(start.seed)
        ctx, read_as = begin(model, start, None if start.init else 4, generator)
        hidden = max(32, model.embed_dim // 16)  # 32 is what a ViT-B has; a small base gets no less
        tensors = {
            "ctx": ctx,
            **random_linear("meta_net.linear1", model.embed_dim, hidden, generator),
            **random_linear("meta_net.linear2", hidden, model.text_width, generator),
        }
        return cls.from_tensors(tensors, model, class_names, read_as)

    def text_features(self, model: ClipModel, image_features: Tensor | None = None, *, classes: Tensor | None = None) -> Tensor:
        """Compute unit text features ``(n, k, d)``; see :meth:`Prompt.text_features`."""
        if image_features is None:
            raise UsageError("expected image features for a CoCoOp prompt, got none: its texts depend on the image")
        chosen = torch.arange(len(self.tokens), device=model.device) if classes is None else classes
        n_images, n_classes = len(image_features), len(chosen)
        ctx = self.ctx + self.meta_net(image_features)[:, None]  # (n, n_ctx, width)

        def build(rows: Tensor) -> TextInput:
            return self.tokens.assemble(ctx[rows // n_classes], chosen[rows % n_classes], cut=self.cut)

        length = needed_length(self.tokens.eot[chosen]) if self.cut else model.context_length
        texts = encode_in_chunks(model, n_images * n_classes, length, build, cut=self.cut)
        return texts.view(n_images, n_classes, -1)

    def state(self) -> dict[str, Tensor]:
        """Return CoOp's three tensors and ``meta_net.*``."""
        learned = {name: tensor.detach().clone() for name, tensor in self.named_parameters()}
        return learned | self.tokens.state()
