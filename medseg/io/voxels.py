"""What voxels may be: how many, which numbers, and how they become images or label maps."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import ScanError
from medseg.io.formats import MAX_VOXELS

Voxels = npt.NDArray[Any]

ROUNDING = 1e-2
"""Labels that were stored with a scale factor come back as 1.00000002, of 8 bits as 0.996."""

LARGEST_MM = 1e7
"""No patient is 10 km away: a larger length in a header is a broken header."""


_limit: contextvars.ContextVar[int | None] = contextvars.ContextVar(
    "most voxels that are read", default=None
)


@contextlib.contextmanager
def limit_voxels(count: int) -> Iterator[None]:
    """Refuse files that state more voxels, before their voxels are read or inflated.

    For files from strangers: a megabyte of gzip can hold a gigabyte of zeros.

    Args:
        count: How many may be read, of all channels together.
    """
    former = _limit.set(min(count, MAX_VOXELS))
    try:
        yield
    finally:
        _limit.reset(former)


def check_size(shape: Sequence[int], source: str | Path) -> None:
    """Refuse a size no scan has, before memory is taken for it.

    Args:
        shape: Voxels along each axis, as the header states them.
        source: The file, for the error.

    Raises:
        ScanError: If an axis is empty or there are more voxels than ``MAX_VOXELS``, or than
            ``limit_voxels`` allows.
    """
    if any(n < 1 for n in shape):
        raise ScanError(
            f"the header states {format_size(shape)} voxels; each axis needs at least one",
            source=source,
        )
    most = _limit.get() or MAX_VOXELS
    # As Python's integers, because NumPy's overflow.
    if math.prod(map(int, shape)) > most:
        raise ScanError(
            f"the header states {format_size(shape)} voxels; at most {most:,} are read, so "
            "the file is broken or needs to be cut into parts",
            source=source,
        )


def empty_image(
    shape: Sequence[int], source: str | Path
) -> npt.NDArray[np.float32]:
    """Allocate a float32 image of ``shape``, the first axis running fastest.

    Args:
        shape: Voxels along each axis.
        source: The file, for the error.

    Raises:
        ScanError: If the size is refused or there is no memory for it.
    """
    check_size(shape, source)
    try:
        return np.empty(tuple(shape), dtype=np.float32, order="F")
    except MemoryError as error:
        gigabytes = math.prod(shape) * 4 / 1e9
        raise ScanError(
            f"{format_size(shape)} voxels need {gigabytes:.1f} GB of memory, which this machine "
            "does not have free",
            source=source,
        ) from error


def as_labels(array: Voxels, source: str | Path) -> Voxels:
    """Return a label map as the smallest unsigned integers, from uint8 on, that hold it.

    Args:
        array: Three or four axes; booleans, integers, or floats that are whole numbers but for
            ``ROUNDING``.
        source: The file, for the error.

    Raises:
        ScanError: If a value is negative, fractional or not a number, or above 2³² - 1.
    """
    if array.dtype.kind not in "buif":
        raise ScanError(
            f"label maps hold integers, these voxels are {array.dtype}",
            source=source,
        )
    is_float = array.dtype.kind == "f"
    low, high = array.min(), array.max()
    if is_float:
        _refuse_fractions(array, source)
        low, high = np.rint(low), np.rint(high)
    if low < 0:
        raise ScanError(
            f"label maps hold 0, 1, 2, …; the lowest value is {low:g}, so this is an image or a "
            "label map with a negative ignore value",
            source=source,
        )
    if high > np.iinfo(np.uint32).max:
        raise ScanError(
            f"the label value {high:g} is too large; label maps hold at most 4294967295",
            source=source,
        )
    dtype = np.min_scalar_type(int(high))
    if is_float:
        return _round_to(dtype, array)
    return array.astype(dtype, copy=False)


def _round_to(dtype: np.dtype[Any], array: Voxels) -> Voxels:
    # Slab by slab: rounding all at once would hold a second array of floats.
    rounded = np.empty(array.shape, dtype, order="F")
    for k in range(array.shape[2]):
        rounded[:, :, k] = np.rint(array[:, :, k])
    return rounded


def _refuse_fractions(array: Voxels, source: str | Path) -> None:
    for k in range(array.shape[2]):
        slab = array[:, :, k]
        if not np.isfinite(slab).all():
            raise ScanError(
                "the label map holds voxels that are not numbers (NaN)",
                source=source,
            )
        distance = np.abs(slab - np.rint(slab))
        fractions = slab[distance > ROUNDING]
        if fractions.size:
            raise ScanError(
                f"label maps hold whole numbers, this one holds {fractions[0]:g}; it is an image "
                "or probabilities, or was resampled with interpolation",
                source=source,
            )


def format_size(shape: Sequence[int]) -> str:
    """Return a size as people write it: ``512×512×300``."""
    return "×".join(str(n) for n in shape)
