"""NIfTI files (``.nii``, ``.nii.gz``) ↔ volumes, on nibabel's headers.

The affine is the one nibabel chooses: the sform if it has a code, else the qform, else the
voxel sizes alone. Voxels equal ``np.asanyarray(nibabel.load(path).dataobj)`` as float32.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError

from medseg.errors import GeometryError, OutputError, ScanError
from medseg.io.formats import Format, single_file
from medseg.io.gzip import (
    BROKEN_STREAM,
    max_inflated_bytes,
    open_gzip_writer,
    open_maybe_gzipped,
)
from medseg.io.voxels import as_labels, check_size, empty_image, replace_nonfinite
from medseg.volume import Affine, Volume

Header: TypeAlias = Any
"""A ``nibabel.Nifti1Header``; those of NIfTI-2 are a subclass."""
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_CHUNK = 1 << 20
_BLOCK = 1 << 18
"""Voxels read at a time."""
_GRID_FIELDS = (
    "qform_code",
    "sform_code",
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
_SAME_PLACE_MM = 1e-3
_FORMS_AGREE_MM = 0.1
_LARGEST_NIFTI1_AXIS = 32767


def read(files: Sequence[Path]) -> Volume:
    """Read one NIfTI file as an image, float32; the fourth axis becomes the channels.

    Voxels that are NaN or infinite become 0, with a warning.

    Raises:
        ScanError: If the file is broken or holds colours, complex numbers or five axes.
        GeometryError: If its affine is not finite or is singular.
    """
    path = single_file(files, "NIfTI")
    with _opened(path) as voxels:
        image = empty_image(voxels.shape, path.name)
        slope, inter = _scaling(voxels.header, path.name)
        flat = image.reshape(-1, order="F")
        with np.errstate(over="ignore", invalid="ignore"):
            # A little at a time: it stays in the processor's cache, and scaling works in float64.
            for first, block in voxels.blocks():
                flat[first : first + block.size] = _scaled(block, slope, inter)
    header, dtype = voxels.header, voxels.dtype
    warnings = () if dtype.kind in "iu" and slope is None else replace_nonfinite(image)
    return _volume(path, header, np.moveaxis(image, 3, 0), warnings)


def read_labels(files: Sequence[Path]) -> Volume:
    """Read one NIfTI file as a label map, shape ``(1, i, j, k)``, unsigned integers.

    Raises:
        ScanError: If the file is broken, has several channels or values that are no labels.
        GeometryError: If its affine is not finite or is singular.
    """
    path = single_file(files, "NIfTI")
    with _opened(path) as voxels:
        if voxels.shape[3] != 1:
            raise ScanError(
                f"{path.name}: a label map has one channel, this file has {voxels.shape[3]}"
            )
        header, stored = voxels.header, voxels.all()
    values = _scaled(stored, *_scaling(header, path.name))
    return _volume(path, header, np.moveaxis(as_labels(values, path.name), 3, 0), ())


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
    header = _label_header(labels, like)
    kind = nib.Nifti2Image if header["sizeof_hdr"] == 540 else nib.Nifti1Image
    # nibabel keeps the header as it stands when it is given the header's own affine.
    return kind(labels, header.get_best_affine(), header)


@dataclass(frozen=True, slots=True, eq=False)
class _Voxels:
    """The voxels of an open file, not read yet.

    Attributes:
        header: What the file says.
        shape: ``(i, j, k, channels)``.
        dtype: As they are stored.
        stream: Stands before the first.
        name: What errors call the file.
    """

    header: Header
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    stream: BinaryIO
    name: str

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Give the voxels in the order they are stored, some at a time, and which is the first."""
        size = self.dtype.itemsize
        count = math.prod(self.shape)
        for first in range(0, count, _BLOCK):
            wanted = min(_BLOCK, count - first)
            content = self.stream.read(wanted * size)
            if len(content) < wanted * size:
                raise ScanError(
                    f"{self.name}: truncated; {first * size + len(content):,} of "
                    f"{count * size:,} bytes of voxels are there"
                )
            yield first, np.frombuffer(content, self.dtype)

    def all(self) -> npt.NDArray[Any]:
        """Return all voxels as they are stored."""
        # Pages that are never written to take no memory, so a lying header takes none either.
        stored = np.empty(self.shape, self.dtype, order="F")
        flat = stored.reshape(-1, order="F")
        for first, block in self.blocks():
            flat[first : first + block.size] = block
        return stored


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Voxels]:
    """Open a file at its voxels; when they are read, compare the checksum behind them."""
    try:
        with open_maybe_gzipped(path) as stream:
            header = _header(stream, path.name)
            shape, dtype = _layout(header, path.name)
            offset = _offset(header, path.name)
            size = math.prod(shape) * dtype.itemsize
            if offset + size > max_inflated_bytes(path):
                raise ScanError(
                    f"{path.name}: the header promises {size:,} bytes of voxels, the file cannot "
                    "hold them; it is truncated or its header is wrong"
                )
            _skip(stream, offset - int(header["sizeof_hdr"]))
            yield _Voxels(header, shape, dtype, stream, path.name)
            # The checksum stands behind the last voxel; reading on has it compared.
            stream.read(_CHUNK)
    except BROKEN_STREAM as error:
        raise ScanError(
            f"{path.name}: cannot be read ({error}); the file is truncated or damaged"
        ) from error


