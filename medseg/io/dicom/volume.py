"""DICOM series → volumes.

The rules, each of which is a test: slices are sorted by position along their normal; intensities
are rescaled slice by slice; missing slices, damaged files, colours, mosaics and slices without a
position are refused, and uneven slices, too, unless resampling them was asked for; exact copies,
localizers and slices of another size are left out with a warning; a tilted gantry's shear stays
in the affine; of a series that holds several volumes, one has to be named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.files import DICOM_SUFFIXES, attach_source
from medseg.io.dicom.frames import Frame, Frames
from medseg.io.dicom.geometry import (
    UnevenSpacingError,
    Warnings,
    compute_affine,
    group_by_position,
)
from medseg.io.dicom.header_groups import (
    group_headers,
    mark_torn_slices,
    set_stub_aside,
)
from medseg.io.dicom.headers import Header, read_header
from medseg.io.dicom.intensities import read_image, read_label_image
from medseg.io.dicom.pixels import read_intensities, refuse_truncated
from medseg.io.dicom.stacks import (
    Stack,
    split_by_instance_number,
    split_stacks,
)
from medseg.io.dicom.uneven_spacing import UnevenGrid
from medseg.io.formats import Format
from medseg.io.voxels import as_labels
from medseg.padding import join_padding, replace_nonfinite
from medseg.volume import Volume

_MOST_VOLUMES_LISTED = 4


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
        headers: Where the files are there no more, what stood in each before its pixels, as a
            DICOM file; else empty.
    """

    series: str
    files: tuple[Path, ...]
    frames: tuple[int, ...]
    sop_uids: tuple[str, ...]
    frame_of_reference: str
    planes: tuple[int, ...] = ()
    headers: Mapping[Path, bytes] = field(default_factory=dict, repr=False)


class SeveralSeriesError(ScanError):
    """Files hold several series, of which none was chosen."""


class SeveralVolumesError(GeometryError):
    """The files of one series hold several volumes, of which none was chosen."""


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM, by its content."""
    return read_header(path) is not None


def read_series(
    files: Sequence[Path], *, volume: str = "", resample_uneven: bool = False
) -> Volume:
    """Read the files of one DICOM series, or a folder that holds one, as an image.

    Args:
        files: The series' files or its folder.
        volume: Which volume to read where the files hold several: the ``volume_name`` of its
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
    source = _get_source(files)
    with attach_source(source):
        series = _read_headers(files)
        return _read_volume(series, source, volume, resample_uneven)


def read_label_series(files: Sequence[Path]) -> Volume:
    """Read one DICOM series whose intensities are label values.

    Raises:
        ScanError: As for ``read_series``, or if the intensities are no labels.
        GeometryError: As for ``read_series``.
    """
    source = _get_source(files)
    with attach_source(source):
        series = replace(_read_headers(files), is_label=True)
        volume = _read_volume(series, source)
    labels = as_labels(volume.array, source)
    return replace(volume, array=labels, padding=None)


def _get_source(files: Sequence[Path]) -> Path:
    """Return the file or folder that errors name: a series lies in a folder."""
    first = files[0]
    if len(files) == 1:
        return first
    return first.parent


@dataclass(frozen=True, slots=True)
class _SeriesHeaders:
    """The headers of one series.

    Attributes:
        uid: Series Instance UID, or empty.
        modality: ``CT``, ``MR``, …
        frames: Its slices.
        warnings: Why files were left out.
        regions: Regions of the body that they name.
        is_label: Whether its intensities are label values.
    """

    uid: str
    modality: str
    frames: tuple[Frame, ...]
    warnings: Warnings
    regions: tuple[str, ...] = ()
    is_label: bool = False


def _read_volume(
    series: _SeriesHeaders,
    source: Path,
    volume: str = "",
    resample_uneven: bool = False,
) -> Volume:
    stack, left_out = _choose_stack(series.frames, volume)
    frames, copies = _drop_copies(stack)
    slices = _make_slices(series.uid, frames)
    grid = None
    try:
        affine, remarks = compute_affine(frames)
    except UnevenSpacingError:
        if not resample_uneven:
            raise
        grid = UnevenGrid.fit(frames)
        affine = grid.affine
        remarks = (grid.describe(),)
    padding = None
    if series.is_label:
        image, doubts = read_label_image(frames, source)
    else:
        image, padding, doubts = read_image(frames, source, series.modality)
    if grid is not None:
        image = grid.resample(image, source)
        padding = grid.resample_padding(padding, source)
        slices = replace(slices, planes=grid.nearest_planes)
    strange, strange_values = replace_nonfinite(image)
    doubts += strange_values
    warnings = (*series.warnings, *left_out, *copies, *remarks, *doubts)
    return Volume(
        image[None],
        affine,
        source.name,
        warnings,
        slices,
        modalities=(series.modality,),
        regions=series.regions,
        padding=join_padding(padding, strange),
    )


