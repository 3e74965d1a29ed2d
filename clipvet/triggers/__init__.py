"""Triggers, one file each, shared by attacks, inspection and tests."""

from clipvet.triggers.additive import Additive
from clipvet.triggers.base import Trigger
from clipvet.triggers.blend import Blend
from clipvet.triggers.patch import Patch
from clipvet.triggers.photo_filter import PhotoFilter
from clipvet.triggers.scaled_patch import ScaledPatch
from clipvet.triggers.sinusoid import Sinusoid
from clipvet.triggers.warp import Warp

__all__ = ["TRIGGERS", "Additive", "Blend", "Patch", "PhotoFilter", "ScaledPatch", "Sinusoid", "Trigger", "Warp"]

TRIGGERS: dict[str, type[Trigger]] = {
    "additive": Additive,
    "patch": Patch,
    "blend": Blend,
    "warp": Warp,
    "scaled-patch": ScaledPatch,
    "sinusoid": Sinusoid,
    "photo-filter": PhotoFilter,
}
