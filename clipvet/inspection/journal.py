"""What an inspection has done so far, on disk: each finished class group once, so that a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipvet.errors import UnreadableError, UsageError

__all__ = ["Journal", "MemoryJournal"]

GROUP = re.compile(r"[0-9a-f]{24}\.safetensors")


class MemoryJournal:
    """Keeps finished groups in memory only; the same interface as :class:`Journal`."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, Tensor]] = {}

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return a finished group's tensors, or None."""
        return self._groups.get(key)

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Record a finished group."""
        self._groups[key] = dict(tensors)


class Journal(MemoryJournal):
    """Keeps every finished group as one safetensors file in a folder.

    Args:
        folder: created if missing; holds ``run.json`` and one file per group.
        identity: what the run is about (file hashes, settings, seed); a folder of another run is refused.
        resume: go on from what lies there; otherwise earlier groups are removed.

    Raises:
        UsageError: when the folder belongs to another run.
    """

    def __init__(self, folder: Path, *, identity: Mapping[str, object], resume: bool) -> None:
        super().__init__()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        wanted = json.dumps(identity, sort_keys=True, default=str)
        card = folder / "run.json"
        found = card.read_text(encoding="utf-8") if card.exists() else None
        if resume and found is not None and found != wanted:
            raise UsageError(
                f"expected the state of this very run in {folder}, found that of another delivery or other settings: "
                "repeat the earlier command, or leave --resume out to begin anew"
            )
        if not resume:
            for old in folder.iterdir():
                if GROUP.fullmatch(old.name):  # a delivery may lie in the same folder
                    old.unlink()
        _replace(card, wanted.encode())

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return a finished group's tensors, or None; raises UnreadableError for a damaged file."""
        path = self._path(key)
        if not path.exists():
            return None
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UnreadableError(f"{path}: the saved state is damaged ({error}): remove the file and resume again") from error

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Write a finished group, whole or not at all."""
        path = self._path(key)
        part = path.with_suffix(".part")
        save_file({k: v.contiguous() for k, v in tensors.items()}, part)
        part.replace(path)

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)
