"""The fixed part of a learned text prompt: start token, class names and what follows them, as token embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clipvet.errors import UnknownLayoutError, UsageError
from clipvet.models._tensors import half_rounded, take
from clipvet.models.base import ClipModel, TextInput, needed_length

__all__ = ["POSITIONS", "ClassTokens", "encode_deep", "encode_in_chunks", "name_lengths", "neutral_wording", "spoken"]

POSITIONS = ("end", "middle", "front")
CHUNK_BYTES = 512 << 20  # about what the activations of texts that are encoded together may take
_COMPARED = 32  # classes by which a wording is recognised


class ClassTokens(nn.Module):
    """Embeddings around the context vectors, one row per class.

    Args:
        prefix: ``(n_classes, 1, width)``, the start-of-text token.
        suffix: ``(n_classes, context_length - 1 - n_ctx, width)``, what follows the context vectors.
        eot: ``long (n_classes,)``, position of the end-of-text token in the whole text.
        lengths: ``long (n_classes,)``, number of tokens of each class name.
        wording: the text around the names, empty where it is not known.
    """

    prefix: Tensor
    suffix: Tensor
    eot: Tensor
    lengths: Tensor

    def __init__(self, *, prefix: Tensor, suffix: Tensor, eot: Tensor, lengths: Tensor, wording: str = "") -> None:
        super().__init__()
        self.wording = wording
        for name, tensor in (("prefix", prefix), ("suffix", suffix), ("eot", eot), ("lengths", lengths)):
            self.register_buffer(name, tensor, persistent=False)

    def __len__(self) -> int:
        return len(self.eot)

    @classmethod
    def build(
        cls, model: ClipModel, class_names: Sequence[str] | None, n_ctx: int, saved: Mapping[str, Tensor], wordings: Sequence[str]
    ) -> ClassTokens:
        """Build from class names as the official loaders do, or from the saved embeddings where there are none.

        Args:
            model: the base.
            class_names: one per class, or None.
            n_ctx: number of context vectors.
            saved: ``token_prefix`` and ``token_suffix`` as saved, or neither.
            wordings: texts with ``{}`` for the name; the one whose embeddings are those saved is taken, else the first.

        Raises:
            UnknownLayoutError: there are neither names nor usable saved embeddings.
            UsageError: a name is empty or too long, or shapes do not fit the base.
        """
        length = model.context_length - 1 - n_ctx
        if length < 2:
            raise UsageError(
                f"expected fewer than {model.context_length - 2} context vectors, got {n_ctx}: use a base with longer texts"
            )
        suffix = take(saved, "token_suffix", None, length, model.text_width).to(model.device) if "token_suffix" in saved else None
        if class_names is not None:
            return cls._from_names(model, class_names, n_ctx, _wording(model, class_names, n_ctx, wordings, suffix))
        if suffix is None:
            raise UsageError("expected class names, since the delivery carries none (no token_suffix): give them with --classes")
        return cls._from_suffix(model, suffix, n_ctx)

    @classmethod
    def _from_names(cls, model: ClipModel, names: Sequence[str], n_ctx: int, wording: str) -> ClassTokens:
        lengths = name_lengths(model, names)
        frame = int(model.tokenize([wording.replace("{}", "")]).argmax(1))
        longest = int(lengths.argmax())
        if frame + int(lengths[longest]) >= model.context_length:
            raise UsageError(
                f"expected class names that fit {model.context_length} text positions together with '{wording}', "
                f"got '{names[longest]}' of {int(lengths[longest])} tokens: shorten it"
            )
        tokens = model.tokenize(_texts(wording, names))
        embeddings = model.embed(tokens)
        return cls(
            prefix=embeddings[:, :1],
            suffix=embeddings[:, 1 + n_ctx :],
            eot=tokens.argmax(1),
            lengths=lengths,
            wording=wording,
        )

    @classmethod
    def _from_suffix(cls, model: ClipModel, suffix: Tensor, n_ctx: int) -> ClassTokens:
        tokens = model.tokenize(["x"])
        ends = model.embed(tokens.max().view(1, 1))
        is_end = torch.isclose(suffix, ends, rtol=2e-3, atol=1e-4).all(2)
        if not bool(is_end.any(1).all()):
            raise UnknownLayoutError(
                "expected an end-of-text token of the base in every row of token_suffix, found none in some: "
                "the prompt was tuned on another base, or give the class names with --classes"
            )
        after = is_end.int().argmax(1)
        prefix = model.embed(tokens)[:, :1].expand(len(suffix), -1, -1)
        # Texts end in " name ." and then the end-of-text token.
        return cls(prefix=prefix, suffix=suffix, eot=after + 1 + n_ctx, lengths=(after - 1).clamp(min=0))

    def assemble(
        self,
        ctx: Tensor,
        classes: Tensor,
        *,
        position: str = "end",
        deep: Mapping[int, Tensor] | None = None,
        cut: bool = True,
    ) -> TextInput:
        """Put context vectors and class names together.

        Args:
            ctx: ``(n_ctx, width)``, or ``(k, n_ctx, width)`` with one row per text.
            classes: ``long (k,)``, the class of each text; may repeat.
            position: where the class name stands.
            deep: as :class:`TextInput` has it, rows aligned with ``classes``.
            cut: leave out positions that cannot change the result.
        """
        n_ctx = ctx.shape[-2]
        eot = self.eot[classes]
        length = max(needed_length(eot, deep), 1 + n_ctx) if cut else 1 + n_ctx + self.suffix.shape[1]
        shared = ctx.expand(len(classes), -1, -1) if ctx.ndim == 2 else ctx
        x = torch.cat([self.prefix[classes], shared, self.suffix[classes, : length - 1 - n_ctx]], dim=1)
        if position != "end":
            half = n_ctx // 2 if position == "middle" else 0
            order = _order(length, half, n_ctx, self.lengths[classes])
            x = x[torch.arange(len(x), device=x.device)[:, None], order]
        return TextInput(embeddings=x, eot=eot, deep=deep)

    def state(self, prefix: str = "") -> dict[str, Tensor]:
        """Return the embeddings under their official names."""
        return {f"{prefix}token_prefix": self.prefix.clone(), f"{prefix}token_suffix": self.suffix.clone()}


def encode_in_chunks(
    model: ClipModel,
    n_texts: int,
    length: int,
    build: Callable[[Tensor], TextInput],
    *,
    cut: bool = True,
) -> Tensor:
    """Encode many texts in bounded memory, differentiable with respect to whatever ``build`` closes over.

    Where they take more than one chunk of :data:`CHUNK_BYTES` and gradients are on, a chunk's activations are computed
    again when gradients pass: a third more arithmetic in total.

    Args:
        model: the base.
        n_texts: how many.
        length: positions per text that count, to judge the memory.
        build: maps ``long (k,)`` text indices to their embeddings.
        cut: as :meth:`ClipModel.encode_embeddings` has it.

    Returns:
        ``(n_texts, embed_dim)``, unit length.
    """
    # A block keeps about 20 floats per position and channel for its backward pass.
    per_text = 80 * model.text_layers * model.text_width * length
    chunks = torch.arange(n_texts, device=model.device).split(max(1, CHUNK_BYTES // per_text))

    def encode(rows: Tensor) -> Tensor:
        return model.encode_embeddings(build(rows), cut=cut)

    if len(chunks) == 1 or not torch.is_grad_enabled():
        return torch.cat([encode(rows) for rows in chunks])
    return torch.cat([checkpoint(encode, rows, use_reentrant=False, preserve_rng_state=False) for rows in chunks])


def encode_deep(model: ClipModel, tokens: ClassTokens, ctx: Tensor, deep: Iterable[Tensor], classes: Tensor | None) -> Tensor:
    """Encode class names behind learned tokens in several blocks of the text tower (MaPLe, IVLP).

    Args:
        model: the base.
        tokens: the class names.
        ctx: ``(n_ctx, width)``.
        deep: tensors like ``ctx``, one per block from the second, rounded to fp16 as they enter.
        classes: ``long (k,)``, the classes in play; None for all.

    Returns:
        ``(k, embed_dim)``, unit length.
    """
    chosen = torch.arange(len(tokens), device=model.device) if classes is None else classes
    rounded = {index: half_rounded(prompt) for index, prompt in enumerate(deep, start=1)}

    def build(rows: Tensor) -> TextInput:
        return tokens.assemble(ctx, chosen[rows], deep=rounded)

    return encode_in_chunks(model, len(chosen), needed_length(tokens.eot[chosen], rounded), build)


def spoken(names: Sequence[str]) -> list[str]:
    """Return class names as they are tokenised: underscores are spaces.

    Raises:
        UsageError: there is no name, or one is blank.
    """
    words = [name.replace("_", " ").strip() for name in names]
    if not words or not all(words):
        raise UsageError(f"expected class names that are not blank, got {list(names)[:5]}: name every class")
    return words


def name_lengths(model: ClipModel, names: Sequence[str]) -> Tensor:
    """Return the number of tokens of each name, ``long (n,)``."""
    return model.tokenize(spoken(names)).argmax(1) - 1


def neutral_wording(n_ctx: int) -> str:
    """Return the text that the official code tokenises for ``n_ctx`` context vectors."""
    return "X " * n_ctx + "{}."


def _texts(wording: str, names: Sequence[str]) -> list[str]:
    return [wording.replace("{}", name) for name in spoken(names)]


def _wording(model: ClipModel, names: Sequence[str], n_ctx: int, wordings: Sequence[str], suffix: Tensor | None) -> str:
    """Find the wording whose embeddings are those that were saved, for as many of the first classes as possible."""
    if len(wordings) == 1 or suffix is None or len(suffix) != len(names):
        return wordings[0]
    some = suffix[:_COMPARED]
    agreeing = []
    for wording in wordings:
        embeddings = model.embed(model.tokenize(_texts(wording, names[:_COMPARED])))[:, 1 + n_ctx :]
        agreeing.append(int(torch.isclose(embeddings, some, rtol=2e-3, atol=1e-4).all(2).all(1).sum()))
    return wordings[agreeing.index(max(agreeing))]


def _order(length: int, half: int, n_ctx: int, lengths: Tensor) -> Tensor:
    """Return ``(k, length)`` indices that bring the class name behind the first ``half`` context vectors."""
    at = torch.arange(length, device=lengths.device)
    name = lengths[:, None]
    moved = torch.where(at <= half + name, at - half + n_ctx, torch.where(at <= n_ctx + name, at - name, at))
    return torch.where(at <= half, at, moved)
