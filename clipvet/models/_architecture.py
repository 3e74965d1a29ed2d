"""The architecture of a CLIP: read off its tensors' shapes, completed from what is known, and built without waste.

Shapes say everything but two things: the number of attention heads and the activation. Heads come from a model of the same
shapes that is known (a base, pocket, a configuration of open_clip) and else follow OpenAI's rule of 64 channels per head. The
activation is decided elsewhere (`clipvet.models.whole`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from clipvet.errors import UnknownLayoutError
from clipvet.models._open_clip import CLIP, open_clip
from clipvet.models.base import ClipModel

__all__ = ["Architecture", "architecture_of", "build_clip", "infer_architecture", "known_architecture", "published_architectures"]

_MAX_LAYERS = 256  # per tower; the largest published CLIP has 64
_MAX_CONTEXT = 4096
_HEAD_WIDTH = 64
_STAGES = (1, 2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What open_clip needs to know to build a CLIP.

    ``layers`` is a number for a vision transformer and four numbers for a ModifiedResNet, whose ``patch`` is 0. Hidden widths
    of the MLPs are in channels. ``heads`` and ``text_heads`` are 0 where only shapes are known.
    """

    embed_dim: int
    image_size: int
    patch: int
    width: int
    layers: int | tuple[int, ...]
    hidden: int
    context: int
    vocabulary: int
    text_width: int
    text_layers: int
    text_hidden: int
    heads: int = 0
    text_heads: int = 0

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Architecture | None:
        """Take it from a configuration of open_clip; None where that is not a CLIP with built-in towers."""
        vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
        if isinstance(vision.get("image_size"), list) or not _is_plain(vision, text):
            return None
        layers, width = vision["layers"], vision["width"]
        resnet = not isinstance(layers, int)
        text_width = text.get("width", 512)
        return cls(
            embed_dim=config["embed_dim"],
            image_size=vision["image_size"],
            patch=0 if resnet else vision["patch_size"],
            width=width,
            layers=tuple(layers) if resnet else layers,
            hidden=0 if resnet else int(width * vision.get("mlp_ratio", 4.0)),
            context=text.get("context_length", 77),
            vocabulary=text.get("vocab_size", 49408),
            text_width=text_width,
            text_layers=text.get("layers", 12),
            text_hidden=int(text_width * text.get("mlp_ratio", 4.0)),
            heads=width * (32 if resnet else 1) // vision.get("head_width", _HEAD_WIDTH),
            text_heads=text.get("heads", 8),
        )

    @property
    def shapes(self) -> Architecture:
        """The same without heads: equal for two models whose tensors have the same shapes."""
        return replace(self, heads=0, text_heads=0)

    def with_default_heads(self) -> Architecture:
        """The same with heads of 64 channels, as OpenAI's models have, where heads are unknown."""
        width = self.width * 32 if self.patch == 0 else self.width
        return replace(
            self,
            heads=self.heads or max(1, width // _HEAD_WIDTH),
            text_heads=self.text_heads or max(1, self.text_width // _HEAD_WIDTH),
        )

    def open_clip_arguments(self) -> dict[str, Any]:
        """Keyword arguments for ``open_clip.model.CLIP``."""
        vision: dict[str, Any] = {"image_size": self.image_size, "width": self.width, "layers": self.layers}
        if self.patch:
            # Half a channel more, so that the width times the ratio is not rounded down to one channel less.
            vision |= {"patch_size": self.patch, "mlp_ratio": (self.hidden + 0.5) / self.width}
        vision["head_width"] = self.width * (1 if self.patch else 32) // self.heads
        text = {
            "context_length": self.context,
            "vocab_size": self.vocabulary,
            "width": self.text_width,
            "heads": self.text_heads,
            "layers": self.text_layers,
            "mlp_ratio": (self.text_hidden + 0.5) / self.text_width,
        }
        return {"embed_dim": self.embed_dim, "vision_cfg": vision, "text_cfg": text}


_PLAIN_VISION = {"image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio", "patch_dropout"}
_PLAIN_TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}


def _is_plain(vision: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    return vision.keys() <= _PLAIN_VISION and text.keys() <= _PLAIN_TEXT and "layers" in vision and "width" in vision


def known_architecture(name: str) -> Architecture | None:
    """The architecture that open_clip knows by a name (``ViT-B-16``, also written ``ViT-B/16``); None where it knows none.

    Raises:
        UnknownLayoutError: open_clip knows the name, but it is not a CLIP with built-in towers.
    """
    config = open_clip.get_model_config(name.replace("/", "-").replace("@336px", "-336"))
    if config is None:
        return None
    found = Architecture.of_config(config)
    if found is None:
        raise UnknownLayoutError(
            f"{name} has towers that are not understood: expected a CLIP with OpenAI's vision transformer or ResNet and a "
            "built-in text tower, such as ViT-B-16 or RN50"
        )
    return found


def published_architectures() -> list[Architecture]:
    """Every CLIP with built-in towers that open_clip has a configuration of."""
    configs = (open_clip.get_model_config(name) for name in open_clip.list_models())
    return [found for config in configs if (found := Architecture.of_config(config)) is not None]


def architecture_of(model: ClipModel) -> Architecture:
    """The architecture of a loaded model, heads included."""
    visual, text = model.clip.visual, model.clip.transformer
    attention = visual.transformer.resblocks[0].attn if model.is_vit else visual.attnpool
    shapes = infer_architecture(model.clip.state_dict())
    return replace(shapes, heads=int(attention.num_heads), text_heads=int(text.resblocks[0].attn.num_heads))


def infer_architecture(state: Mapping[str, Tensor]) -> Architecture:
    """Read the architecture off a state dict with open_clip's names; its heads stay unknown.

    Raises:
        UnknownLayoutError: a tensor that the architecture is read from is missing or has an odd shape.
    """
    try:
        return _infer(state)
    except (KeyError, ValueError, IndexError) as error:
        raise UnknownLayoutError(
            f"its tensors do not add up to a CLIP ({error}): expected open_clip's names and shapes, text tower included"
        ) from error


def _infer(state: Mapping[str, Tensor]) -> Architecture:
    text_width, embed_dim = _shape(state, "text_projection", 2)
    context, _ = _shape(state, "positional_embedding", 2)
    vocabulary, _ = _shape(state, "token_embedding.weight", 2)
    return Architecture(
        embed_dim=embed_dim,
        **_infer_vision(state),
        context=context,
        vocabulary=vocabulary,
        text_width=text_width,
        text_layers=_count(state, "transformer.resblocks."),
        text_hidden=_shape(state, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
    )


def _infer_vision(state: Mapping[str, Tensor]) -> dict[str, Any]:
    if "visual.class_embedding" in state:
        width, _, patch, _ = _shape(state, "visual.conv1.weight", 4)
        grid = _grid(_shape(state, "visual.positional_embedding", 2)[0])
        layers = _count(state, "visual.transformer.resblocks.")
        hidden = _shape(state, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
        return {"image_size": grid * patch, "patch": patch, "width": width, "layers": layers, "hidden": hidden}
    grid = _grid(_shape(state, "visual.attnpool.positional_embedding", 2)[0])
    width = _shape(state, "visual.layer1.0.conv1.weight", 4)[0]
    stages = tuple(_count(state, f"visual.layer{stage}.") for stage in _STAGES)
    return {"image_size": grid * 32, "patch": 0, "width": width, "layers": stages, "hidden": 0}


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise KeyError(name)
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise ValueError(f"{name} has the shape {shape}")
    return shape


def _grid(positions: int) -> int:
    side = math.isqrt(max(positions - 1, 0))
    if side < 1 or side * side + 1 != positions:
        raise ValueError(f"{positions} positions are no square of patches and a class token")
    return side


def _count(names: Iterable[str], prefix: str) -> int:
    """Count blocks, which must be numbered from 0 without gaps."""
    pattern = re.compile(re.escape(prefix) + r"([0-9]{1,6})\.")
    found = {int(match[1]) for name in names if (match := pattern.match(name))}
    if not 1 <= len(found) <= _MAX_LAYERS or found != set(range(len(found))):
        raise ValueError(f"{len(found)} blocks under {prefix}")
    return len(found)


def build_clip(architecture: Architecture, state: Mapping[str, Tensor], *, quick_gelu: bool) -> CLIP:
    """Build an open_clip CLIP around the tensors of a state dict.

    The model is laid out without memory first and compared with the tensors, so that no file can ask for more memory than its
    own tensors take, and nothing is drawn from the global random generator. Values become float32; tensors that are float32
    already are not copied.

    Args:
        architecture: heads included.
        state: open_clip's names; batch counters of a ResNet may be missing.
        quick_gelu: activation of both towers' MLPs.

    Raises:
        UnknownLayoutError: names or shapes differ from the architecture's, or a value is not a floating-point number.
    """
    if architecture.context > _MAX_CONTEXT:
        raise UnknownLayoutError(f"expected at most {_MAX_CONTEXT} text positions, found {architecture.context}")
    with torch.device("meta"):
        clip = CLIP(**architecture.open_clip_arguments(), quick_gelu=quick_gelu)
    expected = clip.state_dict()
    ready = {name: values.float() for name, values in state.items() if values.is_floating_point()}
    ready |= {name: torch.tensor(0) for name in expected if name.endswith("num_batches_tracked")}
    if "logit_scale" in ready and ready["logit_scale"].numel() == 1:
        ready["logit_scale"] = ready["logit_scale"].reshape(())
    _compare(expected, ready)
    clip.load_state_dict(ready, assign=True)
    clip.attn_mask = torch.full((architecture.context, architecture.context), float("-inf")).triu(1)
    return clip.eval().requires_grad_(False)


def _compare(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in given]
    unknown = [name for name in given if name not in expected]
    wrong = [name for name in expected if name in given and expected[name].shape != given[name].shape]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", wrong))
        if names
    ]
    if problems:
        raise UnknownLayoutError(f"its tensors do not fit the CLIP that they seem to be: {'; '.join(problems)}")
