"""What a person may state about a repair."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from clipvet.errors import UsageError
from clipvet.models.bases import check_device
from clipvet.repair.trigger_tuning import TriggerTuning

__all__ = ["RepairOptions"]


@dataclass(frozen=True, kw_only=True)
class RepairOptions:
    """What a repair is to be done with; None means "find out".

    Attributes:
        labelled: folder with one folder of correctly labelled images per class.
        out: folder for the repaired files and the report.
        base: name or path of the CLIP that the delivery builds on, from a source the user trusts.
        family: prompt family, where the file leaves it open.
        class_names: in the order of the logits, where the file does not hold them.
        position: place of the class token in a CoOp prompt: end, middle or front.
        quick_gelu: whether the base uses QuickGELU.
        test: folder like ``labelled``, of images to measure on; None holds out some of the labelled ones.
        per_class: images per class that are read from each of the two folders at most.
        method: the repair, with its settings.
        seed: the one seed of everything random.
        device: torch device.
    """

    labelled: Path
    out: Path
    base: str | None = None
    family: str | None = None
    class_names: tuple[str, ...] | None = None
    position: str | None = None
    quick_gelu: bool | None = None
    test: Path | None = None
    per_class: int = 64
    method: TriggerTuning = field(default=TriggerTuning())
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.per_class < 1:
            raise UsageError(f"expected at least one image per class, got {self.per_class}")
        check_device(self.device, self.base)
