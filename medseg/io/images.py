"""One image on disk ↔ one volume, whatever its format; channels together; label maps written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg._support.files import atomic_file, is_there, refuse_special
from medseg.errors import GeometryError, OutputError, ScanError
from medseg.io.dicom.volume import DICOM, read_series
from medseg.io.registry import (
    find_format,
    find_label_format,
    list_label_suffixes,
)
from medseg.io.voxels import as_labels
from medseg.padding import stack_padding
from medseg.volume import Volume

Files = str | Path | Sequence[str | Path]
"""One file or folder, or the files of one DICOM series."""


def read_image(
    files: Files, *, volume: str = "", resample_uneven: bool = False
) -> Volume:
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
        GeometryError: If its position in the patient is not certain.
    """
    paths = _require_paths(files)
    image_format = find_format(paths)
    if image_format is DICOM:
        image = read_series(
            paths, volume=volume, resample_uneven=resample_uneven
        )
    else:
        image = image_format.read(paths)
    return replace(image, is_picture=image_format.is_picture)


def read_labels(files: Files) -> Volume:
    """Read one label map with its own values.

    Args:
        files: As for ``read_image``.

    Returns:
        The smallest unsigned integers that hold the values, shape ``(1, i, j, k)``; a picture
        of true colours keeps its three channels.

    Raises:
        ScanError: If the file is broken, of no known kind, or holds values that are no labels.
        GeometryError: If its position in the patient is not certain.
    """
    paths = _require_paths(files)
    image_format = find_format(paths)
    labels = image_format.read_labels(paths)
    return replace(labels, is_picture=image_format.is_picture)


def stack_channels(volumes: Sequence[Volume]) -> Volume:
    """Put the channels of volumes that share one grid into one volume.

    Volumes that store the voxels of this grid in another order are brought into that of the first.

    Raises:
        GeometryError: If their grids differ in shape or position; it says by how much.
    """
    first, *others = volumes
    in_order = [first]
    for number, other in enumerate(others, start=2):
        what = f"the first channel file and channel file {number}"
        try:
            in_order.append(first.reorder_to_grid(other, what))
        except GeometryError as error:
            raise GeometryError(
                f"{error.message}; resample them to one grid first",
                source=error.source,
            ) from error
    if not others:
        return first
    array = np.concatenate([volume.array for volume in in_order])
    padding = stack_padding(
        [volume.padding for volume in in_order],
        [volume.array.shape for volume in in_order],
    )
    warnings: list[str] = []
    modalities: list[str] = []
    for number, volume in enumerate(volumes, start=1):
        modalities.extend(volume.modalities or ("",) * len(volume.array))
        # By number: a file's name may be a patient's, and warnings are recorded.
        warnings.extend(
            f"channel file {number}: {warning}" for warning in volume.warnings
        )
    return replace(
        first,
        array=array,
        warnings=tuple(warnings),
        modalities=tuple(modalities),
        padding=padding,
    )


def with_channels(volume: Volume, wanted: int) -> Volume:
    """Return the volume with the number of channels a network needs: grey becomes R = G = B.

    Raises:
        ScanError: If the number differs in any other way.
    """
    channels = volume.array.shape[0]
    if channels == wanted:
        return volume
    is_grey_picture = channels == 1 and volume.shape[2] == 1
    if is_grey_picture and wanted == 3:
        colours = np.broadcast_to(volume.array, (3, *volume.shape))
        padding = stack_padding([volume.padding] * 3, [volume.array.shape] * 3)
        return replace(volume, array=colours, padding=padding)
    raise ScanError(
        f"the scan has {channels} channel(s), the bundle needs {wanted}; give one file per "
        "channel, or use a bundle that was trained on such scans",
        source=volume.source,
    )


def write_labels(path: Path, labels: npt.NDArray[Any], like: Volume) -> None:
    """Write a label map on the grid of the scan it belongs to, whole or not at all.

    The same labels give the same bytes. Nothing in the file says who the patient is.

    Args:
        path: Ending in ``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha``, (one slice) ``.png``, or as
            an installed package writes label maps.
        labels: Integers from 0, shape ``(i, j, k)``; written as uint8, or wider if needed.
        like: The scan; its shape and affine are the result's.

    Raises:
        OutputError: If the ending is none of these, the values or the grid do not fit the
            format, or the file cannot be written.
    """
    if labels.shape != like.shape:
        raise OutputError(
            f"labels of shape {labels.shape} do not fit a scan of shape {like.shape}",
            source=path,
        )
    is_integer = labels.dtype.kind in "bui"
    if not is_integer or labels.min() < 0:
        raise OutputError(
            f"label maps hold integers from 0, got {labels.dtype}", source=path
        )
    image_format = find_label_format(path)
    if image_format is None or image_format.write_labels is None:
        suffixes = ", ".join(list_label_suffixes())
        raise OutputError(f"label maps are written as {suffixes}", source=path)
    smallest = as_labels(labels, path)
    with atomic_file(path) as temporary:
        image_format.write_labels(temporary, smallest, like)


def _require_paths(files: Files) -> Sequence[Path]:
    paths = (
        [Path(files)]
        if isinstance(files, str | Path)
        else [Path(file) for file in files]
    )
    if not paths:
        raise ScanError("there are no files to read")
    for path in paths:
        if not is_there(path):
            raise ScanError("no such file or folder", source=path)
        refuse_special(path)
    return paths
