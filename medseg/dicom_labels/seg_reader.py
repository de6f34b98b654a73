"""DICOM Segmentation objects (SEG) → label maps, on the grid of their scan or on their own.

Binary, fractional and label map segmentations are read. Empty slices that a writer left out come
back as background.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import uid as uids
from pydicom.dataset import FileDataset
from pydicom.pixels import get_decoder

from medseg.dicom_labels.seg_header import SegHeader, read_seg_header
from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.files import (
    PYDICOM_ERRORS,
    attach_source,
    quote_error,
)
from medseg.io.dicom.grid_match import (
    Indices,
    VoxelMatch,
    build_grid,
    require_same_frame_of_reference,
)
from medseg.io.dicom.pixels import (
    FORMAT_KEYWORDS,
    open_pixels,
    read_intensities,
    refuse_excess,
    refuse_truncated,
)
from medseg.io.voxels import check_size
from medseg.volume import Volume

Labels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
_SegmentPixels = tuple[Indices, Indices, Labels]
"""Rows, columns and segment numbers of some pixels."""

_PIXEL_KEYWORDS = (*FORMAT_KEYWORDS, "PixelData")


def read_dicom_seg(
    path: Path,
    like: Volume | None = None,
    segments: Sequence[str] | None = None,
) -> Volume:
    """Read a DICOM SEG as a label map; voxel values are segment numbers.

    Args:
        path: The file.
        like: The scan it belongs to; without it, the grid is made of the segmentation's own
            frames, from its first to its last slice.
        segments: Labels of the segments to read, others count as background; all unless given.

    Returns:
        The smallest unsigned integers that hold the segment numbers, shape ``(1, i, j, k)``. The
        header is a dictionary, segment number → segment label.

    Raises:
        ScanError: If the file is damaged or no segmentation, or segments overlap: a label map
            holds one label per voxel.
        GeometryError: If its pixels are not voxels of ``like``, or its slices make up no grid.
    """
    with attach_source(path):
        return _read(path, like, segments)


def read_segment_names(path: Path) -> Mapping[int, str]:
    """Return the segments' labels by number, background left out.

    Raises:
        ScanError: If the file is damaged or no segmentation.
    """
    with attach_source(path):
        return read_seg_header(path).names


def _read(
    path: Path, like: Volume | None, segments: Sequence[str] | None
) -> Volume:
    seg = read_seg_header(path)
    if segments is not None:
        seg = _select_segments(seg, segments)
    first = seg.frames[0]
    own_shape = (first.columns, first.rows, len(seg.frames))
    check_size(own_shape, path)
    refuse_truncated(seg.frames)
    if like is None:
        like = build_grid(seg.frames, seg.gap, path)
    require_same_frame_of_reference(first.frame_of_reference, like)
    labels, outside = _draw_frames(seg, like)
    warnings = []
    if seg.kind == "FRACTIONAL":
        warnings.append(
            "a fractional segmentation; what is at least half inside counts as inside"
        )
    if outside:
        warnings.append(
            f"{outside} labelled pixels lie outside the scan and were left out"
        )
    names = dict(seg.names)
    return Volume(labels[None], like.affine, path.name, tuple(warnings), names)


def _select_segments(seg: SegHeader, wanted: Sequence[str]) -> SegHeader:
    """Return the header as if the segments of other labels were background."""
    names = {}
    background = set(seg.background)
    for number, name in seg.names.items():
        if name in wanted:
            names[number] = name
        else:
            background.add(number)
    return replace(seg, names=names, background=frozenset(background))


def _draw_frames(seg: SegHeader, like: Volume) -> tuple[Labels, int]:
    """Return the label map on the grid of ``like`` and how many pixels lie outside it."""
    largest = max(seg.names, default=0)
    dtype = np.min_scalar_type(largest)
    labels = np.zeros(like.shape, dtype, order="F")
    drawn = 0
    outside = 0
    all_pixels = _read_pixels(seg)
    for frame, number, pixels in zip(
        seg.frames, seg.numbers, all_pixels, strict=True
    ):
        rows, columns, values = _find_segments(seg, number, pixels)
        if not values.size:
            continue
        match = VoxelMatch.find(frame, like)
        voxels = match.locate(rows, columns)
        is_inside = _find_inside(voxels, like.shape)
        inner_voxels = voxels[:, is_inside]
        inner_values = values[is_inside]
        _draw(labels, inner_voxels, inner_values)
        drawn += inner_values.size
        outside += values.size - inner_values.size
    if outside and not drawn:
        raise GeometryError(
            "all segments lie outside the scan; give the scan they were drawn on"
        )
    return labels, outside


def _draw(labels: Labels, voxels: Indices, values: Labels) -> None:
    """Write segment numbers into voxels, shape ``(3, voxels)``; refuse those that have others."""
    i, j, k = voxels
    existing = labels[i, j, k]
    is_taken = (existing > 0) & (existing != values)
    taken = np.flatnonzero(is_taken)
    if taken.size:
        first = int(existing[taken[0]])
        second = int(values[taken[0]])
        raise ScanError(
            f"segments {first} and {second} overlap in {taken.size} pixels of one slice; a label "
            "map holds one label per voxel, so save them as separate segmentations"
        )
    labels[i, j, k] = values


def _find_inside(voxels: Indices, shape: tuple[int, int, int]) -> Mask:
    """Tell which voxels, shape ``(3, voxels)``, lie in a grid."""
    ends = np.array(shape)[:, None]
    is_below_end = voxels < ends
    is_from_start = voxels >= 0
    is_inside: Mask = np.all(is_from_start & is_below_end, axis=0)
    return is_inside


def _find_segments(
    seg: SegHeader, number: int, pixels: Labels
) -> _SegmentPixels:
    """Return rows, columns and segment numbers of the pixels of a frame that show a segment."""
    if seg.kind == "LABELMAP":
        return _find_labelled(seg, pixels)
    if number not in seg.names:
        pixels = pixels[:0]
    if seg.kind == "FRACTIONAL":
        is_inside = pixels >= seg.threshold
    else:
        is_inside = pixels > 0
    rows, columns = np.nonzero(is_inside)
    values = np.full(rows.size, number)
    return rows, columns, values


def _find_labelled(seg: SegHeader, pixels: Labels) -> _SegmentPixels:
    background = list(seg.background)
    described = [*seg.names, *background]
    unknown = np.setdiff1d(pixels, described)
    if unknown.size:
        value = int(unknown[0])
        raise ScanError(
            f"the label map contains the value {value}, which no segment describes"
        )
    is_background = np.isin(pixels, background)
    rows, columns = np.nonzero(~is_background)
    values = pixels[rows, columns]
    return rows, columns, values


def _read_pixels(seg: SegHeader) -> Iterator[Labels]:
    """Give each frame's stored values; frames of packed bits are unpacked one at a time."""
    first = seg.frames[0]
    if first.storage == "encoded":
        yield from read_intensities(seg.frames)
        return
    try:
        ds, syntax = open_pixels(first, _PIXEL_KEYWORDS)
        bits = first.pixels * len(seg.frames) * int(ds.BitsAllocated)
        refuse_excess(first, math.ceil(bits / 8), ds.PixelData)
        yield from _unpack_frames(ds, syntax, len(seg.frames))
    except PYDICOM_ERRORS as error:
        raise ScanError(
            "the pixels cannot be read; the file is truncated",
            detail=quote_error(error),
        ) from error


def _unpack_frames(
    ds: FileDataset, syntax: uids.UID, frames: int
) -> Iterator[Labels]:
    if syntax == uids.DeflatedExplicitVRLittleEndian:
        syntax = uids.ExplicitVRLittleEndian
    is_packed = ds.BitsAllocated == 1 and syntax.is_little_endian
    if not is_packed:
        decoder = get_decoder(syntax)
        for pixels, _ in decoder.iter_array(ds, raw=True):
            yield pixels
        return
    # Frames follow each other bit by bit, and need not begin with a byte; not left to pydicom,
    # which loses its way in frames of a few bytes.
    packed = np.frombuffer(ds.PixelData, np.uint8)
    shape = (ds.Rows, ds.Columns)
    bit_count = math.prod(shape)
    for index in range(frames):
        first_byte, first_bit = divmod(index * bit_count, 8)
        end_bit = first_bit + bit_count
        byte_count = (end_bit + 7) // 8
        end_byte = first_byte + byte_count
        frame_bytes = packed[first_byte:end_byte]
        bits = np.unpackbits(frame_bytes, bitorder="little")
        frame_bits = bits[first_bit:end_bit]
        yield frame_bits.reshape(shape)
