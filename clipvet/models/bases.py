"""Bases: the CLIP that a delivery claims to build on, from a source that the user trusts, and whole models from any file.

Nothing is fetched unless the name begins with ``hf-hub:`` or ``openclip:``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from clipvet.errors import UnknownLayoutError, UsageError
from clipvet.models._architecture import (
    Architecture,
    architecture_of,
    build_clip,
    infer_architecture,
    known_architecture,
    published_architectures,
)
from clipvet.models._hints import Hints, read_hints
from clipvet.models._open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, SimpleTokenizer
from clipvet.models._pocket import POCKET, load_pocket, pocket_architecture, pocket_hash, pocket_pixels, pocket_tokenizer
from clipvet.models._remote import REMOTE, fetch
from clipvet.models.base import ClipModel, Tokenizer
from clipvet.models.reading import TensorFile, read_tensors, resolve_delivery
from clipvet.models.whole import Activation, Converted, convert, decide_activation

__all__ = [
    "KNOWN",
    "POCKET",
    "Loaded",
    "check_device",
    "known_name",
    "load_base",
    "load_whole",
    "whole_from_file",
    "with_activation",
    "with_state",
]

# SHA-256 of OpenAI's files, as its own download addresses state them (openai/CLIP, clip/clip.py).
KNOWN = {
    "RN50": "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    "RN101": "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
    "RN50x4": "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
    "RN50x16": "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
    "RN50x64": "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
    "ViT-B-32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "ViT-B-16": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    "ViT-L-14": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    "ViT-L-14-336": "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
}
_OPENAI_VOCABULARY = 49408


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A whole model from a file.

    Attributes:
        lent: the parts of open_clip's state dict that the base lent because the file lacks them.
        notes: sentences for the report.
    """

    model: ClipModel
    file: TensorFile
    converted: Converted
    activation: Activation
    lent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def known_name(sha256: str) -> str:
    """The published name of a file with this hash: ``openai/ViT-B-16``, ``pocket-0``; "" where it is not known."""
    for name, digest in KNOWN.items():
        if digest == sha256:
            return f"openai/{name}"
    return next((name for name in POCKET if sha256 and pocket_hash(name) == sha256), "")


def check_device(device: str, base: str | None) -> None:
    """Refuse a torch device that this machine has not, and one without a base to put there.

    Raises:
        UsageError: either of them.
    """
    if device != "cpu" and base is None:
        raise UsageError(f"expected --base with --device {device}: name the base, which is what is put there")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"expected a torch device that this machine has, got {device!r}: see `clipvet doctor`") from error


def load_base(
    name_or_path: str | Path,
    weights: Path | None = None,
    *,
    device: torch.device | str = "cpu",
    quick_gelu: bool | None = None,
) -> ClipModel:
    """Load a base.

    Args:
        name_or_path: ``pocket-0`` or ``pocket-1`` (shipped); an architecture of open_clip with the user's weights,
            ``ViT-B-16=FILE``; a file or folder with a whole CLIP, whose architecture is read off its shapes; or, from the
            network, ``hf-hub:ORG/REPO`` and ``openclip:ARCHITECTURE/TAG``.
        weights: the weights' file, where the name is an architecture.
        device: where the model goes.
        quick_gelu: overrides what the file and its surroundings say about the activation.

    Raises:
        UsageError: the name is not known, or needs weights.
        UnreadableError: the file is missing, damaged or was changed.
        UnknownLayoutError: it is not a whole CLIP.
    """
    name = str(name_or_path)
    if weights is None and not Path(name).exists() and "=" in name:
        name, _, file = name.partition("=")
        weights = Path(file)
    return _find(name, weights, quick_gelu).to(device)


