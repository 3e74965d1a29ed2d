"""Matrices in npy and npz files: never unpickled, and held against the rows that they must have."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from clipvet.errors import UnreadableError

__all__ = ["Array", "array_names", "write_array", "write_arrays"]

_CHUNK = 16_384  # rows that are copied at once
_WIDEST = 16_384  # numbers per row; no model's features have more


@dataclass(frozen=True, kw_only=True)
class Array:
    """One matrix: an npy file, or a member of an npz file, named without ``.npy``."""

    path: Path
    member: str = ""

    def open(self, rows: int | None = None) -> np.ndarray:
        """Return ``float (rows, d)``; a file's is a memory map, a member's is read.

        Raises:
            UnreadableError: it cannot be read, is no such matrix, or has another number of rows.
        """
        with _readable(self.path, self.member):
            values = _from_npz(self.path, self.member, rows) if self.member else npy.open_memmap(self.path, mode="r")
            if values.ndim != 2 or values.dtype.kind != "f" or not values.dtype.isnative:
                raise ValueError(f"found {values.dtype} {values.shape}, not a matrix of floats")
            _expect(values.shape, rows)
        return values


def array_names(path: Path) -> list[str]:
    """Return the names of an npz file's arrays.

    Raises:
        UnreadableError: it is none.
    """
    with _readable(path), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def write_array(values: np.ndarray, rows: np.ndarray, file: IO[bytes]) -> None:
    """Write some rows of an array as npy."""
    shape = (len(rows), *values.shape[1:])
    npy.write_array_header_1_0(file, {"descr": npy.dtype_to_descr(values.dtype), "fortran_order": False, "shape": shape})
    for i in range(0, len(rows), _CHUNK):
        file.write(np.ascontiguousarray(values[rows[i : i + _CHUNK]]).tobytes())


def write_arrays(source: Path, target: Path, rows: np.ndarray, total: int) -> None:
    """Write some rows of every array of an npz file, each of which has ``total`` rows.

    Raises:
        UnreadableError: an array cannot be read, or has another number of rows.
    """
    with zipfile.ZipFile(target, "w") as archive:
        for name in array_names(source):
            with _readable(source, name):
                values = _from_npz(source, name, total)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                write_array(values, rows, file)


@contextmanager
def _readable(path: Path, member: str = "") -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the parsers of a stranger's headers raise anything: ValueError, BadZipFile, TokenError ...
        where = f"{path}: expected the array {member} with" if member else f"{path}: expected"
        raise UnreadableError(f"{where} one row per pair, could not use it ({error}); make it anew") from error


def _expect(shape: tuple[int, ...], rows: int | None) -> None:
    if not shape or (rows is not None and shape[0] != rows) or math.prod(shape[1:]) > _WIDEST:
        raise ValueError(f"found the shape {shape} where there are {rows} pairs, of at most {_WIDEST:,} numbers each")


def _from_npz(path: Path, member: str, rows: int | None) -> np.ndarray:
    """Read a member; nothing is reserved for what it declares before that agrees with its size and the number of pairs."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as file:
        version = npy.read_magic(file)
        header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = header(file)
        _expect(shape, rows)
        size = math.prod(shape) * dtype.itemsize
        if archive.getinfo(f"{member}.npy").file_size != file.tell() + size:
            raise ValueError(f"found {dtype} {shape}, which does not fit its size")
        return np.frombuffer(file.read(size), dtype).reshape(shape, order="F" if fortran else "C")
