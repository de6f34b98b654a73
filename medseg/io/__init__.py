"""Images on disk ↔ volumes: one contract (``contract.py``), one reader per kind of file.

``read_image`` and ``read_labels`` find the reader; training and batch use the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg._support.files import atomic_file
from medseg.errors import GeometryError, OutputError, ScanError
from medseg.io import itk, nifti
from medseg.io import pictures as picture
from medseg.io.dicom import volume as dicom
from medseg.io.dicom.series import Series, SkippedFile, find_series, group_series
from medseg.io.dicom.volume import DICOM, is_dicom
from medseg.io.formats import Format
from medseg.io.voxels import as_labels
from medseg.volume import Volume

__all__ = [
    "FORMATS",
    "Format",
    "Series",
    "SkippedFile",
    "find_format",
    "find_series",
    "group_series",
    "read_image",
    "read_labels",
    "stack_channels",
    "with_channels",
    "write_labels",
]

Files = str | Path | Sequence[str | Path]
"""One file or folder, or the files of one DICOM series."""

FORMATS: tuple[Format, ...] = (nifti.NIFTI, itk.ITK, picture.PICTURE, DICOM)

_WRITERS = {
    (".nii", ".nii.gz"): nifti.write_labels,
    (".nrrd", ".mha"): itk.write_labels,
    (".png",): picture.write_labels,
}


def read_image(files: Files, *, volume: str = "", resample_uneven: bool = False) -> Volume:
    """Read one image.

    Args:
        files: A file of any format, a folder that holds exactly one DICOM series, or the files
            of one DICOM series.
        volume: Which volume, where one DICOM file holds several; as ``find_series`` names it.
        resample_uneven: Whether DICOM slices at uneven distances are interpolated onto a
            regular grid, rather than refused.

    Returns:
        float32, shape ``(channels, i, j, k)``, affine RAS+ in mm; CT in HU.

    Raises:
        ScanError: If the file is broken or of no known kind.
        GeometryError: If its place in the patient is not certain.
    """
    paths = _existing(files)
    known = find_format(paths)
    if known is DICOM:
        return dicom.read(paths, volume=volume, resample_uneven=resample_uneven)
    return known.read(paths)


def read_labels(files: Files) -> Volume:
    """Read one label map with its own values.

    Args:
        files: As for ``read_image``.

    Returns:
        The smallest unsigned integers that hold the values, shape ``(1, i, j, k)``; a picture
        of true colours keeps its three channels.

    Raises:
        ScanError: If the file is broken, of no known kind, or holds values that are no labels.
        GeometryError: If its place in the patient is not certain.
    """
    paths = _existing(files)
    return find_format(paths).read_labels(paths)


def find_format(files: Sequence[Path]) -> Format:
    """Return the format of a scan's files, by their names' endings, DICOM by its content.

    Raises:
        ScanError: If no format claims them.
    """
    first = files[0]
    if len(files) > 1 or first.is_dir():
        return DICOM
    by_name = (
        known for known in FORMATS if first.name.lower().endswith(known.suffixes) and known.suffixes
    )
    found = next(by_name, None) or (DICOM if is_dicom(first) else None)
    if found is None:
        endings = ", ".join(suffix for known in FORMATS for suffix in known.suffixes)
        raise ScanError(
            f"{first.name}: not a known kind of image; DICOM and files ending in {endings} are read"
        )
    return found


def stack_channels(volumes: Sequence[Volume]) -> Volume:
    """Put the channels of volumes that share one grid into one volume.

    Raises:
        GeometryError: If their grids differ in shape or place; it says which and by how much.
    """
    first, *others = volumes
    for number, other in enumerate(others, start=2):
        if other.shape != first.shape:
            raise GeometryError(
                f"channel file {number} ({other.source}) has {other.shape} voxels, the first "
                f"({first.source}) has {first.shape}; resample them to one grid first"
            )
        if not first.on_same_grid(other):
            raise GeometryError(
                f"channel file {number} ({other.source}) lies {first.grid_distance(other):.2f} mm "
                f"away from the first ({first.source}); resample them to one grid first"
            )
    if not others:
        return first
    array = np.concatenate([volume.array for volume in volumes])
    warnings = tuple(f"{vol.source}: {warning}" for vol in volumes for warning in vol.warnings)
    return replace(first, array=array, warnings=warnings)


def with_channels(volume: Volume, wanted: int) -> Volume:
    """Return the volume with the number of channels a network wants: grey becomes R = G = B.

    Raises:
        ScanError: If the number differs in any other way.
    """
    channels = volume.array.shape[0]
    if channels == wanted:
        return volume
    if channels == 1 and wanted == 3 and volume.shape[2] == 1:
        return volume.with_array(np.broadcast_to(volume.array, (3, *volume.shape)))
    raise ScanError(
        f"{volume.source}: has {channels} channel(s), the bundle wants {wanted}; give one file "
        "per channel, or a bundle trained on such scans"
    )


def write_labels(path: Path, labels: npt.NDArray[Any], like: Volume) -> None:
    """Write a label map on the grid of the scan it belongs to, whole or not at all.

    The same labels give the same bytes. Nothing in the file says who the patient is.

    Args:
        path: Ending in ``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha`` or (one slice) ``.png``.
        labels: Integers from 0, shape ``(i, j, k)``; written as uint8, or wider if needed.
        like: The scan; its shape and affine are the result's.

    Raises:
        OutputError: If the ending is none of these, the values or the grid do not fit the
            format, or the file cannot be written.
    """
    if labels.shape != like.shape:
        raise OutputError(f"labels of shape {labels.shape} do not fit a scan of {like.shape}")
    if labels.dtype.kind not in "bui" or (labels.size and labels.min() < 0):
        raise OutputError(f"label maps hold integers from 0, got {labels.dtype}")
    name = path.name.lower()
    write = next((w for endings, w in _WRITERS.items() if name.endswith(endings)), None)
    if write is None:
        endings = ", ".join(suffix for group in _WRITERS for suffix in group)
        raise OutputError(f"{path.name}: label maps are written as {endings}")
    with atomic_file(path) as temporary:
        write(temporary, as_labels(labels, path.name), like)


def _existing(files: Files) -> Sequence[Path]:
    paths = [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]
    if not paths:
        raise ScanError("no files to read")
    missing = next((path for path in paths if not path.exists()), None)
    if missing is not None:
        raise ScanError(f"{missing.name}: no such file or folder")
    return paths