def _find(name: str, weights: Path | None, quick_gelu: bool | None) -> ClipModel:
    if weights is not None:
        return _load_named(name, weights, quick_gelu)
    if name in POCKET:
        return load_pocket(name, quick_gelu)
    if name.startswith(REMOTE):
        path, quick = fetch(name)
        return load_whole(path, quick_gelu=quick if quick_gelu is None else quick_gelu, name=name).model
    if Path(name).exists():
        return load_whole(Path(name), quick_gelu=quick_gelu).model
    if known_architecture(name) is not None:
        raise UsageError(
            f"expected weights for {name}, found none: give your own as '{name}=FILE', or fetch published ones with "
            f"'openclip:{name}/TAG'"
        )
    raise UsageError(
        f"expected a base, found no file or name '{name}': use {' or '.join(POCKET)}, ARCHITECTURE=FILE, a path to a whole "
        "CLIP, or hf-hub:ORG/REPO"
    )


def _load_named(name: str, weights: Path, quick_gelu: bool | None) -> ClipModel:
    plain = name.removesuffix("-quickgelu")
    architecture = known_architecture(name)
    if architecture is None:
        raise UsageError(f"expected an architecture of open_clip before '=', found '{name}': ViT-B-16 and RN50 are two")
    quick = True if quick_gelu is None and plain != name else quick_gelu
    loaded = load_whole(weights, quick_gelu=quick, name=name)
    if architecture_of(loaded.model).shapes != architecture.shapes:
        raise UsageError(
            f"expected {weights} to hold a {name}, found a CLIP of another shape: leave out the name to have it read off"
        )
    return loaded.model


def load_whole(
    path: Path,
    *,
    base: ClipModel | None = None,
    quick_gelu: bool | None = None,
    name: str = "",
) -> Loaded:
    """Load a whole CLIP from a file or folder, in any of the layouts of `clipvet.models.whole`.

    Args:
        path: the file, or a folder with one.
        base: a model that the user trusts. It lends what the file lacks (a file with one tower only), and heads, tokenizer
            and pixel normalisation where its tensors have the same shapes.
        quick_gelu: overrides what the file and its surroundings say about the activation.
        name: what reports call it; by default the published name of its hash, else the path.

    Raises:
        UnreadableError: the file cannot be read.
        UnknownLayoutError: its tensors are no CLIP.
        UsageError: it needs a base to lend what it lacks.
    """
    file = read_tensors(resolve_delivery(path))
    loaded = whole_from_file(file, hints=read_hints(path), base=base, quick_gelu=quick_gelu)
    if name:
        loaded.model.name = name
    return loaded


def whole_from_file(file: TensorFile, *, hints: Hints, base: ClipModel | None, quick_gelu: bool | None) -> Loaded:
    """Build the model of a file that was read already; see `load_whole`."""
    converted, lent = _completed(convert(file.tensors), base)
    shapes = infer_architecture(converted.state)
    twin = base if base is not None and architecture_of(base).shapes == shapes else None
    architecture, assumed = _with_heads(shapes, twin, hints)
    known = known_name(file.record.sha256)
    activation = decide_activation(
        converted,
        stated=quick_gelu,
        configured=hints.quick_gelu,
        known=known.startswith("openai/"),
        base=None if twin is None else twin.quick_gelu,
    )
    model = ClipModel(
        build_clip(architecture, converted.state, quick_gelu=activation.quick),
        _tokenizer_for(shapes, base),
        name=known or file.record.path,
        **_pixels(shapes, twin, hints),
        sha256=file.record.sha256,
    )
    notes = [f"Activation: {'QuickGELU' if activation.quick else 'GELU'}, {activation.source}.", *assumed]
    if lent:
        notes.append(f"The file holds part of a CLIP ({converted.layout}); {len(lent)} tensors come from the base.")
    if converted.unknown:
        notes.append(
            f"{len(converted.unknown)} tensors of the file belong to no CLIP and were left out: {', '.join(converted.unknown[:3])}."
        )
    return Loaded(model=model, file=file, converted=converted, activation=activation, lent=lent, notes=tuple(notes))


