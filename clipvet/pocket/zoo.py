"""The zoo: prompt-tuned deliveries on the pocket backbones, clean and backdoored, with their ground truth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from clipvet.errors import UnreadableError

__all__ = ["ZooEntry", "entries"]


@dataclass(frozen=True, kw_only=True)
class ZooEntry:
    """One delivery and what is true of it; a detector is given ``path`` and ``base`` and nothing else.

    ``ca``, ``asr`` and ``ta`` were measured on the task's test images when the zoo was built; ``asr``, ``attack`` and ``target``
    are None for a clean delivery.
    """

    name: str
    path: Path
    backdoored: bool
    family: str
    task: str
    base: str
    seed: int
    ca: float
    attack: str | None = None
    target: str | None = None
    target_index: int | None = None
    asr: float | None = None
    ta: float | None = None

    @property
    def trigger_path(self) -> Path:
        """The planted trigger's tensors, for tests and benchmarks only."""
        return self.path.parent / "truth" / f"{self.name}.safetensors"


@cache
def entries() -> tuple[ZooEntry, ...]:
    """List the deliveries that ship, in a fixed order.

    Raises:
        UnreadableError: the zoo is not part of this installation.
    """
    folder = Path(str(files("clipvet.pocket"))) / "assets" / "zoo"
    index = folder / "zoo.json"
    if not index.exists():
        raise UnreadableError(f"expected the pocket zoo at {index}, found nothing: install clipvet again")
    rows: list[dict[str, Any]] = json.loads(index.read_text(encoding="utf-8"))["deliveries"]
    return tuple(_entry(folder, row) for row in rows)


def _entry(folder: Path, row: dict[str, Any]) -> ZooEntry:
    names = ZooEntry.__dataclass_fields__.keys() & row.keys()
    return ZooEntry(path=folder / f"{row['name']}.safetensors", **{name: row[name] for name in names})
