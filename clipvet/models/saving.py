"""Write a delivery: in clipvet's own layout, or in the form of the file that it was read from.

clipvet's layout is one safetensors file that says what it is and needs no folder around it. The tensors have their family's
official names. The header's metadata has what official files leave out, as text: ``family``, ``base`` (a name, never weights),
``class_names`` (a list in JSON), ``position`` and ``wording``. `open_delivery` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.models._class_tokens import neutral_wording
from clipvet.models.families import FAMILIES, full_state
from clipvet.models.prompts import Prompt, PromptedClassifier
from clipvet.models.reading import TensorFile

__all__ = ["save_delivery", "save_envelope", "wording_of"]

_FROM_NAMES = ("token_prefix", "token_suffix")  # follow from the base and the class names, and are not learned
_DASSL = ("epoch", "optimizer", "scheduler", "val_result")  # what its envelope holds beside the tensors


def save_delivery(
    path: Path, classifier: PromptedClassifier, *, compact: bool = True, like: Mapping[str, Tensor] | None = None
) -> None:
    """Write the learned part of a prompt-tuned classifier.

    Args:
        path: the file, with the suffix ``.safetensors``.
        classifier: its model is named in the file, its towers are not written.
        compact: leave out the token embeddings behind the context, which follow from the class names; a few kilobytes remain.
        like: tensors of another file under the official names, whose dtypes are taken; float32 without.

    Raises:
        UsageError: the prompt has no learned part.
    """
    prompt = classifier.prompt
    if FAMILIES.get(prompt.family) is not type(prompt) or not prompt.state():
        raise UsageError(f"expected a prompt of {', '.join(FAMILIES)} with learned tensors, got {type(prompt).__name__}")
    wording = wording_of(prompt)
    # TCP's wording also decides its class features, and the file's embeddings are what tells it.
    drop = compact and (prompt.family != "tcp" or wording == neutral_wording(len(prompt.get_parameter("ctx"))))
    state = {name: _as(values, (like or {}).get(name)) for name, values in prompt.state().items()}
    metadata = {
        "format": "clipvet",
        "family": prompt.family,
        "base": classifier.model.name,
        "class_names": json.dumps(classifier.class_names),
        "position": getattr(prompt, "position", "end"),
        "wording": "" if prompt.family == "tcp" else wording,
    }
    save_file({name: values for name, values in state.items() if not (drop and name.endswith("token_suffix"))}, path, metadata)


def save_envelope(path: Path, classifier: PromptedClassifier, original: TensorFile) -> None:
    """Write a torch file of the same form as the one that a prompt was read from, so that the official code loads it.

    Keys of the envelope, names, dtypes, shapes and order of the tensors are the original's. What the prompt has learned and the
    towers, where the file has them, are the classifier's; token embeddings and all that no logit depends on are the original's
    own bytes. Dassl's envelope also holds states of the optimizer and its schedule: they belong to another prompt and are None.

    Args:
        path: the file; its folder is created.
        classifier: its prompt has the family of the original.
        original: as :func:`clipvet.models.reading.read_tensors` gives it.

    Raises:
        UsageError: a tensor of the prompt has another shape than in the original.
    """
    state = full_state(classifier.prompt, classifier.model)
    tensors = {}
    for name, values in original.tensors.items():
        new = None if name.endswith(_FROM_NAMES) else state.get(name)
        if new is not None and new.shape != values.shape:
            raise UsageError(f"expected {name} of shape {tuple(values.shape)}, as in the delivery, got {tuple(new.shape)}")
        tensors[original.prefix + name] = values if new is None else _as(new, values)
    document: dict[str, Any] = tensors
    if original.envelope:
        for key in reversed(original.envelope.split(".")):
            document = {key: document}
        beside = dict.fromkeys(_DASSL) if original.envelope == "state_dict" and "epoch" in original.extras else {}
        document |= {key: value for key, value in (beside | original.extras).items() if key not in document}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(document, path)


def _as(values: Tensor, like: Tensor | None) -> Tensor:
    """A contiguous copy on the CPU, in the dtype of another tensor."""
    dtype = values.dtype if like is None else like.dtype
    return values.detach().to("cpu", dtype, copy=True).contiguous()


def wording_of(prompt: Prompt) -> str:
    """Return the sentence around the class names, as far as it is known: one brace pair stands for the name."""
    texts = getattr(prompt, "texts", None)
    return str(getattr(prompt.tokens, "wording", "")) if texts is None else str(texts.templates[0])
