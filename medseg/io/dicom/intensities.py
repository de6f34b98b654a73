"""Frames of one volume → its image: rescaled slice by slice, padding filled, scaling compared."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np

from medseg.errors import ScanError
from medseg.io.dicom.frames import Frame, Frames
from medseg.io.dicom.padding import Image, fill_padding
from medseg.io.dicom.pixels import read_planes, refuse_truncated
from medseg.io.voxels import empty_image
from medseg.padding import Padding

Warnings = tuple[str, ...]

_MUCH_BETTER = 0.5
"""Neighbours of a damaged slice differ from it by this share at most, once that is mended."""


def read_image(
    frames: Frames, source: Path, modality: str
) -> tuple[Image, Padding | None, Warnings]:
    """Read the intensities of frames, in order of ``k``.

    Args:
        frames: The frames, one per position.
        source: The series' file or folder, for errors.
        modality: What the header says: in CT padding becomes air, elsewhere the lowest value.

    Returns:
        Shape ``(i, j, k)``; which voxels are padding; and warnings.

    Raises:
        ScanError: If pixels cannot be read, or slices of a CT were scaled unlike their
            neighbours.
    """
    image, declared, warnings = _read_planes(frames, source)
    is_ct = modality == "CT"
    padding, doubts = fill_padding(image, declared, is_ct=is_ct)
    if is_ct:
        doubts += _compare_scalings(image, frames, padding)
    return image, padding, (*warnings, *doubts)


def read_label_image(frames: Frames, source: Path) -> tuple[Image, Warnings]:
    """Read frames whose intensities are label values: padding is no value of its own."""
    image, _, warnings = _read_planes(frames, source)
    return image, warnings


def _read_planes(
    frames: Frames, source: Path
) -> tuple[Image, Padding, Warnings]:
    refuse_truncated(frames)
    first = frames[0]
    shape = (first.columns, first.rows, len(frames))
    image = empty_image(shape, source)
    padding = Padding((1, *shape))
    strays = 0
    planes = read_planes(frames)
    for k, plane in enumerate(planes):
        # Values beyond float32 become infinite, which is told of later.
        with np.errstate(over="ignore"):
            image[:, :, k] = plane.intensities.T
        strays += plane.stray_pixels
        if plane.is_padding is not None:
            padding.add(k, plane.is_padding.T)
    return image, padding, _describe_strays(strays, image.size)


def _describe_strays(strays: int, count: int) -> Warnings:
    if not strays:
        return ()
    return (
        f"{strays} of {count} pixels hold something in bits that BitsStored and HighBit leave "
        "out; those bits were not read. If they are no overlay, the intensities are wrong",
    )


# --- scaling ------------------------------------------------------------------------------


def _compare_scalings(
    image: Image, frames: Frames, padding: Padding | None
) -> Warnings:
    """Compare slices of a CT that have another slope or intercept than the next one.

    A slice may have its own, as in PET. But if it continued its neighbour much better with the
    neighbour's, its header is damaged.

    Raises:
        ScanError: If slices are damaged; its source is one of their files.
    """
    scalings = Counter((frame.slope, frame.intercept) for frame in frames)
    if len(scalings) == 1:
        return ()
    as_stated = 0.0
    as_neighbour = 0.0
    for k, (frame, after) in enumerate(pairwise(frames)):
        if _have_one_scaling(frame, after):
            continue
        slab = image[:, :, k]
        next_slab = image[:, :, k + 1]
        rescaled = _rescale(next_slab, after, frame)
        if padding:
            is_shown = ~(padding.get(k) | padding.get(k + 1))
            slab = slab[is_shown]
            next_slab = next_slab[is_shown]
            rescaled = rescaled[is_shown]
        as_stated += _measure_step(slab, next_slab)
        as_neighbour += _measure_step(slab, rescaled)
    if as_neighbour < _MUCH_BETTER * as_stated:
        raise ScanError(
            "slices of this CT have another RescaleSlope or RescaleIntercept than the rest, and "
            "continue it only without it; their header is damaged, export the series again",
            source=_find_odd_frame(frames, scalings).file,
        )
    return (
        f"the slices of this CT have {len(scalings)} different pairs of RescaleSlope and "
        "RescaleIntercept; each was read by its own",
    )


def _have_one_scaling(first: Frame, second: Frame) -> bool:
    if first.slope != second.slope:
        return False
    return first.intercept == second.intercept


def _rescale(slab: Image, stated: Frame, wanted: Frame) -> Image:
    """Return intensities as they would be by the slope and the intercept of another frame."""
    stored = (slab - stated.intercept) / stated.slope
    rescaled: Image = stored * wanted.slope + wanted.intercept
    return rescaled


def _measure_step(slab: Image, next_slab: Image) -> float:
    with np.errstate(invalid="ignore"):
        differences = np.abs(next_slab - slab)
    are_numbers = np.isfinite(differences)
    finite = differences[are_numbers]
    return float(finite.mean()) if finite.size else 0.0


def _find_odd_frame(
    frames: Frames, scalings: Counter[tuple[float, float]]
) -> Frame:
    """Return a frame of the rarest scaling."""

    def count_alike(frame: Frame) -> int:
        return scalings[frame.slope, frame.intercept]

    return min(frames, key=count_alike)
