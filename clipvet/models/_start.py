"""How the context vectors of a new prompt begin."""

from __future__ import annotations

import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.models._class_tokens import neutral_wording
from clipvet.models.base import ClipModel
from clipvet.models.prompts import FreshStart, ReadAs

__all__ = ["begin", "random_tokens"]

_STD = 0.02


def random_tokens(generator: torch.Generator, *shape: int) -> Tensor:
    """Draw tokens from a normal distribution of standard deviation 0.02, as every official code does."""
    return torch.randn(*shape, generator=generator) * _STD


def begin(model: ClipModel, start: FreshStart, default_n_ctx: int | None, generator: torch.Generator) -> tuple[Tensor, ReadAs]:
    """Return the first context vectors and the wording that goes with them.

    The words of ``start.init`` fill the context from its end backwards where there are more vectors than words (ProGrad),
    the rest being random. Where there are fewer, the first words become vectors and the others stay words (MaPLe).

    Args:
        model: the base.
        start: what was asked for.
        default_n_ctx: number of vectors where ``start`` names none; None for as many as there are words.
        generator: for what is random.

    Raises:
        UsageError: no context vector would be left.
    """
    n_words = int(model.tokenize([start.init]).argmax(1)) - 1 if start.init else 0
    n_ctx = next(n for n in (start.n_ctx, default_n_ctx, n_words or 16) if n is not None)
    if n_ctx < 1:
        raise UsageError(f"expected at least one context vector, got {n_ctx}: raise n_ctx")
    ctx = random_tokens(generator, n_ctx, model.text_width)
    if not n_words:
        return ctx, ReadAs(wording=neutral_wording(n_ctx))
    words = model.embed(model.tokenize([start.init]))[0, 1 : 1 + n_words].cpu()
    if n_ctx >= n_words:
        ctx[n_ctx - n_words :] = words
        return ctx, ReadAs(wording="X " * (n_ctx - n_words) + start.init + " {}.")
    return words[:n_ctx].clone(), ReadAs(wording=start.init + " {}.")
