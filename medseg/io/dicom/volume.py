"""DICOM series → volumes.

The rules, each of which is a test: slices are sorted by position along their normal; intensities
are rescaled slice by slice; missing slices, damaged files, colours, mosaics and slices without a
place are refused, and uneven slices, too, unless resampling them was asked for; exact copies,
localizers and slices of another size are left out with a warning; a tilted gantry's shear stays
in the affine; of a series that holds several volumes, one has to be named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.files import DICOM_SUFFIXES
from medseg.io.dicom.frames import Frame
from medseg.io.dicom.geometry import (
    Stack,
    UnevenSpacingError,
    compute_affine,
    group_by_position,
    split_stacks,
)
from medseg.io.dicom.headers import Header, read_header
from medseg.io.dicom.pixels import read_intensities, refuse_truncated
from medseg.io.dicom.series import group_headers
from medseg.io.dicom.uneven_spacing import UnevenGrid
from medseg.io.formats import Format
from medseg.io.voxels import as_labels, empty_image, replace_nonfinite
from medseg.volume import Volume


@dataclass(frozen=True, slots=True)
class Slices:
    """Where each slice of a volume came from, in order of ``k``; what a SEG writer needs.

    Attributes:
        series: Series Instance UID, or empty.
        files: The file of each slice.
        frames: Which frame of its file, from 0.
        sop_uids: SOP Instance UID of each file, or empty.
        frame_of_reference: Frame of Reference UID, or empty.
        planes: Where the volume was resampled because its slices lie at uneven distances, the
            plane that each slice is nearest to; else empty: slice ``k`` is plane ``k``.
    """

    series: str
    files: tuple[Path, ...]
    frames: tuple[int, ...]
    sop_uids: tuple[str, ...]
    frame_of_reference: str
    planes: tuple[int, ...] = ()


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM, by its content."""
    return read_header(path) is not None


def read(files: Sequence[Path], *, volume: str = "", resample_uneven: bool = False) -> Volume:
    """Read the files of one DICOM series, or a folder that holds one, as an image.

    Args:
        files: The series' files or its folder.
        volume: Which volume to read where the files hold several: the ``part`` of its
            ``Series``.
        resample_uneven: Whether slices at uneven distances are interpolated onto a regular
            grid, rather than refused.

    Returns:
        float32, shape ``(1, i, j, k)``: ``i`` along the rows' direction, ``j`` along the
        columns', ``k`` along the slices' normal. The header is ``Slices``.

    Raises:
        ScanError: If a file is damaged, or there is no image or more than one series.
        GeometryError: If the slices are no single, complete, even stack.
    """
    name = files[0].name if len(files) == 1 else files[0].parent.name
    series, headers, warnings = _one_series(_listed(files), name)
    stack, left_out = _one_stack(headers, name, volume)
    frames, copies = _without_copies(stack, name)
    slices = _slices(series, frames)
    try:
        affine, doubts = compute_affine(frames, name)
        image = _image(frames, name)
    except UnevenSpacingError:
        if not resample_uneven:
            raise
        uneven = UnevenGrid.of(frames, name)
        affine, doubts = uneven.affine, (uneven.said(),)
        image = uneven.resample(_image(frames, name), name)
        slices = replace(slices, planes=uneven.nearest_planes)
    warnings = (*warnings, *left_out, *copies, *doubts, *replace_nonfinite(image))
    return Volume(image[None], affine, name, warnings, slices)


def read_labels(files: Sequence[Path]) -> Volume:
    """Read one DICOM series whose intensities are label values.

    Raises:
        ScanError: As for ``read``, or if the intensities are no labels.
        GeometryError: As for ``read``.
    """
    volume = read(files)
    return replace(volume, array=as_labels(volume.array, volume.source))


def _listed(files: Sequence[Path]) -> list[Path]:
    listed: list[Path] = []
    for path in files:
        inside = (file for file in path.rglob("*") if not file.is_dir())
        listed += sorted(inside) if path.is_dir() else [path]
    return listed


def _one_series(files: Iterable[Path], name: str) -> tuple[str, list[Header], tuple[str, ...]]:
    """Read all headers; return the series' UID, its headers and what was left aside."""
    found: list[Header] = []
    aside: Counter[str] = Counter()
    for file in files:
        header = read_header(file)
        if header is None:
            aside["not DICOM"] += 1
        elif header.aside:
            aside[header.aside] += 1
        else:
            found.append(header)
    reasons = tuple(f"{count} file(s) left out: {why}" for why, count in aside.items())
    if not found:
        raise ScanError(f"{name}: no DICOM image of a volume ({'; '.join(reasons) or 'empty'})")
    groups, _ = group_headers(found)
    if len(groups) > 1:
        raise ScanError(
            f"{name}: holds {len(groups)} DICOM series; read them one by one, as find_series "
            "lists them"
        )
    faulty = next((header for header in found if header.fault), None)
    if faulty is not None and faulty.fault is not None:
        raise type(faulty.fault)(f"{faulty.file.name}: {faulty.fault}")
    return found[0].series, found, reasons


def _one_stack(headers: Sequence[Header], name: str, volume: str) -> tuple[Stack, tuple[str, ...]]:
    frames = [frame for header in headers for frame in header.frames]
    if len({frame.frame_of_reference for frame in frames if frame.frame_of_reference}) > 1:
        raise GeometryError(
            f"{name}: its slices have different frames of reference, so their places cannot be "
            "compared"
        )
    stacks, warnings = split_stacks(frames)
    if volume:
        chosen = [stack for stack in stacks if stack.part == volume]
        if len(chosen) != 1:
            raise ScanError(f"{name}: holds no volume '{volume}', or several")
        return chosen[0], tuple(warnings)
    if len(stacks) > 1:
        parts = "; ".join(stack.part for stack in stacks[:4])
        raise GeometryError(
            f"{name}: holds {len(stacks)} volumes ({parts}{'; …' * (len(stacks) > 4)}); read them "
            "one by one, as find_series lists them"
        )
    return stacks[0], tuple(warnings)


def _without_copies(stack: Stack, name: str) -> tuple[list[Frame], tuple[str, ...]]:
    """Return one frame per place, in order; slices at one place must be equal."""
    places = group_by_position(stack.frames)
    shared = [place for place in places if len(place) > 1]
    if not shared:
        return [place[0] for place in places], ()
    refuse_truncated(stack.frames)
    for place in shared:
        first, *others = read_intensities(place)
        if not all(np.array_equal(first, other) for other in others):
            raise GeometryError(
                f"{name}: {len(stack.frames)} slices lie at {len(places)} places, and nothing in "
                "their headers tells the volumes apart"
            )
    copies = len(stack.frames) - len(places)
    return [place[0] for place in places], (f"{copies} exact copies of slices left out",)


def _image(frames: Sequence[Frame], name: str) -> npt.NDArray[np.float32]:
    refuse_truncated(frames)
    image = empty_image((frames[0].columns, frames[0].rows, len(frames)), name)
    with np.errstate(over="ignore"):
        for k, pixels in enumerate(read_intensities(frames)):
            image[:, :, k] = pixels.T
    return image


def _slices(series: str, frames: Sequence[Frame]) -> Slices:
    return Slices(
        series,
        tuple(frame.file for frame in frames),
        tuple(frame.number for frame in frames),
        tuple(frame.sop_uid for frame in frames),
        next((frame.frame_of_reference for frame in frames if frame.frame_of_reference), ""),
    )


DICOM = Format("DICOM", DICOM_SUFFIXES, read, read_labels)
