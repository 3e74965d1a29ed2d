"""Make torchvision's Python part importable where its compiled operators are missing.

Some builds of torch have no matching torchvision binary. torchvision registers fake kernels for two of its operators when it
is imported, which fails if nobody declared them. Declaring their schemas is enough: clipvet uses transforms only, never the
operators. Where the compiled part loads, nothing here acts.
"""

import importlib.util
from pathlib import Path

import torch

__all__ = ["make_importable"]

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[torch.library.Library] = []  # a declaration lives as long as its library object


def make_importable() -> None:
    """Declare the two operator schemas unless torchvision's compiled part provides them; calling twice is harmless."""
    if _libraries or _compiled_part_loads():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        library.define(f"{name}{_SCHEMA}")
    _libraries.append(library)


def _compiled_part_loads() -> bool:
    # find_spec("torchvision._C") would import the package, which is what fails; so look for the file beside it.
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for library in Path(spec.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(str(library))
        except (OSError, RuntimeError):
            continue
        return hasattr(torch.ops.torchvision, "nms")
    return False
