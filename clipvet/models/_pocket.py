"""The shipped bases: where they lie, how they are built, and whether they are still what was shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clipvet.errors import UnreadableError
from clipvet.models._architecture import Architecture, build_clip
from clipvet.models._open_clip import SimpleTokenizer
from clipvet.models.base import ClipModel, Tokenizer
from clipvet.models.reading import read_tensors

__all__ = ["POCKET", "load_pocket", "pocket_architecture", "pocket_hash", "pocket_pixels", "pocket_tokenizer"]

ASSETS = Path(__file__).resolve().parent.parent / "pocket" / "assets"
POCKET = ("pocket-0", "pocket-1")


def load_pocket(name: str, quick_gelu: bool | None) -> ClipModel:
    """Load a shipped base.

    Args:
        name: one of `POCKET`.
        quick_gelu: overrides the activation that it was trained with.

    Raises:
        UnreadableError: it is missing from the installation, or was changed.
    """
    path = ASSETS / f"{name}.safetensors"
    if not path.exists():
        raise UnreadableError(f"the shipped base {name} is missing: reinstall clipvet, or train it with pocket_build.train")
    file, expected = read_tensors(path), pocket_hash(name)
    if expected and expected != file.record.sha256:
        raise UnreadableError(f"expected the shipped base {name} to have the SHA-256 {expected}, found another: reinstall clipvet")
    quick = _config().get("quick_gelu", False) if quick_gelu is None else quick_gelu
    clip = build_clip(pocket_architecture(), file.tensors, quick_gelu=quick)
    return ClipModel(clip, pocket_tokenizer(), name=name, **pocket_pixels(), sha256=file.record.sha256)


def pocket_hash(name: str) -> str:
    """The hash on a shipped base's card, "" where there is none."""
    try:
        card = json.loads((ASSETS / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    return str(card.get("sha256", ""))


def _config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((ASSETS / "pocket.json").read_text(encoding="utf-8"))
    return config


def pocket_architecture() -> Architecture:
    """The architecture that the shipped bases share."""
    found = Architecture.of_config(_config())
    assert found is not None
    return found


def pocket_pixels() -> dict[str, tuple[float, ...]]:
    """Channel means and deviations of the shipped bases, as `ClipModel` takes them."""
    config = _config()
    return {key: tuple(config.get(key, (0.5,) * 3)) for key in ("mean", "std")}


def pocket_tokenizer() -> Tokenizer:
    """The tokenizer of the shipped bases."""
    tokenizer: Tokenizer = SimpleTokenizer(str(ASSETS / "bpe.txt.gz"), context_length=_config()["text_cfg"]["context_length"])
    return tokenizer
