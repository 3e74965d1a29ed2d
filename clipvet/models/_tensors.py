"""Take tensors out of a delivery with their shapes checked, and draw those of a new prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from clipvet.errors import UnknownLayoutError, UsageError

__all__ = ["half_rounded", "linear", "random_linear", "reject_unknown", "take"]


def take(tensors: Mapping[str, Tensor], key: str, *shape: int | None) -> Tensor:
    """Return a copy of one tensor in fp32.

    Args:
        tensors: by official name.
        key: which one.
        shape: its sizes, None where any will do.

    Raises:
        UnknownLayoutError: it is missing or holds no real numbers.
        UsageError: its shape is another.
    """
    if key not in tensors:
        raise UnknownLayoutError(
            f"expected a tensor '{key}', found {_listed(tensors)}: the delivery is incomplete or of another prompt family"
        )
    tensor = tensors[key]
    if not tensor.is_floating_point():
        raise UnknownLayoutError(f"expected floating-point values in '{key}', found {tensor.dtype}: the delivery is damaged")
    fits = tensor.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, tensor.shape, strict=True))
    if not fits or 0 in tensor.shape:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise UsageError(
            f"expected '{key}' of shape ({wanted}), found {tuple(tensor.shape)}: "
            "name the base that the prompt was tuned on, or ask for a complete delivery"
        )
    return tensor.detach().float().clone()


def reject_unknown(tensors: Mapping[str, Tensor], family: str, known: Iterable[str], ignored: tuple[str, ...] = ()) -> None:
    """Refuse tensors that the family does not have, since leaving them out could change what the model does.

    Args:
        tensors: by official name.
        family: as it is called in the message.
        known: names that are understood.
        ignored: beginnings of names that the family's logits do not depend on.

    Raises:
        UnknownLayoutError: there are others.
    """
    known = set(known)
    others = [key for key in tensors if key not in known and not (ignored and key.startswith(ignored))]
    if others:
        raise UnknownLayoutError(
            f"expected only the tensors of a {family} prompt, found also {_listed(others)}: it is of another prompt family"
        )


def linear(tensors: Mapping[str, Tensor], name: str, n_in: int | None, n_out: int | None) -> nn.Linear:
    """Build the linear layer that was saved as ``name.weight`` and ``name.bias``."""
    weight = take(tensors, f"{name}.weight", n_out, n_in)
    bias = take(tensors, f"{name}.bias", len(weight))
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def random_linear(name: str, n_in: int, n_out: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw a linear layer as PyTorch does by default: uniform within 1 / sqrt(n_in)."""
    limit = n_in**-0.5
    return {
        f"{name}.weight": torch.empty(n_out, n_in).uniform_(-limit, limit, generator=generator),
        f"{name}.bias": torch.empty(n_out).uniform_(-limit, limit, generator=generator),
    }


def half_rounded(x: Tensor) -> Tensor:
    """Round to fp16 precision, as the official towers do with learned tokens; gradients pass unchanged and in fp32."""
    return x + (x.half().float() - x).detach()


def _listed(keys: Iterable[str]) -> str:
    names = sorted(keys)
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return (", ".join(names[:6]) or "none") + more
