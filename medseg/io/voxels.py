"""What voxels may be: how many, which numbers, and how they become images or label maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def check_size(shape: Sequence[int], name: str) -> None:
    """Refuse a size no scan has, before memory is taken for it.

    Raises:
        ScanError: If an axis is empty or there are more than ``MAX_VOXELS`` voxels.
    """
    if any(n < 1 for n in shape):
        raise ScanError(
            f"{name}: the header says {_times(shape)} voxels; each axis needs at least one"
        )
    if math.prod(shape) > MAX_VOXELS:
        raise ScanError(
            f"{name}: the header says {_times(shape)} voxels; at most {MAX_VOXELS:,} are read, so "
            "the file is broken or needs to be cut into parts"
        )


def empty_image(shape: Sequence[int], name: str) -> npt.NDArray[np.float32]:
    """Return room for a float32 image of ``shape``, the first axis running fastest.

    Raises:
        ScanError: If the size is refused or there is no memory for it.
    """
    check_size(shape, name)
    try:
        return np.empty(tuple(shape), dtype=np.float32, order="F")
    except MemoryError as error:
        need = math.prod(shape) * 4 / 1e9
        raise ScanError(
            f"{name}: {_times(shape)} voxels need {need:.1f} GB of memory, which is not free here"
        ) from error


def replace_nonfinite(image: npt.NDArray[np.float32]) -> tuple[str, ...]:
    """Set NaN and infinite voxels to 0, in place: one of them would spoil every normalisation.

    Args:
        image: Three or four axes.

    Returns:
        A warning that counts them, or nothing.
    """
    # One slab at a time: a mask of the whole image would cost a quarter of it again.
    bad = 0
    for k in range(image.shape[2]):
        slab = image[:, :, k]
        finite = np.isfinite(slab)
        if not finite.all():
            bad += int(finite.size - np.count_nonzero(finite))
            slab[~finite] = 0
    if not bad:
        return ()
    return (f"{bad} of {image.size} voxels were not numbers (NaN or infinite) and became 0",)


def as_labels(array: Voxels, name: str) -> Voxels:
    """Return a label map as the smallest unsigned integers, from uint8 on, that hold it.

    Args:
        array: Three or four axes; booleans, integers, or floats that are whole numbers but for
            ``ROUNDING``.
        name: What errors call the file.

    Raises:
        ScanError: If a value is negative, fractional or not a number, or above 2³² - 1.
    """
    if array.dtype.kind not in "buif":
        raise ScanError(f"{name}: label maps hold integers, these voxels are {array.dtype}")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        _refuse_fractions(array, name)
        low, high = np.rint(low), np.rint(high)
    if low < 0:
        raise ScanError(f"{name}: a label map has values 0, 1, 2, …; its lowest is {low:g}")
    if high > np.iinfo(np.uint32).max:
        raise ScanError(f"{name}: the label value {high:g} is larger than any label's")
    kept = np.min_scalar_type(int(high))
    return array.astype(kept, copy=False) if array.dtype.kind != "f" else _rounded(array, kept)


def _rounded(array: Voxels, kept: np.dtype[Any]) -> Voxels:
    # Slab by slab: rounding all at once would hold a second array of floats.
    whole = np.empty(array.shape, kept, order="F")
    for k in range(array.shape[2]):
        whole[:, :, k] = np.rint(array[:, :, k])
    return whole


def _refuse_fractions(array: Voxels, name: str) -> None:
    for k in range(array.shape[2]):
        slab = array[:, :, k]
        if not np.isfinite(slab).all():
            raise ScanError(f"{name}: the label map holds voxels that are not numbers (NaN)")
        fractions = slab[np.abs(slab - np.rint(slab)) > ROUNDING]
        if fractions.size:
            raise ScanError(
                f"{name}: a label map has whole numbers, this one holds {fractions[0]:g}; it is an "
                "image or probabilities, or was resampled with interpolation"
            )


def _times(shape: Sequence[int]) -> str:
    return "×".join(str(n) for n in shape)
