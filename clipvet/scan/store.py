"""What a scan keeps on disk, shard by shard: features in clip-retrieval's layout, scores, and a marker for what is whole.

Every file appears whole or not at all, and a marker is written last, so that a scan may be killed at any time and go on later; two
scans in one folder write the same bytes.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipvet.errors import UnreadableError, UnwritableError

__all__ = ["Store", "read_array", "read_table", "write_array", "write_table", "write_whole"]


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> Path:
    """Write a file beside its place and move it there in one step.

    Raises:
        UnwritableError: there is no room, or the folder may not be written to; nothing is left behind.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise UnwritableError(
            f"expected to write {path}, but {error.strerror or error}: make room or choose another folder, and run the same "
            "command again; it goes on with what is whole"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path


@dataclass(frozen=True)
class Store:
    """The folder of one scan; shards are known by their number in the source.

    Attributes:
        folder: of the scan.
        salt: keeps pairs of a trusted set apart from pairs of the data that happen to have the same name.
        two_models: whether a trusted model's features lie beside those of the model.
    """

    folder: Path
    salt: str = ""
    two_models: bool = False

    @property
    def by_trusted(self) -> Store | None:
        """Where the same pairs' features by the trusted model are, laid out alike, with markers of their own; None without one."""
        return Store(self.folder / "trusted-model", salt=self.salt) if self.two_models else None

    def image_features(self, shard: int) -> Path:
        """Path of ``(n, d)`` half-precision image features."""
        return self.folder / "features" / "img_emb" / f"img_emb_{shard:05d}.npy"

    def text_features(self, shard: int) -> Path:
        """Path of ``(n, d)`` half-precision text features."""
        return self.folder / "features" / "text_emb" / f"text_emb_{shard:05d}.npy"

    def metadata(self, shard: int) -> Path:
        """Path of the table with id, key, uid and caption of every row of the features."""
        return self.folder / "features" / "metadata" / f"metadata_{shard:05d}.parquet"

    def unread(self, shard: int) -> Path:
        """Path of the table of what could not be read, with kind and reason."""
        return self.folder / "features" / "unread" / f"unread_{shard:05d}.parquet"

    def scores(self, shard: int) -> Path:
        """Path of the table of scores, a column per scorer, in the order of the metadata."""
        return self.folder / "state" / "scores" / f"scores_{shard:05d}.parquet"

    def reference(self, digest: str) -> Path:
        """Path of the pairs that everything is compared with, named after its content."""
        return self.folder / "state" / f"reference-{digest[:16]}.safetensors"

    def trim(self, shards: int) -> None:
        """Remove features of shards that the source does not have: what an earlier scan of other data left."""
        for path in (self.folder / "features").glob("*/*_[0-9]*.*"):
            if int(path.stem.rpartition("_")[2]) >= shards:
                path.unlink(missing_ok=True)

    def _marker(self, stage: str, shard: int) -> Path:
        return self.folder / "state" / stage / f"{shard:05d}.json"

    def done(self, stage: str, shard: int, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what was noted when a stage of a shard was finished, or None where it was not, or not on the same input."""
        try:
            found = json.loads(self._marker(stage, shard).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(found, dict) or found.get("identity") != json.loads(json.dumps(identity)):
            return None
        return dict(found["facts"])

    def finish(self, stage: str, shard: int, identity: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Note that a stage of a shard is finished, when all its files are written."""
        text = json.dumps({"identity": identity, "facts": facts}, sort_keys=True)
        write_whole(self._marker(stage, shard), lambda file: file.write(text.encode()))

    def forget(self, stage: str, shard: int) -> None:
        """Take a marker back, before files that it vouches for are written anew."""
        self._marker(stage, shard).unlink(missing_ok=True)


def write_array(path: Path, array: np.ndarray) -> Path:
    """Write an array as ``.npy``, whole or not at all."""
    return write_whole(path, lambda file: np.save(file, array, allow_pickle=False))


def read_array(path: Path) -> np.ndarray:
    """Map an array into memory.

    Raises:
        UnreadableError: it is missing or damaged.
    """
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")  # reads no pickles
    except (OSError, ValueError) as error:
        raise UnreadableError(
            f"expected features in {path}, could not read them ({error}): remove the folder and scan again"
        ) from error
    return array


def write_table(path: Path, columns: Mapping[str, Any]) -> Path:
    """Write columns as parquet, whole or not at all."""
    table = pa.table(dict(columns))
    return write_whole(path, lambda file: pq.write_table(table, file, compression="zstd"))


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a table.

    Raises:
        UnreadableError: it is missing or damaged.
    """
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise UnreadableError(
            f"expected a table in {path}, could not read it ({error}): remove the folder and scan again"
        ) from error
