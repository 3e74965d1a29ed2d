"""Find the deliveries in a folder that is none itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipvet.errors import HostileFileError, UnreadableError
from clipvet.models.reading import resolve_delivery
from clipvet.types import Skipped

__all__ = ["Found", "find_deliveries"]

_DEEPEST = 8  # output/DATASET/TRAINER/CONFIG/SEED are five
_MOST = 10_000  # entries that are looked at; a folder of a whole disk is a slip
_RUN_FILES = ("model", "open_clip_", "pytorch_model", "adapter_model")  # what training code calls the one checkpoint of a folder
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".index.json")


@dataclass(frozen=True, kw_only=True)
class Found:
    """Paths of deliveries in order of their names, and what else lay there, each with the reason why it is none."""

    deliveries: tuple[Path, ...] = ()
    passed_over: tuple[Skipped, ...] = ()


def find_deliveries(folder: Path, *, without: Path | None = None) -> Found:
    """List what in a folder is to be inspected: itself, or the sub-folders that hold a checkpoint, and loose checkpoints.

    A folder is one delivery where `resolve_delivery` finds a checkpoint in it, unless that is a loose file beside sub-folders that
    hold others. Whatever has the name of a checkpoint is taken, so that a file that cannot be read is an error later and not a gap.
    Links to folders, and links that lead out of the folder, are passed over.

    Args:
        folder: what was given.
        without: a folder that is left out: where the reports are written.

    Raises:
        UnreadableError: the folder cannot be listed, or has more than 10,000 entries.
    """
    search = _Search(root=folder, without=None if without is None else without.resolve())
    deliveries: list[Path] = []
    passed: list[Skipped] = []
    try:
        for number, (path, why) in enumerate(search.begin(), 1):
            if number > _MOST:
                raise UnreadableError(f"{folder}: it holds more than {_MOST} entries; name the deliveries, or a smaller folder")
            if why:
                passed.append(Skipped(what=str(path), why=why))
            else:
                deliveries.append(path)
    except OSError as error:
        raise UnreadableError(f"{folder}: it cannot be listed ({error.strerror or error}); check its permissions") from error
    return Found(deliveries=tuple(deliveries), passed_over=tuple(passed))


@dataclass(frozen=True, kw_only=True)
class _Search:
    """A walk through a folder that yields entries, each with the reason why it is passed over, "" for a delivery."""

    root: Path
    without: Path | None

    def begin(self) -> Iterator[tuple[Path, str]]:
        return self._one(self.root) if self._is_delivery(self.root) else self._walk(self.root, 1)

    def _walk(self, folder: Path, depth: int) -> Iterator[tuple[Path, str]]:
        for path in sorted(folder.iterdir()):
            if not path.is_dir():
                yield path, self._why_no_checkpoint(path)
            elif path.resolve() == self.without:
                yield path, "it is where the reports are written"
            elif path.is_symlink():
                yield path, "it is a link to a folder"
            elif self._is_delivery(path):
                yield from self._one(path)
            elif depth == _DEEPEST:
                yield path, f"it lies deeper than {_DEEPEST} folders"
            else:
                yield from self._walk(path, depth + 1)

    def _one(self, folder: Path) -> Iterator[tuple[Path, str]]:
        """Yield a delivery, and the checkpoints in it that are not looked at: nobody should take them for vetted."""
        yield folder, ""
        for path in self._beside(folder):
            yield path, f"{folder} was taken for one delivery, with another checkpoint; name this folder to have it inspected"

    def _why_no_checkpoint(self, path: Path) -> str:
        if not (path.name.endswith(_SUFFIXES) or ".pth.tar" in path.name):
            return "its name is not that of a checkpoint"
        try:
            resolve_delivery(path, inside=self.root)
        except UnreadableError as error:
            return str(error)
        return ""

    def _is_delivery(self, folder: Path) -> bool:
        """Whether a folder is one delivery, or one that is refused."""
        try:
            chosen = resolve_delivery(folder)
        except HostileFileError:
            return True
        except UnreadableError:
            return False
        of_a_run = chosen.parent != folder or chosen.name.startswith(_RUN_FILES) or (folder / "checkpoint").is_file()
        return of_a_run or not self._beside(folder)

    def _beside(self, folder: Path) -> list[Path]:
        """Sub-folders with checkpoints, but for that which the folder's own checkpoint lies in."""
        try:
            chosen = resolve_delivery(folder)
        except UnreadableError:
            return []
        others = (path for path in sorted(folder.iterdir()) if path.is_dir() and not path.is_symlink())
        return [
            path
            for path in others
            if path.resolve() != self.without and not chosen.is_relative_to(path) and self._is_delivery(path)
        ]
