"""What is odd about a file whose tensors could be read."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clipvet.models._names import is_ordinary
from clipvet.types import Finding, Severity

__all__ = ["describe_anomalies"]

_CHECK = "safe-reading"


def describe_anomalies(tensors: Mapping[str, Tensor], stubbed: tuple[str, ...]) -> list[Finding]:
    """Findings about values that are not finite, about complex values, and about code that the file names."""
    return [
        *_code([name for name in stubbed if not is_ordinary(name)]),
        *_not_finite([name for name, values in tensors.items() if not _is_finite(values)]),
        *_complex([name for name, values in tensors.items() if values.is_complex()]),
        *_training_state([name for name in stubbed if is_ordinary(name)]),
    ]


def _some(names: list[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(name or "(unnamed)" for name in unique[:5]) + (f" and {len(unique) - 5} more" if len(unique) > 5 else "")


def _is_finite(values: Tensor) -> bool:
    if not (values.is_floating_point() or values.is_complex()):
        return True
    if values.dtype.itemsize == 1:  # torch has no isfinite for 8-bit floats
        values = values.float()
    return bool(values.isfinite().all())


def _code(names: list[str]) -> list[Finding]:
    if not names:
        return []
    message = (
        f"The file names code that ordinary checkpoints do not carry: {_some(names)}. Nothing of it was run here, but "
        "torch.load or pickle.load would run it (CWE-502; MITRE ATLAS AML.T0018.002 and AML.T0011.000)."
    )
    return [
        Finding(
            check=_CHECK,
            severity=Severity.CRITICAL,
            title="The file carries code",
            message=message,
            next_step="Do not open this file with torch.load or pickle; ask the provider for safetensors and for a reason.",
            atlas=("AML.T0018.002", "AML.T0011.000"),
            owasp=("ML06:2023",),
        )
    ]


def _not_finite(names: list[str]) -> list[Finding]:
    if not names:
        return []
    return [
        Finding(
            check=_CHECK,
            severity=Severity.HIGH,
            title="Weights are not finite",
            message=f"NaN or infinity in {_some(names)}: every result computed with them is meaningless.",
            next_step="Ask the provider for an undamaged file; do not use this one.",
        )
    ]


def _complex(names: list[str]) -> list[Finding]:
    if not names:
        return []
    return [
        Finding(
            check=_CHECK,
            severity=Severity.MEDIUM,
            title="Weights are complex numbers",
            message=f"No CLIP model has complex weights, but the file has them in {_some(names)}.",
            next_step="Ask the provider what these tensors are for.",
        )
    ]


def _training_state(names: list[str]) -> list[Finding]:
    if not names:
        return []
    return [
        Finding(
            check=_CHECK,
            severity=Severity.INFO,
            title="The file carries training state",
            message=f"Classes that training code leaves in checkpoints were met and not loaded: {_some(names)}.",
        )
    ]