def _completed(converted: Converted, base: ClipModel | None) -> tuple[Converted, tuple[str, ...]]:
    if converted.complete:
        return converted, ()
    if base is None:
        raise UsageError(
            f"expected a whole CLIP, found part of one ({converted.layout} layout, {len(converted.state)} tensors): name the base "
            "that has the rest"
        )
    state = base.clip.state_dict()
    given = {name: values for name, values in converted.state.items() if name in state}
    wrong = [name for name, values in given.items() if values.shape != state[name].shape]
    if wrong or not given:
        problem = f"{wrong[0]} has the shape {tuple(given[wrong[0]].shape)}" if wrong else "no tensor has a name of its"
        raise UsageError(f"expected a tower of the base {base.name}, but {problem}: name the base that it was trained from")
    lent = tuple(name for name in state if name not in given and not name.endswith("num_batches_tracked"))
    return replace(converted, state={**state, **converted.state}), lent


def _with_heads(shapes: Architecture, twin: ClipModel | None, hints: Hints) -> tuple[Architecture, list[str]]:
    """Complete the heads from a model of the same shapes; a guess is returned with a note that says so."""
    if twin is not None:
        return architecture_of(twin), []
    known = [found for found in (pocket_architecture(), *published_architectures()) if found.shapes == shapes]
    if known:
        return known[0], []
    given = replace(shapes, heads=hints.heads, text_heads=hints.text_heads)
    full = given.with_default_heads()
    widths = ((full.width, full.heads), (full.text_width, full.text_heads))
    if any(width % heads for width, heads in widths):
        raise UnknownLayoutError(
            f"expected widths that divide into heads, found {widths[0]} and {widths[1]}: name a base of this architecture"
        )
    if given == full:
        return full, []
    return full, [
        "Attention heads cannot be read off tensors, and no known model has these shapes: heads of 64 channels were assumed."
    ]


def _tokenizer_for(shapes: Architecture, base: ClipModel | None) -> Tokenizer:
    if base is not None and (base.context_length, len(base.clip.token_embedding.weight)) == (shapes.context, shapes.vocabulary):
        return base.tokenizer
    if shapes.vocabulary == _OPENAI_VOCABULARY:
        tokenizer: Tokenizer = SimpleTokenizer(context_length=shapes.context)
        return tokenizer
    pocket = pocket_architecture()
    if (shapes.vocabulary, shapes.context) == (pocket.vocabulary, pocket.context):
        return pocket_tokenizer()
    raise UsageError(f"no tokenizer with {shapes.vocabulary} tokens is known: name a base that has the same vocabulary")


def _pixels(shapes: Architecture, twin: ClipModel | None, hints: Hints) -> dict[str, tuple[float, ...]]:
    if twin is not None:
        return {"mean": twin.mean, "std": twin.std}
    if hints.mean and hints.std:
        return {"mean": hints.mean, "std": hints.std}
    if shapes == pocket_architecture().shapes:
        return pocket_pixels()
    return {"mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD}


def with_state(model: ClipModel, state: Mapping[str, Tensor], *, name: str, quick_gelu: bool | None = None) -> ClipModel:
    """A new model like ``model`` in which the named tensors are replaced; the rest is shared, not copied."""
    quick = model.quick_gelu if quick_gelu is None else quick_gelu
    clip = build_clip(architecture_of(model), {**model.clip.state_dict(), **state}, quick_gelu=quick)
    fresh = ClipModel(clip, model.tokenizer, name=name, mean=model.mean, std=model.std, sha256="" if state else model.sha256)
    return fresh.to(model.device)


def with_activation(model: ClipModel, quick_gelu: bool) -> ClipModel:
    """The same model with the other activation, or the model itself where it has that one already."""
    return model if model.quick_gelu == quick_gelu else with_state(model, {}, name=model.name, quick_gelu=quick_gelu)
