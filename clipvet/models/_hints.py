"""What the text files around a checkpoint say about it: hints, read with regular expressions and never executed.

They come from the provider, so none of them is trusted for anything but interpretation, and a value that makes no sense is
treated as absent.
"""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from clipvet.errors import UnreadableError
from clipvet.models.reading import resolve_delivery

__all__ = ["Hints", "read_hints"]

_MAX_BYTES = 4 << 20
_MAX_YAML = 8
_MODEL_FOLDERS = ("prompt_learner", "MultiModalPromptLearner", "VLPromptLearner", "clip_adapter")
_PATTERNS = {
    "position": (r"^\s*CLASS_TOKEN_POSITION:\s*['\"]?(end|middle|front)\b",),
    "backbone": (
        r"Loading CLIP \(backbone: ([\w/@.-]+)\)",
        r"^[ \t]*BACKBONE:[ \t]*\r?\n(?:[ \t]+[A-Z_]+:.*\n)*?[ \t]+NAME: ([\w/@.-]+)",
    ),
    "dataset": (r"Loading dataset: (\w+)", r"^DATASET:[ \t]*\r?\n(?:[ \t]+[A-Z_]+:.*\n)*?[ \t]+NAME: (\w+)"),
    "trainer": (r"Loading trainer: (\w+)", r"^TRAINER:[ \t]*\r?\n(?:[ \t]+.*\n)*?  NAME: (\w+)"),
}


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What the files beside a checkpoint say; empty or None where they say nothing, or contradict themselves."""

    position: str = ""
    backbone: str = ""
    dataset: str = ""
    trainer: str = ""
    quick_gelu: bool | None = None
    heads: int = 0
    text_heads: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    sources: tuple[str, ...] = ()


def read_hints(path: Path) -> Hints:
    """Read ``log.txt``, ``*.yaml`` and the configuration files of open_clip and Hugging Face beside a delivery.

    Args:
        path: the delivery as given, a file or a folder.
    """
    found: dict[str, Any] = {}
    sources = []
    for file in _text_files(path):
        if (text := _read(file)) is None:
            continue
        said = _from_json(file.name, text) if file.suffix == ".json" else _from_text(text)
        if said:
            sources.append(file.name)
        found = {**said, **found}
    return Hints(**found, sources=tuple(dict.fromkeys(sources)))


def _folders(path: Path) -> list[Path]:
    """The delivery's folders from the checkpoint outwards, never beyond the run folder."""
    if not path.is_dir():
        return [path.parent, path.parent.parent] if path.parent.name in _MODEL_FOLDERS else [path.parent]
    try:
        inner = resolve_delivery(path).parent
    except UnreadableError:
        return [path]
    outer = [path.parent] if path.name in _MODEL_FOLDERS else []
    return list(dict.fromkeys([inner, path, *outer]))


_JSON_FILES = ("open_clip_config.json", "config.json", "preprocessor_config.json")


def _text_files(path: Path) -> list[Path]:
    files: list[Path] = []
    for folder in _folders(path):
        files += [folder / name for name in ("log.txt", *_JSON_FILES)]
        files += sorted(folder.glob("*.y*ml"))[:_MAX_YAML]
    return files


def _read(file: Path) -> str | None:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return None
        with resolve_delivery(file, inside=file.parent).open("rb") as handle:
            return handle.read(_MAX_BYTES).decode("utf-8", "replace")
    except (OSError, UnreadableError):
        return None


def _from_text(text: str) -> dict[str, Any]:
    said = {}
    for name, patterns in _PATTERNS.items():
        for pattern in patterns:
            values = set(re.findall(pattern, text, re.MULTILINE))
            if len(values) == 1:
                said[name] = values.pop()
                break
    return said


def _from_json(name: str, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    reader = {"open_clip_config.json": _from_open_clip, "config.json": _from_hugging_face}.get(name, _from_preprocessor)
    said = reader(content)
    known = {field.name for field in fields(Hints)}
    return {key: value for key, value in said.items() if key in known and (value or value is False)}


def _from_open_clip(content: dict[str, Any]) -> dict[str, Any]:
    model, preprocess = _dict(content, "model_cfg"), _dict(content, "preprocess_cfg")
    if not model:
        return {}
    quick = model.get("quick_gelu", False)
    return {
        "quick_gelu": quick if isinstance(quick, bool) else None,
        "text_heads": _count(_dict(model, "text_cfg").get("heads")),
        "mean": _triple(preprocess.get("mean")),
        "std": _triple(preprocess.get("std")),
    }


def _from_hugging_face(content: dict[str, Any]) -> dict[str, Any]:
    if content.get("model_type") not in ("clip", "clip_vision_model", "clip_text_model"):
        return {}
    towers = [_dict(content, "vision_config"), _dict(content, "text_config")]
    # A single tower's configuration has no sections, and CLIP's default activation is left out of the file.
    acts = {tower.get("hidden_act", content.get("hidden_act", "quick_gelu")) for tower in towers}
    quick = {"quick_gelu": True, "gelu": False}.get(str(acts.pop())) if len(acts) == 1 else None
    return {
        "quick_gelu": quick,
        "heads": _count(towers[0].get("num_attention_heads")),
        "text_heads": _count(towers[1].get("num_attention_heads")),
    }


def _from_preprocessor(content: dict[str, Any]) -> dict[str, Any]:
    return {"mean": _triple(content.get("image_mean")), "std": _triple(content.get("image_std"))}


def _dict(content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    return value if type(value) is int and 0 < value <= 256 else 0


def _triple(value: object) -> tuple[float, ...]:
    """Three numbers between 0 and 1, as channel means and deviations are; else nothing."""
    if not isinstance(value, list) or len(value) != 3 or not all(type(v) in (int, float) and 0 < v <= 1 for v in value):
        return ()
    return tuple(float(v) for v in value)
