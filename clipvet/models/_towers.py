"""What the families share that put tokens into the towers and save the towers with them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from clipvet.errors import UnknownLayoutError, UsageError
from clipvet.models._start import random_tokens
from clipvet.models._tensors import take
from clipvet.models.base import ClipModel

__all__ = ["TOWERS", "depth_within", "fresh_deep", "is_token", "need_vit", "read_deep", "tower_state"]

TOWERS = ("image_encoder.", "text_encoder.", "logit_scale")
_BLOCKS = "transformer.resblocks."
_TOKEN = ".VPT_shallow"  # noqa: S105  # a tensor's name, not a secret


def need_vit(model: ClipModel, family: str) -> None:
    """Refuse an image tower that has no place for tokens."""
    if not model.is_vit:
        raise UsageError(f"expected a vision transformer as base of a {family} prompt, got {model.name}: name another base")


def depth_within(asked: int | None, official: int, layers: int) -> int:
    """Return how many blocks get tokens: the official number where none is asked for, and no more than there are.

    Raises:
        UsageError: more are asked for than there are, or none.
    """
    if asked is not None and not 1 <= asked <= layers:
        raise UsageError(f"expected a depth of 1 to {layers} for this base, got {asked}")
    return asked if asked is not None else min(official, layers)


def is_token(key: str) -> bool:
    """Whether a tensor of that name is a learned token inside a tower."""
    return key == "image_encoder.VPT" or key.endswith(_TOKEN)


def read_deep(tensors: Mapping[str, Tensor], tower: str, layers: int, n_tokens: int, width: int) -> list[Tensor]:
    """Read a tower's tokens for the blocks 1..D-1, each ``(n_tokens, width)``.

    Raises:
        UnknownLayoutError: they skip a block, or the base has fewer blocks.
    """
    start = f"{tower}.{_BLOCKS}"
    found = {key for key in tensors if key.startswith(start) and key.endswith(_TOKEN)}
    keys = [f"{start}{index}{_TOKEN}" for index in range(1, len(found) + 1)]
    if found != set(keys) or len(found) >= layers:
        raise UnknownLayoutError(
            f"expected {tower} tokens in consecutive blocks from 1 on, at most {layers - 1}, found {sorted(found)[:12]}: "
            "name the base that the prompt was tuned on"
        )
    return [take(tensors, key, n_tokens, width) for key in keys]


def fresh_deep(generator: torch.Generator, tower: str, depth: int, n_tokens: int, width: int) -> dict[str, Tensor]:
    """Draw a tower's tokens for the blocks 1..depth-1 under their official names."""
    return {f"{tower}.{_BLOCKS}{i}{_TOKEN}": random_tokens(generator, n_tokens, width) for i in range(1, depth)}


def tower_state(model: ClipModel) -> dict[str, Tensor]:
    """Return both towers and the scale as the official models name them; token embeddings are not among them."""
    clip = model.clip
    state = {f"image_encoder.{key}": tensor for key, tensor in clip.visual.state_dict().items()}
    text = {f"transformer.{key}": tensor for key, tensor in clip.transformer.state_dict().items()}
    text |= {f"ln_final.{key}": tensor for key, tensor in clip.ln_final.state_dict().items()}
    text |= {"positional_embedding": clip.positional_embedding, "text_projection": clip.text_projection}
    state |= {f"text_encoder.{key}": tensor.detach() for key, tensor in text.items()}
    return state | {"logit_scale": clip.logit_scale.detach()}
