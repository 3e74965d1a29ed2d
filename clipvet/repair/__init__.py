"""From a finding to a prompt that can be used again, and what that cost."""

from clipvet.repair.base import Repair, Stamps
from clipvet.repair.options import RepairOptions
from clipvet.repair.run import LARGEST_ASR, check_inputs, repair_model
from clipvet.repair.trigger_tuning import TriggerTuning

__all__ = ["LARGEST_ASR", "REPAIRS", "Repair", "RepairOptions", "Stamps", "TriggerTuning", "check_inputs", "repair_model"]

REPAIRS: dict[str, type[Repair]] = {TriggerTuning.name: TriggerTuning}
