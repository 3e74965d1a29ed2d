"""Whole models: from the layouts in which CLIPs are saved to open_clip's names.

Understood: open_clip (bare, trainer file, custom text tower), Hugging Face ``CLIPModel`` and its single towers, OpenAI's
TorchScript archives, CleanCLIP, RoCLIP and BadCLIP (Liang et al.) training files, and image towers alone (BadEncoder, DECREE).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from clipvet.errors import UnknownLayoutError

__all__ = ["LAYOUTS", "Activation", "Converted", "convert", "decide_activation", "describe", "is_whole"]

LAYOUTS = ("open_clip", "Hugging Face", "OpenAI", "image tower")
_OPENAI_SCALARS = ("input_resolution", "context_length", "vocab_size")
_IMAGE_PARTS = ("class_embedding", "positional_embedding", "proj", "conv", "bn", "ln_p", "transformer.", "layer", "attnpool.")


@dataclass(frozen=True, kw_only=True)
class Converted:
    """Tensors under open_clip's names.

    Attributes:
        layout: one of `LAYOUTS`.
        state: the tensors; some may be views of the file's.
        complete: whether both towers, both projections and the scale are there; else a base has to lend the rest.
        unknown: names in the file that have no counterpart in a CLIP.
    """

    layout: str
    state: dict[str, Tensor]
    complete: bool
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Activation:
    """Which GELU a model uses and who said so; ``sure`` is False where it is an assumption."""

    quick: bool
    source: str
    sure: bool = True


def describe(tensors: Mapping[str, Tensor], count: int = 5) -> str:
    """Name the first tensors of a file with their shapes, for an error message."""
    some = [f"{name or '(unnamed)'} {tuple(values.shape)}" for name, values in list(tensors.items())[:count]]
    rest = len(tensors) - len(some)
    return ", ".join(some) + (f" and {rest} more" if rest else "")


def is_whole(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a whole model, or of a whole tower."""
    return _layout(tensors) != ""


def _layout(tensors: Mapping[str, Tensor]) -> str:
    if "visual.conv1.weight" in tensors:
        return "OpenAI" if all(name in tensors for name in _OPENAI_SCALARS) else "open_clip"
    if any(name.startswith(("text_model.", "vision_model.")) or name in _HF_FIRST for name in tensors):
        return "Hugging Face"
    return "image tower" if "conv1.weight" in tensors and _looks_like_tower(tensors) else ""


def _looks_like_tower(tensors: Mapping[str, Tensor]) -> bool:
    return "class_embedding" in tensors or "attnpool.positional_embedding" in tensors


def convert(tensors: Mapping[str, Tensor]) -> Converted:
    """Give the tensors of a whole model, or of one tower, open_clip's names and orientation.

    Args:
        tensors: flat, as `clipvet.models.reading.read_tensors` returns them.

    Raises:
        UnknownLayoutError: no layout fits, or one fits and tensors of it are missing.
    """
    layout = _layout(tensors)
    unknown: tuple[str, ...] = ()
    if layout == "OpenAI":
        state = {name: values for name, values in tensors.items() if name not in _OPENAI_SCALARS}
    elif layout == "open_clip":
        state = {name.removeprefix("text."): values for name, values in tensors.items() if not name.endswith("attn_mask")}
    elif layout == "Hugging Face":
        state, unknown = _from_hugging_face(tensors)
    elif layout == "image tower":
        state = {f"visual.{name}": values for name, values in tensors.items() if name.startswith(_IMAGE_PARTS)}
        unknown = tuple(name for name in tensors if not name.startswith(_IMAGE_PARTS))
    else:
        raise UnknownLayoutError(f"expected a whole CLIP in one of the layouts {', '.join(LAYOUTS)}, found {describe(tensors)}")
    needed = ("visual.conv1.weight", "token_embedding.weight", "text_projection", "logit_scale")
    has_projection = "visual.proj" in state or "visual.attnpool.c_proj.weight" in state
    complete = has_projection and all(name in state for name in needed)
    return Converted(layout=layout, state=state, complete=complete, unknown=unknown)


