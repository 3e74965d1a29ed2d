"""All prompt families by name: read a prompt from tensors, begin a new one, write the whole file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from clipvet.errors import UsageError
from clipvet.models._towers import tower_state
from clipvet.models.base import ClipModel
from clipvet.models.cocoop import CoCoOp
from clipvet.models.coop import CoOp, KgCoOp, ProGrad
from clipvet.models.maple import MaPLe
from clipvet.models.prompts import FreshStart, Prompt, ReadAs
from clipvet.models.tcp import TCP
from clipvet.models.vpt import IVLP, VPT, PromptSRC
from clipvet.models.zeroshot import HandWritten

__all__ = ["FAMILIES", "full_state", "new_prompt", "prompt_from_tensors"]

FAMILIES: dict[str, type[Prompt]] = {
    "coop": CoOp,
    "kgcoop": KgCoOp,
    "prograd": ProGrad,
    "cocoop": CoCoOp,
    "tcp": TCP,
    "maple": MaPLe,
    "vpt": VPT,
    "ivlp": IVLP,
    "promptsrc": PromptSRC,
    "zero-shot": HandWritten,
}


def prompt_from_tensors(
    family: str,
    tensors: Mapping[str, Tensor],
    model: ClipModel,
    class_names: Sequence[str] | None,
    *,
    position: str = "end",
    wording: str = "",
    feature_wording: str = "",
) -> Prompt:
    """Read a prompt from the tensors of a delivery.

    Values are converted to fp32. Where class names are given, their embeddings come from the base, as in the official
    loaders; ``token_suffix`` then only tells the wording around them. Whole towers in the delivery are not used here: compare
    them with the base.

    Args:
        family: a key of :data:`FAMILIES`.
        tensors: under the official names, as the registered module saves them, without ``module.``.
        model: the base that the prompt was tuned on.
        class_names: one per class in the order of the logits, or None to use ``token_suffix`` as it is.
        position: where the class name stands: ``end``, ``middle`` or ``front`` (CoOp, ProGrad).
        wording: see :class:`ReadAs`.
        feature_wording: see :class:`ReadAs`.

    Raises:
        UnknownLayoutError: a tensor is missing or is none of this family's.
        UsageError: the family is unknown, a shape does not fit the base, or class names are needed.
    """
    read_as = ReadAs(position=position, wording=wording, feature_wording=feature_wording)
    return _family(family).from_tensors(tensors, model, class_names, read_as)


def new_prompt(
    family: str,
    model: ClipModel,
    class_names: Sequence[str],
    *,
    n_ctx: int | None = None,
    depth: int | None = None,
    init: str = "a photo of a",
    seed: int,
    class_specific: bool = False,
) -> Prompt:
    """Begin a prompt for tuning, initialised as the family's official code does.

    Args:
        family: a key of :data:`FAMILIES`.
        model: the base, of any size.
        class_names: one per class.
        n_ctx: number of learned tokens; None as :class:`FreshStart` says.
        depth: number of blocks that get tokens; None for the official number, at most the tower's blocks.
        init: words that the context begins as; empty for random vectors. VPT and zero-shot keep them as their sentence.
        seed: of everything that is random.
        class_specific: whether every class has a context of its own (CoOp, KgCoOp, ProGrad).

    Raises:
        UsageError: the family is unknown, or the base has no room for what is asked.
    """
    return _family(family).fresh(
        model, class_names, FreshStart(n_ctx=n_ctx, depth=depth, init=init, seed=seed, class_specific=class_specific)
    )


def full_state(prompt: Prompt, model: ClipModel) -> dict[str, Tensor]:
    """Return all tensors that the official code saves: the prompt's, and both towers for families that carry them."""
    state = prompt.state()
    if not prompt.changes_image_tower:
        return state
    whole = state | tower_state(model)
    if prompt.family == PromptSRC.family:
        visual = model.clip.visual.state_dict().items()
        whole |= {f"prompt_learner.ZS_image_encoder.{key}": tensor for key, tensor in visual}
    return whole


def _family(name: str) -> type[Prompt]:
    if name not in FAMILIES:
        raise UsageError(f"expected a prompt family of {', '.join(FAMILIES)}, got '{name}'")
    return FAMILIES[name]
