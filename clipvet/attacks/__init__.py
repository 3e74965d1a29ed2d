"""Attacks with their ground truth, on a prompt or on training pairs; one file per paper or family of papers."""

from clipvet.attacks.badclip import AdaptiveBadClip, BadClip
from clipvet.attacks.base import Planted, PromptAttack
from clipvet.attacks.pair_badnets import BadNetsPairs
from clipvet.attacks.pair_base import PairAttack, PairTruth, poison_pairs, rate_for
from clipvet.attacks.pair_blended import BlendedPairs
from clipvet.attacks.pair_clean_label import CleanLabelPairs
from clipvet.attacks.pair_multi import MultiTargetPairs, MultiTriggerPairs
from clipvet.attacks.pair_nashville import NashvillePairs
from clipvet.attacks.pair_sig import SigPairs
from clipvet.attacks.pair_single_image import SingleImagePairs
from clipvet.attacks.pair_wanet import WaNetPairs
from clipvet.attacks.poisoned import BadNets, Blended, Siba, WaNet

__all__ = [
    "ATTACKS",
    "PAIR_ATTACKS",
    "AdaptiveBadClip",
    "BadClip",
    "BadNets",
    "BadNetsPairs",
    "Blended",
    "BlendedPairs",
    "CleanLabelPairs",
    "MultiTargetPairs",
    "MultiTriggerPairs",
    "NashvillePairs",
    "PairAttack",
    "PairTruth",
    "Planted",
    "PromptAttack",
    "Siba",
    "SigPairs",
    "SingleImagePairs",
    "WaNet",
    "WaNetPairs",
    "poison_pairs",
    "rate_for",
]

ATTACKS: dict[str, type[PromptAttack]] = {cls.name: cls for cls in (BadClip, AdaptiveBadClip, Blended, WaNet, Siba, BadNets)}

_ON_PAIRS: tuple[type[PairAttack], ...] = (
    BadNetsPairs,
    CleanLabelPairs,
    BlendedPairs,
    SigPairs,
    WaNetPairs,
    NashvillePairs,
    MultiTriggerPairs,
    MultiTargetPairs,
    SingleImagePairs,
)
PAIR_ATTACKS: dict[str, type[PairAttack]] = {cls.name: cls for cls in _ON_PAIRS}
