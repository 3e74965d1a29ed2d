"""Check what a checkpoint claims against the base. No class names and no images are needed.

Class names are decoded from the token embeddings that prompt learners save, the start-of-text embedding tells on which base a
prompt was tuned, and towers that were meant to stay frozen are compared with the base tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.models._names import clean
from clipvet.models.base import ClipModel
from clipvet.types import Finding, Severity

__all__ = ["DecodedNames", "check_prefix", "compare_frozen", "compare_whole", "decode_class_names", "tower_name", "tower_tensors"]

_ATLAS = ("AML.T0018",)
_OWASP = ("ML10:2023",)
_MAX_INEXACT = 500  # each costs a pass over the table


@dataclass(frozen=True, kw_only=True)
class DecodedNames:
    """Class names read back from a checkpoint.

    ``exact`` counts the tokens whose embeddings equal one of the base's, ``total`` all of them, and ``distance`` is the largest
    relative distance to the nearest one.
    """

    names: tuple[str, ...]
    exact: int
    total: int
    distance: float


def decode_class_names(token_suffix: Tensor, model: ClipModel, *, wordings: Sequence[str] = ()) -> DecodedNames:
    """Read class names from the token embeddings that a prompt learner saves behind its context.

    Each row is looked up in the base's table of token embeddings, cast to the file's precision: an honest file's rows are in it
    bit for bit; for others the nearest row is taken. Names come out in lower case, with spaces around punctuation, and give the
    same tokens as the original names.

    Args:
        token_suffix: ``(n_classes, length, text_width)``: tokens of ``NAME .``, end of text, padding.
        model: the base.
        wordings: texts with ``{}`` for the name that may stand around it, apart from ``{}.``; the context replaces their first
            tokens. One is taken off where it fits every class.

    Raises:
        UsageError: the widths differ, or the base's tokenizer cannot decode.

    Fails when:
        A template that is not among ``wordings`` was used: its words become part of the name.
    """
    decode = getattr(model.tokenizer, "decode", None)
    if token_suffix.ndim != 3 or token_suffix.shape[2] != model.text_width:
        raise UsageError(
            f"expected token embeddings of width {model.text_width} for the base {model.name}, got {tuple(token_suffix.shape)}: "
            "name the base that this was tuned on"
        )
    if decode is None:
        raise UsageError(f"the tokenizer of the base {model.name} cannot decode: state the class names")
    table = _Table(model, token_suffix.dtype)
    end = int(model.tokenize([""])[0].max())
    ids: list[list[int]] = []
    for rows in token_suffix:
        ids.append([])
        for row in rows:
            token = table.look_up(row)
            if token == end:
                break
            ids[-1].append(token)
    n_ctx = model.context_length - 1 - token_suffix.shape[1]
    names = tuple(clean(_tidy(decode(row))) for row in _without_wording(ids, model, wordings, n_ctx))
    return DecodedNames(names=names, exact=table.exact, total=table.total, distance=table.worst)


def _without_wording(ids: list[list[int]], model: ClipModel, wordings: Sequence[str], n_ctx: int) -> list[list[int]]:
    for wording in wordings:
        before, _, after = wording.partition("{}")
        lead, tail = _tokens(model, before)[n_ctx:], _tokens(model, after)
        if all(len(row) > len(lead + tail) and row[: len(lead)] == lead and row[len(row) - len(tail) :] == tail for row in ids):
            return [row[len(lead) : len(row) - len(tail)] for row in ids]
    return ids


def _tokens(model: ClipModel, text: str) -> list[int]:
    row: list[int] = model.tokenize([text])[0].tolist()
    return row[1 : row.index(max(row))]


class _Table:
    """The base's token embeddings: exact look-up by content, the nearest one where that fails, and a count of both."""

    def __init__(self, model: ClipModel, dtype: torch.dtype) -> None:
        self.name = model.name
        table = model.clip.token_embedding.weight.detach().cpu().to(dtype)
        self.known = {_key(row): index for index, row in enumerate(table)}
        self.table = table.float()
        self.squares = self.table.square().sum(1)
        self.nearest: dict[bytes, int] = {}
        self.exact, self.total, self.worst = 0, 0, 0.0

    def look_up(self, row: Tensor) -> int:
        self.total += 1
        key = _key(row)
        if (index := self.known.get(key)) is not None:
            self.exact += 1
            return index
        if key not in self.nearest:
            self.nearest[key] = self._find(row.float())
        return self.nearest[key]

    def _find(self, row: Tensor) -> int:
        if len(self.nearest) >= _MAX_INEXACT:
            raise UsageError(
                f"more than {_MAX_INEXACT} token embeddings in the file are not among those of {self.name}: name the base that "
                "this was tuned on, or state the class names"
            )
        nearest = int((self.squares - self.table @ (2 * row)).nan_to_num(float("inf")).argmin())
        distance = float((self.table[nearest] - row).norm() / self.squares[nearest].sqrt().clamp_min(1e-12))
        self.worst = max(self.worst, distance if distance == distance else float("inf"))
        return nearest


def _key(row: Tensor) -> bytes:
    return row.contiguous().view(torch.uint8).numpy().tobytes()


def _tidy(text: str) -> str:
    return " ".join(text.split()).removesuffix(".").strip()


