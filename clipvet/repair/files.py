"""The repaired files: where they go, and that none of them stands in the delivery's place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipvet.errors import UnwritableError, UsageError
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.reading import TensorFile, sha256_of
from clipvet.models.saving import save_delivery, save_envelope
from clipvet.types import FileRecord

__all__ = ["REPAIRED", "Places", "places", "write"]

REPAIRED = "repaired.safetensors"
_OWN = (REPAIRED, "report.json", "report.html")  # names in the folder that no envelope may take
_TORCH = ("torch zip", "torch legacy", "pickle")  # readers of what `torch.save` writes


@dataclass(frozen=True, kw_only=True)
class Places:
    """Paths of the repaired files: clipvet's own, and the original envelope where the delivery was a torch file."""

    own: Path
    envelope: Path | None


def places(out: Path, delivery: Path, checkpoint: Path, reader: str) -> Places:
    """Say where the repaired files go; the official code finds an envelope below ``out`` as it found it below the delivery.

    Args:
        out: folder of the repair.
        delivery: as the user named it, a file or a folder.
        checkpoint: the file that was read.
        reader: how it was read.

    Raises:
        UsageError: a file of the delivery would be overwritten.
    """
    inner = checkpoint.relative_to(delivery) if delivery.is_dir() else Path(checkpoint.name)
    inner = Path(f"{inner}.pth") if inner.name in _OWN else inner
    found = Places(own=out / REPAIRED, envelope=out / inner if reader in _TORCH else None)
    taken = [path for path in (out / name for name in _OWN) if path.resolve() == checkpoint.resolve()]
    taken += [found.envelope] if found.envelope is not None and found.envelope.resolve() == checkpoint.resolve() else []
    if taken:
        raise UsageError(f"expected another folder for --out than {out}: {taken[0].name} in it is the delivery itself")
    return found


def write(found: Places, classifier: PromptedClassifier, original: TensorFile) -> tuple[FileRecord, ...]:
    """Write the repaired files and return their digests; the learned tensors have the delivery's dtypes in both.

    Raises:
        UnwritableError: the folder cannot be made or written to.
    """
    try:
        found.own.parent.mkdir(parents=True, exist_ok=True)
        save_delivery(found.own, classifier, like=original.tensors)
        if found.envelope is not None:
            save_envelope(found.envelope, classifier, original)
    except (OSError, RuntimeError) as error:
        raise UnwritableError(
            f"the repaired files cannot be written to {found.own.parent} ({error}): name another --out"
        ) from error
    return _records([path for path in (found.own, found.envelope) if path is not None])


def _records(paths: Sequence[Path]) -> tuple[FileRecord, ...]:
    return tuple(FileRecord(path=str(path), size=path.stat().st_size, sha256=sha256_of(path)) for path in paths)
