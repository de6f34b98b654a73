"""DICOM Segmentation objects (SEG) → label maps, on the grid of their scan or on their own.

Binary, fractional and label map segmentations are read. Empty slices that a writer left out come
back as background.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import get_decoder

from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.files import MAX_HEADER_BYTES, PYDICOM_ERRORS, inflate, read_elements
from medseg.io.dicom.frames import Frame, read_frames
from medseg.io.dicom.grid_match import VoxelMatch, build_grid, require_same_frame_of_reference
from medseg.io.dicom.pixels import read_intensities, refuse_truncated
from medseg.io.voxels import check_size
from medseg.volume import Volume

Labels = npt.NDArray[Any]

LABEL_MAP_CLASS = "1.2.840.10008.5.1.4.1.1.66.7"
"""Label Map Segmentation Storage, newer than pydicom's list of names."""

_TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")
_BACKGROUND = ("125040", "DCM")
_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "FrameOfReferenceUID", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "SamplesPerPixel", "PixelPaddingValue", "ImageType"),
    *("SegmentationType", "MaximumFractionalValue", "SegmentSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_PIXEL_TAGS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
)


@dataclass(frozen=True, slots=True, eq=False)
class _Seg:
    """A SEG's header.

    Attributes:
        kind: One of ``_TYPES``.
        frames: Place and size of each frame.
        numbers: Segment number of each frame; 0 for all in a label map.
        names: Segment number → label, background left out.
        background: Pixel values of a label map that mean nothing is there.
        half: Lowest pixel value of a fractional segmentation that counts as inside.
        gap: Distance between slices as the header says, or ``None``.
    """

    kind: str
    frames: tuple[Frame, ...]
    numbers: tuple[int, ...]
    names: Mapping[int, str]
    background: frozenset[int]
    half: float
    gap: float | None


