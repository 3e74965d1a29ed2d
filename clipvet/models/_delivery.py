"""Find the checkpoint in what a provider handed over."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from clipvet.errors import HostileFileError, UnreadableError
from clipvet.models._names import clean

__all__ = ["resolve_delivery"]

_RUN_FOLDERS = ("prompt_learner", "MultiModalPromptLearner", "VLPromptLearner", "clip_adapter")
_MODEL_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "adapter_model.bin",
)
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl")
_EPOCH = re.compile(r"model\.pth\.tar-([0-9]{1,9})")
_MAX_LISTED = 10_000


def resolve_delivery(path: Path, *, inside: Path | None = None) -> Path:
    """Find the file to read in a delivery.

    A file is itself. In a folder: the checkpoint that Dassl's text file ``checkpoint`` names; else the
    ``model.pth.tar-N`` of the highest N; else ``model-best.pth.tar``; else the file that open_clip or Hugging Face would
    load; else the only file that looks like a checkpoint; else the same in the one sub-folder that a prompt learner was
    saved in. Nothing outside the folder is ever returned, whatever the folder's files say or link to (links into the
    ``blobs`` folder of a Hugging Face cache excepted).

    Args:
        path: A file or a folder.
        inside: Folder that the file must lie in; by default ``path`` where that is a folder.

    Raises:
        HostileFileError: The folder names, or links to, a file outside itself.
        UnreadableError: Nothing is there, or nothing that looks like a checkpoint.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _in_folder(path)
        return path if inside is None else _contained(path, inside)
    except (OSError, ValueError, RuntimeError) as error:
        raise UnreadableError(f"{clean(str(path), 500)}: there is no such file or folder; check the path") from error


def _contained(path: Path, folder: Path) -> Path:
    real, root = path.resolve(), folder.resolve()
    if not real.is_relative_to(root) and not real.is_relative_to(root.parent.parent / "blobs"):
        raise HostileFileError(f"{_show(folder)}: its '{clean(path.name)}' is a link that leads out of the folder")
    return path


def _in_folder(folder: Path) -> Path:
    names = _files(folder)
    chosen = _named_by_dassl(folder, names) or _by_epoch(names) or _by_known_name(names)
    if chosen:
        return _contained(folder / chosen, folder)
    learners = [name for name in _RUN_FOLDERS if (folder / name).is_dir()]
    if len(learners) == 1:
        return _in_folder(_contained(folder / learners[0], folder))
    found = ", ".join(f"'{clean(name, 60)}'" for name in sorted(names)[:8]) or "no files"
    raise UnreadableError(
        f"{_show(folder)}: expected one checkpoint (model.pth.tar-N, model-best.pth.tar, *.safetensors, *.pt, *.pth or "
        f"*.bin), found {found}; name the file itself"
    )


def _files(folder: Path) -> set[str]:
    names = set()
    for entry in folder.iterdir():
        if entry.is_file():
            names.add(entry.name)
        if len(names) > _MAX_LISTED:
            raise UnreadableError(f"{_show(folder)}: it holds more than {_MAX_LISTED} files; name the checkpoint itself")
    return names


def _named_by_dassl(folder: Path, names: set[str]) -> str:
    """The name in the text file ``checkpoint``, "" where there is none or that file was not delivered."""
    if "checkpoint" not in names:
        return ""
    with _contained(folder / "checkpoint", folder).open("rb") as file:
        lines = file.read(4096).splitlines()
    name = lines[0].decode("utf-8", "replace").strip() if lines else ""
    if Path(name).name != name or name == ".." or "\\" in name or "\0" in name:
        raise HostileFileError(f"{_show(folder)}: its file 'checkpoint' names '{clean(name)}', outside the folder")
    return name if name in names and name != "checkpoint" else ""


def _by_epoch(names: set[str]) -> str:
    epochs = {int(found[1]): name for name in names if (found := _EPOCH.fullmatch(name))}
    if epochs:
        return epochs[max(epochs)]
    return "model-best.pth.tar" if "model-best.pth.tar" in names else ""


def _by_known_name(names: set[str]) -> str:
    known = next((name for name in _MODEL_FILES if name in names), "")
    likely = [name for name in names if name.endswith(_SUFFIXES)]
    return known or (likely[0] if len(likely) == 1 else "")


def _show(path: Path) -> str:
    return clean(str(path), 500)
