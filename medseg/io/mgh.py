"""FreeSurfer's files (``.mgz``, ``.mgh``) → volumes, by nibabel's reading of their headers.

Voxels and affine equal those of ``nibabel.load``.

Source: surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nibabel.freesurfer.mghformat import DATA_OFFSET, MGHHeader

from medseg._support.gzip import open_maybe_gzipped
from medseg.errors import GeometryError, ScanError
from medseg.io.formats import Format, single_file
from medseg.io.itk_headers import describe_lengths
from medseg.io.nifti_affines import NO_ORIENTATION
from medseg.io.stored_voxels import (
    StoredVoxels,
    open_voxels,
    refuse_broken_stream,
)
from medseg.io.voxels import LARGEST_MM, as_labels, check_size
from medseg.padding import replace_nonfinite
from medseg.volume import Volume

_VERSION = 1
_FOOTER_BYTES = 20
_HAS_ORIENTATION = slice(28, 30)
"""Bytes that are 0 where the header states no orientation (``goodRASFlag``)."""


def read(files: Sequence[Path]) -> Volume:
    """Read one file as an image, float32; its frames become the channels.

    Raises:
        ScanError: If it is broken or its voxels are of no known type.
        GeometryError: If its voxels have no size.
    """
    path = single_file(files, "MGH")
    header, doubts = _read_header(path)
    with _open_voxels(header, path) as voxels:
        image = voxels.read_image(lambda stored: stored)
        _refuse_cut_footer(voxels)
    padding, remarks = replace_nonfinite(image, path)
    array = np.moveaxis(image, 3, 0)
    volume = _make_volume(header, path, array, (*doubts, *remarks))
    return replace(volume, padding=padding)


def read_labels(files: Sequence[Path]) -> Volume:
    """Read one file as a label map, shape ``(1, i, j, k)``, unsigned integers.

    Raises:
        ScanError: As for ``read``, or if it has several frames or values that are no labels.
        GeometryError: If its voxels have no size.
    """
    path = single_file(files, "MGH")
    header, doubts = _read_header(path)
    with _open_voxels(header, path) as voxels:
        frames = voxels.shape[3]
        if frames != 1:
            raise ScanError(
                f"a label map has one channel, this file has {frames}; save one label map per file",
                source=path,
            )
        stored = voxels.read_all()
        _refuse_cut_footer(voxels)
    labels = as_labels(stored, path)
    return _make_volume(header, path, np.moveaxis(labels, 3, 0), doubts)


def _read_header(path: Path) -> tuple[MGHHeader, tuple[str, ...]]:
    """Return the header and doubts."""
    with refuse_broken_stream(path), open_maybe_gzipped(path) as stream:
        content = stream.read(DATA_OFFSET)
    if len(content) < DATA_OFFSET:
        raise ScanError(
            "truncated: it ends inside its header; copy or download it again",
            source=path,
        )
    # Its footer stands behind the voxels and is not about their place.
    header = MGHHeader(content, check=False)
    if int(header["version"]) != _VERSION:
        raise ScanError(
            "not an MGH file: its first bytes are no such header", source=path
        )
    has_orientation = any(content[_HAS_ORIENTATION])
    return header, () if has_orientation else (NO_ORIENTATION,)


def _open_voxels(
    header: MGHHeader, path: Path
) -> contextlib.AbstractContextManager[StoredVoxels]:
    i, j, k, frames = (int(n) for n in header["dims"])
    check_size((i, j, k, frames), path)
    try:
        dtype = np.dtype(header.get_data_dtype()).newbyteorder(">")
    except KeyError:
        raise ScanError(
            "the number type of its voxels is not one of FreeSurfer's",
            source=path,
        ) from None
    return open_voxels(path, path, DATA_OFFSET, (i, j, k, frames), dtype)


def _refuse_cut_footer(voxels: StoredVoxels) -> None:
    """Refuse a file that ends inside the numbers behind its voxels; there may be none."""
    size = len(voxels.stream.read(_FOOTER_BYTES))
    if 0 < size < _FOOTER_BYTES:
        raise ScanError(
            "truncated: it ends inside its footer; copy or download it again",
            source=voxels.path,
        )


def _make_volume(
    header: MGHHeader,
    path: Path,
    array: npt.NDArray[np.generic],
    warnings: tuple[str, ...],
) -> Volume:
    sizes = header["delta"]
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise GeometryError(
            "the header gives voxels a size that is none; each must be above 0 mm",
            source=path,
        )
    with np.errstate(invalid="ignore", over="ignore"):
        affine = np.asarray(header.get_affine(), dtype=np.float64)
    if not np.abs(affine).max() <= LARGEST_MM:
        raise GeometryError(
            "the header states lengths that are impossible", source=path
        )
    directions = np.asarray(header["Mdc"].T, dtype=np.float64)
    said = (*warnings, *describe_lengths(directions))
    return Volume(array, affine, path.name, said)


MGH = Format("FreeSurfer MGH", (".mgz", ".mgh"), read, read_labels)
