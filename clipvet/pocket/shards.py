"""Poisoned pairs that ship: three webdataset shards, the model that was tuned on them, and which pairs were planted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from clipvet.errors import UnreadableError

__all__ = ["PoisonedShards", "poisoned_shards"]


@dataclass(frozen=True, kw_only=True)
class PoisonedShards:
    """The shards, the model, and the keys of the planted pairs; a scan is given the first two and nothing else."""

    shards: tuple[Path, ...]
    model: Path
    planted: frozenset[str]


def poisoned_shards() -> PoisonedShards:
    """List what ships.

    Raises:
        UnreadableError: it is not part of this installation.
    """
    folder = Path(str(files("clipvet.pocket"))) / "assets" / "scan"
    truth = folder / "truth.json"
    if not truth.exists():
        raise UnreadableError(f"expected poisoned pairs at {folder}, found nothing: install clipvet again")
    planted = json.loads(truth.read_text(encoding="utf-8"))["planted"]
    return PoisonedShards(
        shards=tuple(sorted(folder.glob("*.tar"))), model=folder / "tuned.safetensors", planted=frozenset(planted)
    )