def read_dicom_seg(
    path: Path, like: Volume | None = None, segments: Sequence[str] | None = None
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
    seg = _header(path)
    if segments is not None:
        seg = _reduced(seg, segments)
    check_size((seg.frames[0].columns, seg.frames[0].rows, len(seg.frames)), path.name)
    refuse_truncated(seg.frames)
    if like is None:
        like = build_grid(seg.frames, seg.gap, path.name)
    require_same_frame_of_reference(seg.frames[0].frame_of_reference, like, path.name)
    labels, outside = _painted(seg, like, path.name)
    warnings = []
    if seg.kind == "FRACTIONAL":
        warnings.append("a fractional segmentation; what is at least half inside counts as inside")
    if outside:
        warnings.append(f"{outside} labelled pixels lie outside the scan and were left out")
    return Volume(labels[None], like.affine, path.name, tuple(warnings), dict(seg.names))


def read_segment_names(path: Path) -> Mapping[int, str]:
    """Return the segments' labels by number, background left out.

    Raises:
        ScanError: If the file is damaged or no segmentation.
    """
    return _header(path).names


def _reduced(seg: _Seg, wanted: Sequence[str]) -> _Seg:
    names = {number: name for number, name in seg.names.items() if name in wanted}
    return replace(seg, names=names, background=seg.background | (seg.names.keys() - names.keys()))


def _header(path: Path) -> _Seg:
    try:
        ds = read_elements(path, _TAGS)
        _refuse_foreign(ds)
        return _parsed(ds, tuple(read_frames(path, ds)))
    except ScanError as error:
        raise type(error)(f"{path.name}: {error}") from error
    except PYDICOM_ERRORS as error:
        raise ScanError(
            f"{path.name}: a damaged segmentation, or no DICOM ({type(error).__name__})"
        ) from error


def _refuse_foreign(ds: FileDataset) -> None:
    sop_class = str(ds.get("SOPClassUID") or "")
    if sop_class not in (uids.SegmentationStorage, LABEL_MAP_CLASS):
        raise ScanError("is no DICOM Segmentation (SEG) of voxels")
    if ds.get("SegmentationType") not in _TYPES:
        raise ScanError(
            f"a segmentation of the type {str(ds.get('SegmentationType'))[:16]}; "
            f"{', '.join(_TYPES)} are read"
        )
    if not ds.get("SegmentSequence"):
        raise ScanError("describes no segments")
    if ds.get("BitsAllocated") not in (1, 8, 16) or ds.get("SamplesPerPixel") != 1:
        raise ScanError(f"{ds.get('BitsAllocated')} bits per pixel; 1, 8 or 16 are read")


def _parsed(ds: FileDataset, frames: tuple[Frame, ...]) -> _Seg:
    segments = {int(item.SegmentNumber): item for item in ds.SegmentSequence}
    empty = {number for number, item in segments.items() if _is_background(item)}
    padding = ds.get("PixelPaddingValue")
    if padding is not None and int(padding) not in segments:
        empty.add(int(padding))
    numbers = (0,) * len(frames)
    if ds.SegmentationType != "LABELMAP":
        numbers = tuple(_numbers(ds))
        unknown = set(numbers) - set(segments)
        if unknown:
            raise ScanError(f"frames of segment {min(unknown)}, which is not described")
    shared = (ds.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    measures = (shared.get("PixelMeasuresSequence") or [Dataset()])[0]
    gap = measures.get("SpacingBetweenSlices")
    return _Seg(
        kind=str(ds.SegmentationType),
        frames=frames,
        numbers=numbers,
        names={
            number: str(item.get("SegmentLabel") or f"segment {number}")
            for number, item in segments.items()
            if number not in empty and number > 0
        },
        background=frozenset(empty | {0}),
        half=float(ds.get("MaximumFractionalValue") or 255) / 2,
        gap=None if gap is None else float(gap),
    )


def _is_background(segment: Dataset) -> bool:
    code = (segment.get("SegmentedPropertyTypeCodeSequence") or [Dataset()])[0]
    return (code.get("CodeValue"), code.get("CodingSchemeDesignator")) == _BACKGROUND


def _numbers(ds: FileDataset) -> Iterator[int]:
    shared = (ds.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for group in ds.PerFrameFunctionalGroupsSequence:
        item = group.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        yield int(item[0].ReferencedSegmentNumber)


def _painted(seg: _Seg, like: Volume, name: str) -> tuple[Labels, int]:
    """Return the label map on the grid of ``like`` and how many pixels lie outside it."""
    largest = max(seg.names, default=0)
    labels = np.zeros(like.shape, np.min_scalar_type(largest), order="F")
    inside = outside = 0
    for frame, number, pixels in zip(seg.frames, seg.numbers, _pixels(seg, name), strict=True):
        rows, columns, values = _shown(seg, number, pixels, name)
        if not values.size:
            continue
        voxels = VoxelMatch.of(frame, like, name).voxels(rows, columns)
        kept = ((voxels >= 0) & (voxels < np.array(like.shape)[:, None])).all(axis=0)
        there, values = tuple(voxels[:, kept]), values[kept]
        _refuse_overlap(labels[there], values, name)
        labels[there] = values
        inside += values.size
        outside += kept.size - values.size
    if outside and not inside:
        raise GeometryError(f"{name}: all it shows lies outside the scan; is it another scan's?")
    return labels, outside


def _shown(seg: _Seg, number: int, pixels: Labels, name: str) -> tuple[Labels, Labels, Labels]:
    """Return rows, columns and segment numbers of the pixels of a frame that show a segment."""
    if seg.kind == "LABELMAP":
        known = [*seg.names, *seg.background]
        unknown = np.setdiff1d(pixels, known)
        if unknown.size:
            raise ScanError(
                f"{name}: holds the value {int(unknown[0])}, which no segment describes"
            )
        rows, columns = np.nonzero(~np.isin(pixels, [*seg.background]))
        return rows, columns, pixels[rows, columns]
    inside = pixels >= seg.half if seg.kind == "FRACTIONAL" else pixels > 0
    rows, columns = np.nonzero(inside if number in seg.names else inside[:0])
    return rows, columns, np.full(rows.size, number)


def _refuse_overlap(there: Labels, new: Labels, name: str) -> None:
    both = (there > 0) & (there != new)
    if both.any():
        one, other = int(there[both][0]), int(new[both][0])
        raise ScanError(
            f"{name}: segments {one} and {other} overlap in {np.count_nonzero(both)} pixels of one "
            "slice; a label map holds one label per voxel, so save them as separate segmentations"
        )


def _pixels(seg: _Seg, name: str) -> Iterator[Labels]:
    """Give each frame's stored values; frames of packed bits are unpacked one at a time."""
    if seg.frames[0].storage == "encoded":
        yield from read_intensities(seg.frames)
        return
    first = seg.frames[0]
    try:
        packed = first.storage == "deflated"
        source = inflate(first.file, MAX_HEADER_BYTES + first.file_bytes) if packed else first.file
        ds = pydicom.dcmread(source, force=True, specific_tags=list(_PIXEL_TAGS))
        syntax = ds.file_meta.get("TransferSyntaxUID", uids.ImplicitVRLittleEndian)
        yield from _unpacked(ds, syntax, seg.frames)
    except PYDICOM_ERRORS as error:
        raise ScanError(
            f"{name}: its pixels cannot be read ({type(error).__name__}); the file is truncated"
        ) from error


def _unpacked(ds: FileDataset, syntax: uids.UID, frames: Sequence[Frame]) -> Iterator[Labels]:
    if syntax == uids.DeflatedExplicitVRLittleEndian:
        syntax = uids.ExplicitVRLittleEndian
    if ds.BitsAllocated > 1 or not syntax.is_little_endian:
        yield from (pixels for pixels, _ in get_decoder(syntax).iter_array(ds, raw=True))
        return
    # Frames follow each other bit by bit, and need not begin with a byte; not left to pydicom,
    # which loses its way in frames of a few bytes.
    packed = np.frombuffer(ds.PixelData, np.uint8)
    count = ds.Rows * ds.Columns
    for number in range(len(frames)):
        start = number * count
        here = packed[start // 8 : (start + count + 7) // 8]
        bits = np.unpackbits(here, bitorder="little")[start % 8 :][:count]
        yield bits.reshape(ds.Rows, ds.Columns)
