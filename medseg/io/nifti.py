"""NIfTI files (``.nii``, ``.nii.gz``, pairs of ``.hdr`` and ``.img``) ↔ volumes.

What their headers mean is decided in ``nifti_headers.py``. Voxels equal
``np.asanyarray(nibabel.load(path).dataobj)`` as float32.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.volumeutils import apply_read_scaling

from medseg._support.gzip import (
    BROKEN_STREAM,
    max_inflated_bytes,
    open_gzip_writer,
    open_maybe_gzipped,
)
from medseg.errors import OutputError, ScanError
from medseg.io.formats import Format, single_file
from medseg.io.nifti_headers import (
    PAIR_SUFFIXES,
    Header,
    Scaling,
    find_image_file,
    read_affine,
    read_dtype,
    read_header,
    read_scaling,
    read_shape,
)
from medseg.io.voxels import as_labels, empty_image
from medseg.volume import (
    Affine,
    Volume,
    largest_corner_distance,
    replace_nonfinite,
)

_CHUNK = 1 << 20
_BLOCK = 1 << 18
"""Voxels read at a time."""
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
    with _open_voxels(path) as voxels:
        scaling, warnings = read_scaling(voxels.header, path)
        image = _read_image(voxels, scaling)
    is_always_finite = voxels.dtype.kind in "iu" and scaling is None
    if not is_always_finite:
        warnings += replace_nonfinite(image, path)
    return _make_volume(voxels, np.moveaxis(image, 3, 0), warnings)


def read_labels(files: Sequence[Path]) -> Volume:
    """Read one NIfTI file as a label map, shape ``(1, i, j, k)``, unsigned integers.

    Raises:
        ScanError: If the file is broken, has several channels or values that are no labels.
        GeometryError: If its affine is not finite or is singular.
    """
    path = single_file(files, "NIfTI")
    with _open_voxels(path) as voxels:
        channels = voxels.shape[3]
        if channels != 1:
            raise ScanError(
                f"a label map has one channel, this file has {channels}; save one label map per "
                "file",
                source=path,
            )
        stored = voxels.read_all()
    scaling, warnings = read_scaling(voxels.header, path)
    labels = as_labels(_apply_scaling(stored, scaling), path)
    return _make_volume(voxels, np.moveaxis(labels, 3, 0), warnings)


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


@dataclass(frozen=True, slots=True, eq=False)
class _Voxels:
    """The voxels of an open file, not read yet.

    Attributes:
        header: What the file states.
        shape: ``(i, j, k, channels)``.
        dtype: As they are stored.
        stream: Stands before the first.
        path: The file, for errors.
        repairs: What of the header had to be repaired, as warnings.
    """

    header: Header
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    stream: BinaryIO
    path: Path
    repairs: tuple[str, ...]

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield the voxels in the order they are stored, some at a time, and which is the first.

        Raises:
            ScanError: If the file ends before the last voxel.
        """
        size = self.dtype.itemsize
        count = math.prod(self.shape)
        for first in range(0, count, _BLOCK):
            wanted = min(_BLOCK, count - first)
            content = self.stream.read(wanted * size)
            if len(content) < wanted * size:
                available = first * size + len(content)
                raise ScanError(
                    f"truncated: the file holds {available:,} of {count * size:,} bytes of "
                    "voxels; copy or download it again",
                    source=self.path,
                )
            yield first, np.frombuffer(content, self.dtype)

    def read_all(self) -> npt.NDArray[Any]:
        """Return all voxels as they are stored."""
        # Pages that are never written to take no memory, so a lying header takes none either.
        stored = np.empty(self.shape, self.dtype, order="F")
        flat = stored.reshape(-1, order="F")
        for first, block in self.blocks():
            behind = first + block.size
            flat[first:behind] = block
        return stored


def _read_image(
    voxels: _Voxels, scaling: Scaling | None
) -> npt.NDArray[np.float32]:
    """Return the voxels, scaled, as float32 ``(i, j, k, channels)``."""
    image = empty_image(voxels.shape, voxels.path)
    flat = image.reshape(-1, order="F")
    with np.errstate(over="ignore", invalid="ignore"):
        # A little at a time: it stays in the processor's cache, and scaling works in float64.
        for first, block in voxels.blocks():
            behind = first + block.size
            flat[first:behind] = _apply_scaling(block, scaling)
    return image


@contextlib.contextmanager
def _open_voxels(path: Path) -> Iterator[_Voxels]:
    """Open a file at its voxels; when they are read, compare the checksum behind them."""
    try:
        header, repairs = read_header(path)
        shape = read_shape(header, path)
        dtype = read_dtype(header, path)
        file = find_image_file(path)
        offset = int(header["vox_offset"])
        size = math.prod(shape) * dtype.itemsize
        if offset + size > max_inflated_bytes(file):
            raise ScanError(
                f"the header promises {size:,} bytes of voxels from byte {offset:,} on, more than "
                "the file can hold; it is truncated or its header is wrong",
                source=path,
            )
        with open_maybe_gzipped(file) as stream:
            _skip(stream, offset)
            yield _Voxels(header, shape, dtype, stream, path, repairs)
            # The checksum stands behind the last voxel; reading on has it compared.
            stream.read(_CHUNK)
    except BROKEN_STREAM as error:
        raise ScanError(
            "the file cannot be read; it is truncated or damaged",
            source=path,
            detail=str(error),
        ) from error


def _skip(stream: BinaryIO, size: int) -> None:
    while size > 0:
        skipped = len(stream.read(min(size, _CHUNK)))
        if not skipped:
            raise EOFError("it ends before its voxels")
        size -= skipped


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
    voxels: _Voxels,
    array: npt.NDArray[Any],
    warnings: tuple[str, ...],
) -> Volume:
    affine, doubts = read_affine(voxels.header, voxels.path)
    name = voxels.path.name
    said = (*voxels.repairs, *doubts, *warnings)
    return Volume(array, affine, name, said, voxels.header)


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
