"""The part of a scan that a bundle looks at: all of it, or the box that holds the body."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medseg.bundle.spec import PreprocessingSpec
from medseg.errors import ScanError
from medseg.preprocessing.resampling import find_memory_order
from medseg.preprocessing.transforms import Selection, choose_selection
from medseg.volume import Array, Volume

Box = tuple[slice, slice, slice]
Flags = npt.NDArray[np.bool_]

_AT_ONCE = 1 << 22
"""Voxels compared at a time."""


def find_box(
    array: Array,
    prep: PreprocessingSpec,
    volume: Volume,
    is_padding: Flags | None = None,
) -> Box:
    """Return the part of a scan that is looked at.

    Args:
        array: Its voxels ``(channels, i, j, k)``, in any order of axes.
        prep: The bundle's preprocessing.
        volume: The scan, for messages.
        is_padding: Which voxels are padding, as ``array``; none of them is looked at.

    Raises:
        ScanError: If no voxel is one that the bundle looks at.
    """
    select = choose_selection(prep)
    if select is None:
        return select_all(array)
    occupied = [np.zeros(n, bool) for n in array.shape[1:]]
    # Plane by plane as they lie in memory, so that no mask of the whole scan is made.
    order = find_memory_order(array)
    in_order = [occupied[axis] for axis in order]
    for number, channel in enumerate(array):
        hidden = None
        if is_padding is not None:
            hidden = is_padding[number].transpose(order)
        _mark_occupied(channel.transpose(order), hidden, select, in_order)
    x, y, z = occupied
    if not x.any():
        raise build_empty_scan_error(prep, volume)
    margin = prep.crop_margin
    return _extent(x, margin), _extent(y, margin), _extent(z, margin)


def select_all(array: Array) -> Box:
    """Return the box that is all of an array ``(channels, i, j, k)``."""
    i, j, k = array.shape[1:]
    return slice(0, i), slice(0, j), slice(0, k)


def build_empty_scan_error(
    prep: PreprocessingSpec, volume: Volume
) -> ScanError:
    """Return the error about a scan without any voxel that the bundle looks at."""
    if prep.crop_above is None:
        what = (
            "every voxel is 0, and the bundle looks only at those that are not "
            "(preprocessing.crop_nonzero); is the scan empty?"
        )
    else:
        what = (
            f"no voxel is above {prep.crop_above:g}, and the bundle looks only at those that are "
            "(preprocessing.crop_above); is the scan empty, or in another unit?"
        )
    return ScanError(what, source=volume.source or "scan")


def _mark_occupied(
    channel: Array,
    hidden: Flags | None,
    select: Selection,
    occupied: Sequence[Flags],
) -> None:
    """Mark along each axis, in place, which indices hold a voxel that is looked at."""
    outer, middle, inner = occupied
    voxels_per_plane = math.prod(channel.shape[1:])
    planes_at_once = max(1, _AT_ONCE // voxels_per_plane)
    for first in range(0, len(channel), planes_at_once):
        planes = slice(first, first + planes_at_once)
        intensities = channel[planes].astype(np.float32, copy=False)
        selected = select(intensities)
        if hidden is not None:
            selected = selected & ~hidden[planes]
        outer[planes] |= selected.any(axis=(1, 2))
        through_planes = np.any(selected, axis=0)
        middle |= through_planes.any(axis=1)
        inner |= through_planes.any(axis=0)


def _extent(flags: Flags, margin: int) -> slice:
    """Return from the first true flag to the last, and so many more to either side."""
    first = int(np.argmax(flags))
    behind_last = int(np.argmax(flags[::-1]))
    stop = len(flags) - behind_last
    return slice(max(0, first - margin), min(len(flags), stop + margin))
