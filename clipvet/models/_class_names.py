"""The class names of a delivery: stated by the user, decoded from its token embeddings, or written in its metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch

from clipvet.errors import UsageError
from clipvet.models._opening import Opening
from clipvet.models.base import ClipModel
from clipvet.models.claims import decode_class_names
from clipvet.models.recognise import FAMILY, Family
from clipvet.types import Finding, Severity

__all__ = ["names_in_metadata", "settle_class_names"]

_PHOTO = "a photo of a {}."
_PETS = ("pet", "flower", "aircraft", "food")
_TAILS = (*(f"{{}}, a type of {kind}." for kind in _PETS), "{}, a type of car", "{} texture.")
_ACTION = "a photo of a person doing {}."


def settle_class_names(opening: Opening, family: Family, base: ClipModel) -> tuple[tuple[str, ...], str]:
    """The names stated, else those decoded from the tensors, else those in the file's metadata."""
    stated, written = opening.stated.class_names, names_in_metadata(opening)
    decoded = _decoded_names(opening, family, base)
    if stated is not None:
        _compare_names(opening, stated, decoded or written, base)
        return stated, "stated by the user"
    if decoded and written and _same_tokens(decoded, written, base):
        return written, "the file's metadata, confirmed by its token embeddings"
    if decoded:
        _compare_names(opening, decoded, written, base)
        return decoded, "decoded from the file's token embeddings"
    if written:
        return written, "the file's metadata"
    raise UsageError(
        f"{opening.path}: a {family.title} file without token_suffix does not say its classes: name them with --classes"
    )


def _decoded_names(opening: Opening, family: Family, base: ClipModel) -> tuple[str, ...]:
    tensors = opening.file.tensors
    suffix = tensors.get("token_suffix", tensors.get("prompt_learner.token_suffix"))
    if suffix is None:
        return ()
    n_ctx = base.context_length - 1 - (suffix.shape[1] if suffix.ndim == 3 else 0)
    try:
        decoded = decode_class_names(suffix, base, wordings=_wordings(family.name, n_ctx))
    except UsageError:
        if opening.stated.class_names is None:
            raise
        return ()
    if decoded.exact < decoded.total:
        opening.findings.append(
            Finding(
                check="token-suffix",
                severity=Severity.HIGH,
                title="Token embeddings are not the base's",
                message=f"{decoded.total - decoded.exact} of {decoded.total} token embeddings of the class names differ from "
                f"those of {base.name}, by up to {decoded.distance:.0%} of the nearest one's length; the names may be wrong.",
                next_step="Ask the provider which base was used, and compare the class names with what you ordered.",
            )
        )
    return decoded.names


def _wordings(family: str, n_ctx: int) -> tuple[str, ...]:
    """The texts around a class name that the family's official code uses, apart from ``{}.``."""
    if family == "tcp":
        return (_ACTION, *("X " * n_ctx + tail for tail in _TAILS))
    return (_PHOTO,) if FAMILY[family].towers else ()


def names_in_metadata(opening: Opening) -> tuple[str, ...]:
    """The names that clipvet writes beside a prompt that carries none; empty where there are none."""
    try:
        names = json.loads(opening.metadata.get("class_names", "[]"))
    except (ValueError, RecursionError):
        opening.notes.append("The file's metadata has class_names that are no list in JSON; they were ignored.")
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _compare_names(opening: Opening, used: tuple[str, ...], other: tuple[str, ...], base: ClipModel) -> None:
    if not other or _same_tokens(used, other, base):
        return
    if len(used) != len(other):
        what = f"{len(used)} class names are used, and the file was saved with {len(other)}"
    else:
        pairs = [pair for pair in zip(used, other, strict=True) if not _same_tokens(pair[:1], pair[1:], base)]
        what = f"{len(pairs)} of {len(used)} class names differ: '{pairs[0][0]}' is used, the file calls it '{pairs[0][1]}'"
    opening.warn("Class names differ", f"{what}.", Severity.MEDIUM)


def _same_tokens(names: Sequence[str], others: Sequence[str], base: ClipModel) -> bool:
    plain = [[name.replace("_", " ") for name in some] for some in (names, others)]
    return len(names) == len(others) and torch.equal(base.tokenize(plain[0]), base.tokenize(plain[1]))
