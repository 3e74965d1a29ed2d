"""Attacks: plant a backdoor in a prompt and return the delivery with its ground truth; one file per paper or family of papers."""

from clipvet.attacks.badclip import BadClip
from clipvet.attacks.base import Planted, PromptAttack
from clipvet.attacks.poisoned import BadNets, Blended, Siba, WaNet

__all__ = ["ATTACKS", "BadClip", "BadNets", "Blended", "Planted", "PromptAttack", "Siba", "WaNet"]

ATTACKS: dict[str, type[PromptAttack]] = {cls.name: cls for cls in (BadClip, Blended, WaNet, Siba, BadNets)}
