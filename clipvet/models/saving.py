"""Write a delivery in clipvet's own layout: one safetensors file that says what it is and needs no folder around it.

The tensors have their family's official names. The header's metadata has what official files leave out, as text: ``family``,
``base`` (a name, never weights), ``class_names`` (a list in JSON), ``position`` and ``wording``. `open_delivery` reads it.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from clipvet.errors import UsageError
from clipvet.models._class_tokens import neutral_wording
from clipvet.models.families import FAMILIES
from clipvet.models.prompts import Prompt, PromptedClassifier

__all__ = ["save_delivery", "wording_of"]


def save_delivery(path: Path, classifier: PromptedClassifier, *, compact: bool = True) -> None:
    """Write the learned part of a prompt-tuned classifier.

    Args:
        path: the file, with the suffix ``.safetensors``.
        classifier: its model is named in the file, its towers are not written.
        compact: leave out the token embeddings behind the context, which follow from the class names; a few kilobytes remain.

    Raises:
        UsageError: the prompt has no learned part.
    """
    prompt = classifier.prompt
    if FAMILIES.get(prompt.family) is not type(prompt) or not prompt.state():
        raise UsageError(f"expected a prompt of {', '.join(FAMILIES)} with learned tensors, got {type(prompt).__name__}")
    wording = wording_of(prompt)
    # TCP's wording also decides its class features, and the file's embeddings are what tells it.
    drop = compact and (prompt.family != "tcp" or wording == neutral_wording(len(prompt.get_parameter("ctx"))))
    state = {name: values.detach().cpu().contiguous().clone() for name, values in prompt.state().items()}
    metadata = {
        "format": "clipvet",
        "family": prompt.family,
        "base": classifier.model.name,
        "class_names": json.dumps(classifier.class_names),
        "position": getattr(prompt, "position", "end"),
        "wording": "" if prompt.family == "tcp" else wording,
    }
    save_file({name: values for name, values in state.items() if not (drop and name.endswith("token_suffix"))}, path, metadata)


def wording_of(prompt: Prompt) -> str:
    """Return the sentence around the class names, as far as it is known: one brace pair stands for the name."""
    texts = getattr(prompt, "texts", None)
    return str(getattr(prompt.tokens, "wording", "")) if texts is None else str(texts.templates[0])