def _list_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files given, and those in folders given."""
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        below = sorted(path.rglob("*"))
        for file in below:
            # Companions of an archive begin with "._", and may be called .dcm behind that.
            is_hidden = file.name.startswith(".")
            if not is_hidden and not file.is_dir():
                files.append(file)
    return files


def _read_headers(files: Iterable[Path]) -> _SeriesHeaders:
    """Read all headers; those of files that are no images are only counted."""
    headers, reasons = _read_image_headers(_list_files(files))
    slices, stub = set_stub_aside(headers)
    if stub is not None:
        reasons.append(
            "1 damaged DICOM file left out that holds nothing; if it was a slice, the scan lacks "
            "its first or its last one"
        )
    _require_one_series(slices)
    frames: list[Frame] = []
    modality = ""
    regions: tuple[str, ...] = ()
    for header in slices:
        frames.extend(header.frames)
        modality = modality or header.modality
        regions = regions or header.regions
    return _SeriesHeaders(
        slices[0].series,
        modality,
        tuple(frames),
        tuple(reasons),
        regions,
    )


def _read_image_headers(
    files: Iterable[Path],
) -> tuple[list[Header], list[str]]:
    """Return the headers of images, and why other files were left out."""
    found: list[Header] = []
    excluded: Counter[str] = Counter()
    for file in files:
        header = read_header(file)
        if header is None:
            excluded["not DICOM"] += 1
        else:
            found.append(header)
    headers = []
    for header in mark_torn_slices(found):
        if header.exclusion:
            excluded[header.exclusion] += 1
        else:
            headers.append(header)
    reasons = []
    for reason, count in excluded.items():
        reasons.append(f"{count} file(s) left out: {reason}")
    if not headers:
        summary = "; ".join(reasons) or "no files"
        raise ScanError(
            f"there is no DICOM image of a volume ({summary}); of a folder only DICOM is read: "
            "give an image of another format as a file"
        )
    return headers, reasons


def _require_one_series(headers: Sequence[Header]) -> None:
    """Refuse headers of several series, and those of one that has a file with an error."""
    groups, _ = group_headers(headers)
    if len(groups) > 1:
        raise SeveralSeriesError(
            f"the files hold {len(groups)} DICOM series; read them one by one, as "
            "find_series lists them"
        )
    for header in headers:
        if header.error is not None:
            raise header.error


def _choose_stack(frames: Frames, volume: str) -> tuple[Stack, Warnings]:
    """Return the stack of a volume's name, the only one if none is given, and warnings."""
    frames_of_reference = {frame.frame_of_reference for frame in frames}
    frames_of_reference.discard("")
    if len(frames_of_reference) > 1:
        raise GeometryError(
            "the slices have different frames of reference, so their positions cannot be compared"
        )
    stacks, left_out = split_stacks(frames)
    warnings = tuple(left_out)
    if volume:
        stack = _find_stack(stacks, volume)
        return stack, warnings
    if len(stacks) > 1:
        raise SeveralVolumesError(
            f"the files hold {len(stacks)} volumes; read them one by one, as find_series "
            "lists them",
            detail=_list_volumes(stacks),
        )
    only_stack = stacks[0]
    return only_stack, warnings


def _find_stack(stacks: Sequence[Stack], volume: str) -> Stack:
    matches = [stack for stack in stacks if stack.volume_name == volume]
    if len(matches) != 1:
        raise ScanError(
            f"the files hold {len(matches)} volumes of the requested name; exactly "
            "one is needed, and find_series lists those there are",
            detail=f"asked for '{volume}'",
        )
    return matches[0]


def _list_volumes(stacks: Sequence[Stack]) -> str:
    names = [stack.volume_name for stack in stacks[:_MOST_VOLUMES_LISTED]]
    if len(stacks) > _MOST_VOLUMES_LISTED:
        names.append("…")
    return "; ".join(names)


def _drop_copies(stack: Stack) -> tuple[list[Frame], Warnings]:
    """Return one frame per position, in order; slices at one position must be equal."""
    groups = group_by_position(stack.frames)
    frames = [group[0] for group in groups]
    count = len(stack.frames)
    copies = count - len(groups)
    if not copies:
        return frames, ()
    refuse_truncated(stack.frames)
    for group in groups:
        if len(group) > 1 and not _are_copies(group):
            raise GeometryError(
                f"{count} slices lie at {len(groups)} positions, and no element of their headers "
                f"tells the volumes apart; {_suggest_split(stack.frames)}"
            )
    warning = f"{copies} exact duplicates of slices left out"
    return frames, (warning,)


def _suggest_split(frames: Frames) -> str:
    if split_by_instance_number(frames):
        return "their instance numbers may: pass --split-4d instance-number"
    return "neither do their instance numbers, so convert the series with dcm2niix first"


def _are_copies(frames: Frames) -> bool:
    first, *others = read_intensities(frames)
    return all(np.array_equal(first, other) for other in others)


def _make_slices(series: str, frames: Frames) -> Slices:
    files = [frame.file for frame in frames]
    indices = [frame.index for frame in frames]
    sop_uids = [frame.sop_uid for frame in frames]
    frame_of_reference = ""
    for frame in frames:
        frame_of_reference = frame_of_reference or frame.frame_of_reference
    return Slices(
        series=series,
        files=tuple(files),
        frames=tuple(indices),
        sop_uids=tuple(sop_uids),
        frame_of_reference=frame_of_reference,
    )


DICOM = Format("DICOM", DICOM_SUFFIXES, read_series, read_label_series)
