"""A delivery while it is being opened: what the user says of it, what it says of itself, and what follows from the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from clipvet.errors import ClipvetError, UnknownLayoutError, UsageError
from clipvet.models._architecture import architecture_of, known_architecture
from clipvet.models._class_tokens import POSITIONS
from clipvet.models._hints import Hints
from clipvet.models._pocket import POCKET
from clipvet.models.base import ClipModel
from clipvet.models.bases import load_base
from clipvet.models.claims import check_prefix
from clipvet.models.reading import TensorFile
from clipvet.models.recognise import FAMILY, Family, recognise
from clipvet.types import Finding, Severity

__all__ = ["Opening", "Stated", "settle_base", "settle_family", "settle_position"]

_TRAINERS = {
    "coop": "coop",
    "cocoop": "cocoop",
    "badclip": "cocoop",
    "kgcoop": "kgcoop",
    "prograd": "prograd",
    "tcp": "tcp",
    "maple": "maple",
    "ivlp": "ivlp",
    "independentvl": "ivlp",
    "vpt": "vpt",
    "promptsrc": "promptsrc",
}
# Families that save the same names, so that only a hint or the user can tell them apart.
_ALIKE = ({"coop", "prograd"}, {"ivlp", "promptsrc"})


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the user says about a delivery."""

    base: ClipModel | None
    family: str | None
    class_names: tuple[str, ...] | None
    position: str | None
    quick_gelu: bool | None


@dataclass(kw_only=True)
class Opening:
    """A delivery while it is being opened; ``findings`` and ``notes`` grow."""

    path: Path
    file: TensorFile
    hints: Hints
    metadata: Mapping[str, str]
    stated: Stated
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def warn(self, title: str, message: str, severity: Severity = Severity.LOW) -> None:
        """Add a finding about what was stated or said."""
        self.findings.append(Finding(check="delivery", severity=severity, title=title, message=message))


def settle_family(opening: Opening) -> Family:
    """The family stated, else recognised; hints decide only between families that save the same names."""
    stated = opening.stated.family
    if stated is not None and stated not in FAMILY:
        raise UsageError(f"expected a family of {', '.join(FAMILY)}, got '{stated}'")
    try:
        found = recognise(opening.file.tensors)
    except UnknownLayoutError as error:
        raise UnknownLayoutError(f"{opening.path}: {error}") from error
    hinted = opening.metadata.get("family") or _TRAINERS.get(opening.hints.trainer.lower(), "")
    if any({found.name, hinted} == pair for pair in _ALIKE):
        found = FAMILY[hinted]
    elif hinted and hinted != found.name:
        said = FAMILY[hinted].title if hinted in FAMILY else "something unknown"
        opening.warn(
            "The delivery contradicts itself", f"What stands beside the tensors says {said}; they are those of {found.title}."
        )
    if stated is None or stated == found.name:
        return found
    if not any({found.name, stated} == pair for pair in _ALIKE):
        opening.warn(
            "Another family was stated", f"{FAMILY[stated].title} was stated and used; the tensors look like {found.title}."
        )
    return FAMILY[stated]


def settle_base(opening: Opening, family: Family) -> ClipModel:
    """The base stated, else a shipped one that the delivery names or was tuned on."""
    claimed = opening.metadata.get("base") or opening.hints.backbone
    if opening.stated.base is not None:
        _compare_claim(opening, claimed, opening.stated.base)
        return opening.stated.base
    if claimed in POCKET:
        opening.notes.append(f"Base: {claimed}, which the delivery names and clipvet ships.")
        return load_base(claimed)
    if not claimed and (found := _shipped_base_of(opening.file.tensors)) is not None:
        opening.notes.append(f"Base: {found.name}, recognised by its start-of-text embedding.")
        return found
    says = (
        f"it says {claimed}, so name your own copy, such as --base {claimed.replace('/', '-')}=FILE"
        if claimed
        else "name it with --base"
    )
    raise UsageError(
        f"{opening.path}: a {family.title} prompt needs the base that it was tuned on, from a source that you trust: {says}"
    )


def _compare_claim(opening: Opening, claimed: str, base: ClipModel) -> None:
    if not claimed or claimed == base.name:
        return
    try:
        architecture = known_architecture(claimed)
    except UnknownLayoutError:
        architecture = None
    if claimed in POCKET or (architecture is not None and architecture.shapes != architecture_of(base).shapes):
        opening.warn("Another base was stated", f"The delivery says that it builds on {claimed}; {base.name} was stated and used.")


def _shipped_base_of(tensors: Mapping[str, Tensor]) -> ClipModel | None:
    prefix = tensors.get("token_prefix", tensors.get("prompt_learner.token_prefix"))
    if prefix is None:
        return None
    for name in POCKET:
        try:
            base = load_base(name)
        except ClipvetError:
            continue
        if not check_prefix(prefix, base):
            return base
    return None


def settle_position(opening: Opening, family: Family) -> str:
    """Where the class name stands: as stated, else as the delivery says, else at the end."""
    stated = opening.stated.position
    said = opening.metadata.get("position") or opening.hints.position
    said = said if said in POSITIONS else ""
    if stated is not None:
        if said and said != stated:
            opening.warn(
                "Another position was stated",
                f"The delivery says that class names stand at '{said}'; '{stated}' was stated and used.",
            )
        return stated
    if family.name not in ("coop", "prograd"):
        return "end"
    opening.notes.append(
        f"Class names stand at '{said}', as the delivery says." if said else "Class names were assumed to stand at 'end'."
    )
    return said or "end"