# Hugging Face's names, tower prefix removed, to open_clip's.
_HF_FIRST = ("embeddings.patch_embedding.weight", "embeddings.token_embedding.weight")
_HF_TEXT = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_HF_VISION = {
    "embeddings.class_embedding": "visual.class_embedding",
    "embeddings.patch_embedding.weight": "visual.conv1.weight",
    "embeddings.position_embedding.weight": "visual.positional_embedding",
    "pre_layrnorm.weight": "visual.ln_pre.weight",
    "pre_layrnorm.bias": "visual.ln_pre.bias",
    "post_layernorm.weight": "visual.ln_post.weight",
    "post_layernorm.bias": "visual.ln_post.bias",
}
_HF_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_HF_LAYER = re.compile(r"encoder\.layers\.([0-9]+)\.(.+)\.(weight|bias)")
_HF_IGNORED = ("position_ids", "logit_bias")


def _from_hugging_face(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    tensors = _with_tower_prefix(tensors)
    state: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, values in tensors.items():
        new = _hugging_face_name(name)
        if name == "text_projection.weight":
            state["text_projection"] = values.T
        elif name == "visual_projection.weight":
            state["visual.proj"] = values.T
        elif new.endswith(("attn.q_proj", "attn.k_proj", "attn.v_proj")):
            continue  # joined below, when all three are known
        elif new:
            state[new] = values
        elif not name.endswith(_HF_IGNORED):
            unknown.append(name)
    return state | _joined_attention(tensors), tuple(unknown)


def _with_tower_prefix(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Transformers 5 saves single towers without ``text_model.`` and ``vision_model.``: put it back."""
    first = next((name for name in _HF_FIRST if name in tensors), "")
    if not first:
        return tensors
    prefix = "vision_model." if "patch" in first else "text_model."
    return {name if name.endswith("_projection.weight") else prefix + name: values for name, values in tensors.items()}


def _hugging_face_name(name: str) -> str:
    """open_clip's name for a tensor, "" where there is none; q, k and v keep a name of their own."""
    tower, _, rest = name.partition(".")
    if tower not in ("text_model", "vision_model"):
        return name if name == "logit_scale" else ""
    plain = (_HF_TEXT if tower == "text_model" else _HF_VISION).get(rest, "")
    match = _HF_LAYER.fullmatch(rest)
    if plain or match is None:
        return plain
    prefix = "" if tower == "text_model" else "visual."
    index, part, kind = match.groups()
    if part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
        return f"{prefix}transformer.resblocks.{index}.{part.removeprefix('self_')}"
    return f"{prefix}transformer.resblocks.{index}.{_HF_BLOCK[part]}.{kind}" if part in _HF_BLOCK else ""


def _joined_attention(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    joined = {}
    for name in tensors:
        if ".self_attn.q_proj." not in name:
            continue
        parts = [name.replace(".q_proj.", f".{letter}_proj.") for letter in "qkv"]
        if missing := [part for part in parts if part not in tensors]:
            raise UnknownLayoutError(f"expected q_proj, k_proj and v_proj of every layer, found no {missing[0]}")
        new = _hugging_face_name(name).removesuffix(".q_proj")
        try:
            joined[f"{new}.in_proj_{name.rpartition('.')[2]}"] = torch.cat([tensors[part] for part in parts])
        except RuntimeError as error:
            raise UnknownLayoutError(f"the shapes of {', '.join(parts)} do not fit each other") from error
    return joined


def decide_activation(
    converted: Converted,
    *,
    stated: bool | None,
    configured: bool | None,
    known: bool,
    base: bool | None,
) -> Activation:
    """Decide between QuickGELU and GELU, which no tensor shows, and say on whose word.

    Args:
        converted: the model; OpenAI's layout and a ResNet image tower speak for QuickGELU.
        stated: what the user said.
        configured: what a configuration file in the delivery's folder says.
        known: whether the file's hash is that of one of OpenAI's published files.
        base: what the trusted base uses, where its tensors have the same shapes.
    """
    if stated is not None:
        return Activation(quick=stated, source="stated by the user")
    if known:
        return Activation(quick=True, source="the hash of one of OpenAI's files")
    if converted.layout == "OpenAI":
        return Activation(quick=True, source="OpenAI's layout")
    if configured is not None:
        return Activation(quick=configured, source="the configuration file beside the weights")
    if base is not None:
        return Activation(quick=base, source="the base")
    quick = converted.layout == "Hugging Face" or "visual.attnpool.positional_embedding" in converted.state
    why = "the usual one of this layout; nothing in the file decides it, so state it if you know it"
    return Activation(quick=quick, source=why, sure=False)