def _header(stream: BinaryIO, name: str) -> Header:
    start = stream.read(4)
    sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")} & set(_HEADERS)
    if not sizes:
        raise ScanError(f"{name}: not a NIfTI file; its first bytes are no NIfTI header")
    size = sizes.pop()
    try:
        header = _HEADERS[size].from_fileobj(io.BytesIO(start + stream.read(size - 4)))
    except (HeaderDataError, WrapStructError, ValueError) as error:
        raise ScanError(f"{name}: the NIfTI header is broken: {error}") from error
    if not bytes(header["magic"]).startswith(b"n+"):
        raise ScanError(
            f"{name}: the header says that the voxels lie in another file (.img); save image and "
            "header as one .nii.gz"
        )
    return header


def _layout(header: Header, name: str) -> tuple[tuple[int, int, int, int], np.dtype[Any]]:
    try:
        shape = tuple(int(n) for n in header.get_data_shape())
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError, ValueError) as error:
        raise ScanError(f"{name}: the NIfTI header is broken: {error}") from error
    if dtype.kind not in "iuf":
        raise ScanError(
            f"{name}: voxels of type {dtype} (colours or complex numbers) are not segmented; save "
            "one number per voxel, colours as channels on the fourth axis"
        )
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if not 2 <= len(shape) <= 4:
        raise ScanError(
            f"{name}: {len(shape)} axes; three are needed, or four with the channels last"
        )
    check_size(shape, name)
    i, j, k, channels = (*shape, 1, 1)[:4]
    return (i, j, k, channels), dtype


def _offset(header: Header, name: str) -> int:
    offset = float(header["vox_offset"])
    if not math.isfinite(offset):
        raise ScanError(f"{name}: the NIfTI header is broken: its voxels begin at {offset}")
    return max(int(offset), int(header["sizeof_hdr"]))


def _skip(stream: BinaryIO, size: int) -> None:
    while size > 0:
        skipped = len(stream.read(min(size, _CHUNK)))
        if not skipped:
            raise EOFError("it ends before its voxels")
        size -= skipped


def _scaling(header: Header, name: str) -> tuple[float | None, float | None]:
    try:
        slope, inter = header.get_slope_inter()
    except HeaderDataError as error:
        raise ScanError(f"{name}: the intensity scaling in the header is broken: {error}") from None
    return slope, inter


def _scaled(raw: npt.NDArray[Any], slope: float | None, inter: float | None) -> npt.NDArray[Any]:
    if slope is None:
        return raw
    scaled: npt.NDArray[Any] = apply_read_scaling(raw, np.asanyarray(slope), np.asanyarray(inter))
    return scaled


def _volume(
    path: Path, header: Header, array: npt.NDArray[Any], warnings: tuple[str, ...]
) -> Volume:
    affine, doubts = _affine(header, path.name)
    return Volume(array, affine, path.name, (*doubts, *warnings), header)


def _affine(header: Header, name: str) -> tuple[Affine, tuple[str, ...]]:
    try:
        best = header.get_best_affine()
        qform = header.get_qform(coded=True)[0]
        sform = header.get_sform(coded=True)[0]
        units = header.get_xyzt_units()[0]
    except (HeaderDataError, ValueError, KeyError, np.linalg.LinAlgError) as error:
        raise GeometryError(f"{name}: the orientation in the header is broken: {error}") from error
    doubts = []
    if sform is None and qform is None:
        doubts.append(
            "the file has no orientation (sform and qform codes are 0); left and right are a guess"
        )
    if sform is not None and qform is not None:
        apart = _largest_distance(sform, qform, header.get_data_shape())
        if apart > _FORMS_AGREE_MM:
            doubts.append(f"sform and qform differ by up to {apart:.1f} mm; the sform is used")
    if units in ("meter", "micron"):
        doubts.append(f"the header gives lengths in {units}; they are taken as mm")
    return np.asarray(best, dtype=np.float64), tuple(doubts)


def _largest_distance(one: Affine, other: Affine, shape: Sequence[int]) -> float:
    size = (*shape, 1, 1)[:3]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in size])).reshape(3, -1)
    return float(np.abs((one - other) @ np.vstack([corners, np.ones(8)]))[:3].max())


def _label_header(labels: npt.NDArray[Any], like: Volume) -> Header:
    source = like.header if isinstance(like.header, nib.Nifti1Header) else None
    kind = nib.Nifti1Header
    if isinstance(source, nib.Nifti2Header) or max(labels.shape) > _LARGEST_NIFTI1_AXIS:
        kind = nib.Nifti2Header
    header = kind()
    header.set_data_dtype(labels.dtype)
    header.set_data_shape(labels.shape)
    header.set_xyzt_units("mm")
    if source is not None and np.allclose(source.get_best_affine(), like.affine, atol=1e-6):
        for field in _GRID_FIELDS:
            header[field] = source[field]
        header["pixdim"][:4] = source["pixdim"][:4]
        header["xyzt_units"] = int(source["xyzt_units"]) % 8
        return header
    return _with_affine(header, like.affine, labels.shape)


def _with_affine(header: Header, affine: Affine, shape: Sequence[int]) -> Header:
    if not np.isfinite(affine.astype(np.float32)).all():
        raise OutputError("the scan's affine is too large for a NIfTI header")
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner", strip_shears=True)
    if _largest_distance(header.get_qform(), affine, shape) > _SAME_PLACE_MM:
        header.set_qform(None, code="unknown")
    return header


NIFTI = Format("NIfTI", (".nii", ".nii.gz"), read, read_labels)
