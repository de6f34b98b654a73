"""Voxels of an open file, one after the other: read a little at a time, and never too few."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from medseg._support.gzip import (
    BROKEN_STREAM,
    max_inflated_bytes,
    open_maybe_gzipped,
)
from medseg.errors import ScanError
from medseg.io.voxels import empty_image

Convert = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Makes intensities of stored numbers."""

_CHUNK = 1 << 20
_BLOCK = 1 << 18
"""Voxels read at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredVoxels:
    """The voxels of an open file, not read yet.

    Attributes:
        shape: ``(i, j, k, channels)``, the first axis running fastest.
        dtype: As they are stored.
        stream: Stands before the first.
        path: The file, for errors.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    stream: BinaryIO
    path: Path

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield the voxels in the order they are stored, some at a time, and which is the first.

        Raises:
            ScanError: If the file ends before the last voxel.
        """
        size = self.dtype.itemsize
        count = math.prod(self.shape)
        for first in range(0, count, _BLOCK):
            wanted = min(_BLOCK, count - first)
            content = self.stream.read(wanted * size)
            if len(content) < wanted * size:
                available = first * size + len(content)
                raise ScanError(
                    f"truncated: the file holds {available:,} of {count * size:,} bytes of "
                    "voxels; copy or download it again",
                    source=self.path,
                )
            yield first, np.frombuffer(content, self.dtype)

    def read_all(self) -> npt.NDArray[Any]:
        """Return all voxels as they are stored."""
        # Pages that are never written to take no memory, so a lying header takes none either.
        stored = np.empty(self.shape, self.dtype, order="F")
        flat = stored.reshape(-1, order="F")
        for first, block in self.blocks():
            behind = first + block.size
            flat[first:behind] = block
        return stored

    def read_image(self, convert: Convert) -> npt.NDArray[np.float32]:
        """Return the voxels, converted, as float32 ``(i, j, k, channels)``."""
        image = empty_image(self.shape, self.path)
        flat = image.reshape(-1, order="F")
        with np.errstate(over="ignore", invalid="ignore"):
            # A little at a time: it stays in the processor's cache, and may take float64.
            for first, block in self.blocks():
                behind = first + block.size
                flat[first:behind] = convert(block)
        return image


@contextlib.contextmanager
def open_voxels(
    path: Path,
    file: Path,
    offset: int,
    shape: tuple[int, int, int, int],
    dtype: np.dtype[Any],
) -> Iterator[StoredVoxels]:
    """Open a file at its voxels; when they are read, compare the checksum behind them.

    Args:
        path: The file that people name, for errors.
        file: The file that holds the voxels, perhaps gzipped.
        offset: At which byte they begin.
        shape: ``(i, j, k, channels)``.
        dtype: As they are stored.

    Raises:
        ScanError: If the file cannot hold so many, or is truncated or damaged.
    """
    size = math.prod(shape) * dtype.itemsize
    with refuse_broken_stream(path):
        if offset + size > max_inflated_bytes(file):
            raise ScanError(
                f"the header promises {size:,} bytes of voxels from byte {offset:,} on, more than "
                "the file can hold; it is truncated or its header is wrong",
                source=path,
            )
        with open_maybe_gzipped(file) as stream:
            _skip(stream, offset)
            yield StoredVoxels(shape, dtype, stream, path)
            # The checksum stands behind the last voxel; reading on has it compared.
            stream.read(_CHUNK)


@contextlib.contextmanager
def refuse_broken_stream(path: Path) -> Iterator[None]:
    """Raise ``ScanError`` for what reading a truncated or damaged stream raises."""
    try:
        yield
    except PermissionError as error:
        raise ScanError(
            "the file cannot be read: you lack the permission", source=path
        ) from error
    except BROKEN_STREAM as error:
        raise ScanError(
            "the file cannot be read; it is truncated or damaged",
            source=path,
            detail=str(error),
        ) from error


def _skip(stream: BinaryIO, size: int) -> None:
    while size > 0:
        skipped = len(stream.read(min(size, _CHUNK)))
        if not skipped:
            raise EOFError("it ends before its voxels")
        size -= skipped
