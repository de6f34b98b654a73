"""NIfTI files (``.nii``, ``.nii.gz``, pairs of ``.hdr`` and ``.img``) ↔ volumes.

What their headers mean is decided in ``nifti_headers.py``. Voxels equal
``np.asanyarray(nibabel.load(path).dataobj)`` as float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.volumeutils import apply_read_scaling

from medseg._support.gzip import open_gzip_writer
from medseg.affines import largest_corner_distance
from medseg.errors import OutputError, ScanError
from medseg.io.formats import Format, single_file
from medseg.io.nifti_affines import Header, read_affine
from medseg.io.nifti_headers import (
    PAIR_SUFFIXES,
    Scaling,
    find_image_file,
    read_dtype,
    read_header,
    read_scaling,
    read_shape,
)
from medseg.io.stored_voxels import (
    StoredVoxels,
    open_voxels,
    refuse_broken_stream,
)
from medseg.io.voxels import as_labels
from medseg.padding import replace_nonfinite
from medseg.volume import Affine, Volume

_GRID_FIELDS = (
    "qform_code",
    "sform_code",
    *(
        "quatern_b",
        "quatern_c",
        "quatern_d",
        "qoffset_x",
        "qoffset_y",
        "qoffset_z",
    ),
    *("srow_x", "srow_y", "srow_z"),
)
_SAME_PLACE_MM = 1e-3
_LARGEST_NIFTI1_AXIS = 32767
_TIME_UNITS = 8
"""``xyzt_units`` holds the unit of length below this, that of time above."""


def read(files: Sequence[Path]) -> Volume:
    """Read one NIfTI file as an image, float32; the fourth axis becomes the channels.

    Voxels that are NaN or infinite take the lowest value of their channel, with a warning.

    Raises:
        ScanError: If the file is broken or holds colours, complex numbers or five axes.
        GeometryError: If its affine is not finite or is singular.
    """
    path = single_file(files, "NIfTI")
    header, repairs = _read_header(path)
    scaling, doubts = read_scaling(header, path)
    with _open_voxels(header, path) as voxels:
        image = voxels.read_image(partial(_apply_scaling, scaling=scaling))
    warnings = (*repairs, *doubts)
    is_always_finite = voxels.dtype.kind in "iu" and scaling is None
    volume = _make_volume(header, path, np.moveaxis(image, 3, 0), warnings)
    if is_always_finite:
        return volume
    padding, remarks = replace_nonfinite(image, path)
    said = (*volume.warnings, *remarks)
    return replace(volume, warnings=said, padding=padding)


def read_labels(files: Sequence[Path]) -> Volume:
    """Read one NIfTI file as a label map, shape ``(1, i, j, k)``, unsigned integers.

    Raises:
        ScanError: If the file is broken, has several channels or values that are no labels.
        GeometryError: If its affine is not finite or is singular.
    """
    path = single_file(files, "NIfTI")
    header, repairs = _read_header(path)
    with _open_voxels(header, path) as voxels:
        channels = voxels.shape[3]
        if channels != 1:
            raise ScanError(
                f"a label map has one channel, this file has {channels}; save one label map per "
                "file",
                source=path,
            )
        stored = voxels.read_all()
    scaling, doubts = read_scaling(header, path)
    labels = as_labels(_apply_scaling(stored, scaling), path)
    array = np.moveaxis(labels, 3, 0)
    return _make_volume(header, path, array, (*repairs, *doubts))


def write_labels(path: Path, labels: npt.NDArray[Any], like: Volume) -> None:
    """Write unsigned ``labels``, shape ``(i, j, k)``, on the grid of ``like``; no identity in it.

    Where ``like`` came from a NIfTI file its sform and qform are repeated bit for bit. Else both
    hold the affine, or the sform alone where the grid is sheared, which a qform cannot say.
    """
    image = make_label_image(labels, like)
    with path.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            with open_gzip_writer(file) as stream:
                image.to_stream(stream)
        else:
            image.to_stream(file)


def make_label_image(labels: npt.NDArray[Any], like: Volume) -> Any:
    """Return unsigned ``labels``, shape ``(i, j, k)``, as a nibabel image on the grid of ``like``.

    Raises:
        OutputError: If the grid does not fit a NIfTI header.
    """
    header = _make_label_header(labels, like)
    kind = nib.Nifti2Image if header["sizeof_hdr"] == 540 else nib.Nifti1Image
    # nibabel keeps the header as it stands when it is given the header's own affine.
    return kind(labels, header.get_best_affine(), header)


def _read_header(path: Path) -> tuple[Header, tuple[str, ...]]:
    """Return the header and what was repaired in it."""
    with refuse_broken_stream(path):
        return read_header(path)


def _open_voxels(
    header: Header, path: Path
) -> contextlib.AbstractContextManager[StoredVoxels]:
    """Open the file of the voxels where they begin."""
    shape = read_shape(header, path)
    dtype = read_dtype(header, path)
    file = find_image_file(path)
    return open_voxels(path, file, int(header["vox_offset"]), shape, dtype)


def _apply_scaling(
    raw: npt.NDArray[Any], scaling: Scaling | None
) -> npt.NDArray[Any]:
    if scaling is None:
        return raw
    slope = np.asanyarray(scaling.slope)
    inter = np.asanyarray(scaling.inter)
    scaled: npt.NDArray[Any] = apply_read_scaling(raw, slope, inter)
    return scaled


def _make_volume(
    header: Header,
    path: Path,
    array: npt.NDArray[Any],
    warnings: tuple[str, ...],
) -> Volume:
    affine, doubts = read_affine(header, path)
    return Volume(array, affine, path.name, (*doubts, *warnings), header)


def _make_label_header(labels: npt.NDArray[Any], like: Volume) -> Header:
    source = like.header if isinstance(like.header, nib.Nifti1Header) else None
    is_large = max(labels.shape) > _LARGEST_NIFTI1_AXIS
    if is_large or isinstance(source, nib.Nifti2Header):
        header = nib.Nifti2Header()
    else:
        header = nib.Nifti1Header()
    header.set_data_dtype(labels.dtype)
    header.set_data_shape(labels.shape)
    header.set_xyzt_units("mm")
    if source is not None and _has_affine(source, like.affine):
        _copy_grid(source, header)
    else:
        _set_affine(header, like.affine, labels.shape)
    return header


def _has_affine(header: Header, affine: Affine) -> bool:
    return np.allclose(header.get_best_affine(), affine, atol=1e-6)


def _copy_grid(source: Header, target: Header) -> None:
    """Copy the scan's own numbers, so that rounding does not move the labels by a hair."""
    for field in _GRID_FIELDS:
        target[field] = source[field]
    target["pixdim"][:4] = source["pixdim"][:4]
    target["xyzt_units"] = int(source["xyzt_units"]) % _TIME_UNITS


def _set_affine(header: Header, affine: Affine, shape: Sequence[int]) -> None:
    stored = affine.astype(np.float32)
    if not np.isfinite(stored).all():
        raise OutputError("the scan's affine is too large for a NIfTI header")
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner", strip_shears=True)
    qform = header.get_qform()
    if largest_corner_distance(qform, affine, shape) > _SAME_PLACE_MM:
        # A qform cannot hold shear: better none than one that contradicts the sform.
        header.set_qform(None, code="unknown")


NIFTI = Format(
    "NIfTI",
    (".nii", ".nii.gz", *PAIR_SUFFIXES),
    read,
    read_labels,
    write_labels,
    label_suffixes=(".nii", ".nii.gz"),
)
