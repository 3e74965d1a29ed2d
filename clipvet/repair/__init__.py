"""From a finding to a prompt that can be used again, and what that cost."""

from clipvet.repair.base import LARGEST_ASR, Repair, Stamps
from clipvet.repair.inputs import Inputs, read_inputs
from clipvet.repair.options import RepairOptions
from clipvet.repair.run import repair_inputs, repair_model
from clipvet.repair.trigger_tuning import TriggerTuning

__all__ = [
    "LARGEST_ASR",
    "REPAIRS",
    "Inputs",
    "Repair",
    "RepairOptions",
    "Stamps",
    "TriggerTuning",
    "read_inputs",
    "repair_inputs",
    "repair_model",
]

REPAIRS: dict[str, type[Repair]] = {TriggerTuning.name: TriggerTuning}
