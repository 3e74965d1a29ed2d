"""Say what a checkpoint is, from the names and shapes in it and never from its file's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from clipvet.errors import UnknownLayoutError
from clipvet.models.whole import describe, is_whole

__all__ = ["FAMILY", "Family", "recognise"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of checkpoint.

    Attributes:
        name: its name in lower case, as in `clipvet.models.families` where it is supported.
        title: the name its authors gave it.
        towers: whether its official files carry the whole towers along.
        unsupported: why it cannot be inspected, empty where it can.
    """

    name: str
    title: str
    towers: bool = False
    unsupported: str = ""


_ADAPTER = "it changes features behind the image tower, and its mixing ratio is not in the file"
_LOW_RANK = "merge it into the base first (peft: merge_and_unload), then inspect the merged model as a whole model"
FAMILY: dict[str, Family] = {
    family.name: family
    for family in (
        Family(name="coop", title="CoOp"),
        Family(name="prograd", title="ProGrad"),
        Family(name="cocoop", title="CoCoOp"),
        Family(name="kgcoop", title="KgCoOp"),
        Family(name="tcp", title="TCP"),
        Family(name="maple", title="MaPLe", towers=True),
        Family(name="ivlp", title="IVLP", towers=True),
        Family(name="vpt", title="VPT", towers=True),
        Family(name="promptsrc", title="PromptSRC", towers=True),
        Family(name="whole", title="whole model"),
        Family(
            name="trigger",
            title="BadCLIP trigger",
            unsupported="it is an attacker's trigger, not a model: name the prompt beside it",
        ),
        Family(name="clip-adapter", title="CLIP-Adapter", unsupported=_ADAPTER),
        Family(name="tip-adapter", title="Tip-Adapter", unsupported=_ADAPTER),
        Family(name="clip-lora", title="CLIP-LoRA", unsupported=_LOW_RANK),
        Family(name="peft", title="PEFT LoRA", unsupported=_LOW_RANK),
        Family(
            name="pixel-prompt",
            title="visual prompting in pixels",
            unsupported="it is a frame around the picture, without a text side",
        ),
        Family(name="vpt-classifier", title="VPT (Jia et al.)", unsupported="it prompts an image classifier, not a CLIP"),
        Family(name="cocoop-tcp", title="CoCoOp as TCP's repository varies it", unsupported="its forward pass is not published"),
    )
}


def recognise(tensors: Mapping[str, Tensor]) -> Family:
    """Find the family that a checkpoint's tensors belong to.

    CoOp and ProGrad save the same names, as do IVLP and a PromptSRC file without its second image tower: the first of each pair
    is returned. A family that is understood but cannot be inspected is returned with a reason in ``unsupported``.

    Args:
        tensors: flat, prefixes removed, as `clipvet.models.reading.read_tensors` returns them.

    Raises:
        UnknownLayoutError: no family has such names; the message lists what was found and what is understood.
    """
    for test in (_prompted_towers, _prompt_learner, _others):
        if name := test(tensors):
            return FAMILY[name]
    if is_whole(tensors):
        return FAMILY["whole"]
    understood = ", ".join(family.title for family in FAMILY.values() if not family.unsupported)
    raise UnknownLayoutError(f"expected a checkpoint of {understood}; found {describe(tensors)}")


def _any(tensors: Mapping[str, Tensor], *parts: str) -> bool:
    return any(part in name for name in tensors for part in parts)


def _prompted_towers(tensors: Mapping[str, Tensor]) -> str:
    if not any(name.startswith(("prompt_learner.", "image_encoder.", "text_encoder.")) for name in tensors):
        return ""
    if _any(tensors, "compound_prompts_text", "compound_prompt_projections") or "prompt_learner.proj.weight" in tensors:
        return "maple"
    if _any(tensors, "prompt_learner.ZS_image_encoder."):
        return "promptsrc"
    if "prompt_learner.ctx" in tensors:
        return "ivlp"
    return "vpt" if "image_encoder.VPT" in tensors else ""


def _prompt_learner(tensors: Mapping[str, Tensor]) -> str:
    if "ctx" not in tensors or tensors["ctx"].ndim not in (2, 3):
        return ""
    if "bias_vectors" in tensors:
        return "kgcoop"
    if "meta_net.linear2.weight" not in tensors:
        return "coop"
    return _meta_network(tensors, int(tensors["ctx"].shape[-1]))


def _meta_network(tensors: Mapping[str, Tensor], ctx_width: int) -> str:
    first, second = tensors.get("meta_net.linear1.weight"), tensors["meta_net.linear2.weight"]
    if first is None or first.ndim != 2 or second.ndim != 2:
        return ""
    hidden, features = first.shape
    if len(second) == ctx_width:
        return "cocoop"
    if len(second) == 4 * ctx_width:
        return "tcp" if hidden == features // 4 else "cocoop-tcp"
    return ""


def _others(tensors: Mapping[str, Tensor]) -> str:
    tests: dict[str, Callable[[], bool]] = {
        "trigger": lambda: set(tensors) == {"trigger"},
        "clip-adapter": lambda: {"fc.0.weight", "fc.2.weight"} <= set(tensors) or _any(tensors, "adapter.fc."),
        "clip-lora": lambda: _any(tensors, ".w_lora_A"),
        "peft": lambda: _any(tensors, ".lora_A.", "base_model.model."),
        "pixel-prompt": lambda: {"pad_up", "pad_down"} <= set(tensors) or set(tensors) == {"patch"},
        "vpt-classifier": lambda: "shallow_prompt" in tensors,
        "tip-adapter": lambda: set(tensors) == {""} and tensors[""].ndim == 2,
    }
    return next((name for name, test in tests.items() if test()), "")