def check_prefix(token_prefix: Tensor, model: ClipModel) -> list[Finding]:
    """Compare the start-of-text embedding that a prompt learner saves with the base's: it tells which base it was tuned on.

    Args:
        token_prefix: ``(n_classes, 1, text_width)``.
        model: the claimed base.

    Returns:
        Nothing, or one finding of high severity.
    """
    start = model.clip.token_embedding.weight[model.tokenize([""])[0, 0]].detach().cpu()
    width = token_prefix.shape[-1] if token_prefix.ndim else 0
    if width == len(start) and _same(token_prefix, start.expand_as(token_prefix)):
        return []
    found = f"a width of {width}" if width != len(start) else f"a difference of up to {_largest(token_prefix, start):.3g}"
    return [
        Finding(
            check="token-prefix",
            severity=Severity.HIGH,
            title="Not tuned on the claimed base",
            message=f"The start-of-text embedding in the file is not that of {model.name}: expected width {len(start)} and equal "
            f"values, found {found}. What follows was measured on a base that this prompt was not made for.",
            next_step="Ask the provider which base was used and name that one.",
            atlas=_ATLAS,
            owasp=_OWASP,
        )
    ]


def _same(given: Tensor, base: Tensor) -> bool:
    """Equal in the file's precision, or in half precision where the base came from half-precision weights."""
    return torch.equal(base.to(given.dtype), given) or torch.equal(base.half(), given.half())


def _largest(given: Tensor, base: Tensor) -> float:
    return float((given.float() - base.float()).abs().max()) if given.numel() else 0.0


_TOWERS = {"image_encoder.": "visual.", "text_encoder.": "", "prompt_learner.ZS_image_encoder.": "visual."}


def tower_name(name: str) -> str:
    """open_clip's name of a tower's tensor in a prompt-tuned checkpoint, "" for a learned prompt."""
    if name == "logit_scale" or name.rpartition(".")[2] in ("VPT", "VPT_shallow"):
        return name if name == "logit_scale" else ""
    prefix = next((prefix for prefix in _TOWERS if name.startswith(prefix)), "")
    return _TOWERS[prefix] + name.removeprefix(prefix) if prefix else ""


def tower_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The towers in use that a prompt-tuned checkpoint carries along, under open_clip's names."""
    in_use = (name for name in tensors if tower_name(name) and not name.startswith("prompt_learner."))
    return {tower_name(name): tensors[name] for name in in_use}


def compare_frozen(tensors: Mapping[str, Tensor], model: ClipModel) -> list[Finding]:
    """Compare every tensor that prompt tuning leaves frozen with the base.

    Args:
        tensors: the checkpoint's, official names; PromptSRC's second image tower is compared too.
        model: the trusted base.

    Returns:
        A finding of high severity that names the tensors that differ and by how much; one of low severity instead where all
        differences are of the size of rounding in half precision, which PromptSRC's averaging of checkpoints leaves behind; one
        of medium severity for tensors that the base does not have.
    """
    frozen = {name: (tower_name(name), values) for name, values in tensors.items() if tower_name(name)}
    base = model.clip.state_dict()
    unknown = [name for name, (official, _) in frozen.items() if official not in base]
    changed: dict[str, float] = {}
    rounded = True
    for name, (official, values) in frozen.items():
        if official not in base:
            continue
        reference = base[official].detach().cpu()
        if values.shape != reference.shape or not values.is_floating_point():
            changed[name], rounded = float("inf"), False
        elif not _same(values, reference):
            changed[name] = _largest(values, reference)
            rounded = rounded and _is_rounding(values, reference)
    return [*_changed(changed, len(frozen), rounded, model.name), *_unknown(unknown)]


def _is_rounding(values: Tensor, reference: Tensor) -> bool:
    # An average of some twenty half-precision tensors is off by a few units of the last place, or of the smallest number.
    return torch.allclose(values.float(), reference.float(), rtol=8 * 2**-11, atol=2e-6)


def _changed(changed: Mapping[str, float], total: int, rounded: bool, base: str) -> list[Finding]:
    if not changed:
        return []
    worst = sorted(changed, key=lambda name: -changed[name])
    listed = ", ".join(f"{name} by up to {changed[name]:.3g}" for name in worst[:5])
    size = "by no more than rounding in half precision" if rounded else "by more than rounding"
    return [
        Finding(
            check="frozen-tensors",
            severity=Severity.LOW if rounded else Severity.HIGH,
            title="Rounding differences in frozen tensors" if rounded else "Tensors that should be frozen were changed",
            message=f"{len(changed)} of {total} tensors that prompt tuning leaves frozen differ from {base} {size}: {listed}. The "
            "delivered values are the ones that were inspected.",
            next_step="Ask the provider why they differ." if rounded else "Use the learned prompt with your own copy of the base.",
            atlas=_ATLAS,
            owasp=_OWASP,
        )
    ]


def _unknown(names: list[str]) -> list[Finding]:
    if not names:
        return []
    return [
        Finding(
            check="frozen-tensors",
            severity=Severity.MEDIUM,
            title="Tensors that the base does not have",
            message=f"{len(names)} tensors have no counterpart in the base and were not used: {', '.join(names[:5])}.",
            next_step="Ask the provider what they are for.",
        )
    ]


def compare_whole(state: Mapping[str, Tensor], model: ClipModel) -> list[Finding]:
    """Say how a whole model differs from the base that it is said to come from: fine-tuning changes tensors, so this informs.

    Args:
        state: under open_clip's names.
        model: the trusted base.
    """
    base = {name: values.cpu() for name, values in model.clip.state_dict().items() if values.is_floating_point()}
    other = [name for name, values in base.items() if name not in state or state[name].shape != values.shape]
    changed = {
        name: _largest(state[name], values) for name, values in base.items() if name not in other and not _same(state[name], values)
    }
    worst = ", ".join(f"{name} by up to {changed[name]:.3g}" for name in sorted(changed, key=lambda name: -changed[name])[:3])
    message = f"{len(changed)} of {len(base)} tensors differ from {model.name}" + (f": {worst}." if worst else ".")
    if other:
        message += f" {len(other)} have another shape or are missing, so it is another architecture."
    return [Finding(check="whole-model", severity=Severity.INFO, title="Comparison with the base", message=message)]
