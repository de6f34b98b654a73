"""Headers of NIfTI files → which voxels they promise, and where in which file these lie.

nibabel decodes the fields. What it would repair in silence is refused or told: sizes of 0, a first
voxel inside the header. Where voxels lie in the patient is decided in ``nifti_affines.py``.

Source: the NIfTI-1 and NIfTI-2 headers (nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h).
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from medseg._support.gzip import open_maybe_gzipped
from medseg.errors import GeometryError, ScanError
from medseg.io.nifti_affines import Header, is_usable
from medseg.io.voxels import check_size

PAIR_SUFFIXES = (".hdr", ".hdr.gz")
"""Of headers whose voxels lie in an ``.img`` beside them."""

_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_EXTENSION_FLAG = 4
"""Bytes between the header and the first place voxels can have."""
_LEFT_ALONE = "leaving at current value"
"""How nibabel ends what it says of a field that it does not change."""

IMAGE_SUFFIXES = (".img", ".img.gz", ".IMG")
"""Of the voxels beside a ``.hdr`` file."""


class Scaling(NamedTuple):
    """How stored numbers become intensities: ``stored * slope + inter``."""

    slope: float
    inter: float


@dataclass(frozen=True, slots=True)
class _Repairs:
    """Takes what nibabel says of a header; its own logger prints on stderr, and names no file."""

    warnings: list[str]

    def log(self, level: int, message: str) -> None:
        """Keep what was put right; what was left as it was harms nothing."""
        if level >= logging.WARNING and not message.endswith(_LEFT_ALONE):
            self.warnings.append(f"the header was repaired: {message}")


@np.errstate(invalid="ignore")
def read_header(path: Path) -> tuple[Header, tuple[str, ...]]:
    """Read a header and refuse what nobody can read for certain.

    Args:
        path: A ``.nii`` file, or the ``.hdr`` of a pair; gzipped or not.

    Returns:
        The header as nibabel repairs it, and warnings that say what was repaired.

    Raises:
        ScanError: If it is no NIfTI header, is broken, or places voxels where none can be.
        GeometryError: If the place of its voxels follows from sizes that are none.
    """
    with open_maybe_gzipped(path) as stream:
        start = stream.read(4)
        sizes = {
            int.from_bytes(start, "little"),
            int.from_bytes(start, "big"),
        } & set(_HEADERS)
        if not sizes:
            raise ScanError(
                "not a NIfTI file: its first bytes are no NIfTI header",
                source=path,
            )
        size = sizes.pop()
        content = start + stream.read(size - len(start))
    try:
        header = _HEADERS[size].from_fileobj(io.BytesIO(content), check=False)
    except (HeaderDataError, WrapStructError, ValueError) as error:
        raise _broken_header(path, error) from error
    _check_kind(header, path)
    _check_offset(header, path)
    stated_sizes = header["pixdim"][:4].astype(float)
    _fill_unstated_sizes(header)
    repairs = _Repairs([])
    try:
        header.check_fix(logger=repairs)
    except (HeaderDataError, ValueError, KeyError) as error:
        raise _broken_header(path, error) from error
    _settle_sizes(header, stated_sizes, path)
    return header, tuple(repairs.warnings)


def is_pair(path: Path) -> bool:
    """Tell by its name whether a file is a header whose voxels lie in another file."""
    return path.name.lower().endswith(PAIR_SUFFIXES)


def find_image_file(path: Path) -> Path:
    """Return the file with the voxels of a ``.nii`` or ``.hdr`` file.

    Raises:
        ScanError: If there is none.
    """
    if not is_pair(path):
        return path
    stem = path.name[: path.name.lower().index(".hdr")]
    for suffix in IMAGE_SUFFIXES:
        image = path.with_name(stem + suffix)
        if image.is_file():
            return image
    raise ScanError(
        "its voxels must lie beside it, in an .img file of the same name; save it as .nii.gz",
        source=path,
    )


def read_shape(header: Header, path: Path) -> tuple[int, int, int, int]:
    """Return the sizes along i, j, k and the channels.

    Vectors stand on the fifth axis, behind an empty one for time, as ITK writes them.

    Raises:
        ScanError: If there are other axes, or sizes that no scan has.
    """
    try:
        shape = [int(n) for n in header.get_data_shape()]
    except (HeaderDataError, KeyError, ValueError) as error:
        raise _broken_header(path, error) from error
    shape = drop_empty_axes(shape)
    if not 2 <= len(shape) <= 4:
        raise ScanError(
            f"{len(shape)} axes; three are needed, or four with the channels last",
            source=path,
        )
    check_size(shape, path)
    i, j, k, channels = (*shape, 1, 1)[:4]
    return i, j, k, channels


def drop_empty_axes(stated: Sequence[int]) -> list[int]:
    """Return a shape without a fourth axis of length 1 before the fifth, and those at the end."""
    shape = list(stated)
    while len(shape) > 4 and shape[-1] == 1:
        shape.pop()
    has_vectors = len(shape) == 5 and shape[3] == 1
    if has_vectors:
        del shape[3]
    return shape


def read_dtype(header: Header, path: Path) -> np.dtype[Any]:
    """Return the number type of the stored voxels.

    Raises:
        ScanError: If they are no real numbers.
    """
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError, ValueError) as error:
        raise _broken_header(path, error) from error
    if dtype.kind not in "iuf":
        raise ScanError(
            f"voxels of type {dtype} (colours or complex numbers) cannot be segmented; save one "
            "number per voxel, colours as channels on the fourth axis",
            source=path,
        )
    return dtype


def read_scaling(
    header: Header, path: Path
) -> tuple[Scaling | None, tuple[str, ...]]:
    """Return ``scl_slope`` and ``scl_inter``, ``None`` where voxels are not scaled, and doubts.

    Raises:
        ScanError: If one of them is infinite, or the second is not a number beside a valid first.
    """
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0:
        return None, ()
    if math.isnan(slope):
        return None, (
            "the scale factor in the header is not a number; voxels are taken as stored",
        )
    if math.isinf(slope) or not math.isfinite(inter):
        raise ScanError(
            f"the intensity scaling in the header is broken (a factor of {slope:g}, and {inter:g} "
            "added); both must be finite",
            source=path,
        )
    return Scaling(slope, inter), ()


def _broken_header(path: Path, error: Exception) -> ScanError:
    return ScanError(
        "the NIfTI header is broken", source=path, detail=str(error)
    )


def _check_kind(header: Header, path: Path) -> None:
    """Refuse a header that is not NIfTI's, or states another kind of file than its name."""
    mark = bytes(header["magic"])[:2]
    if mark == b"ni" and not is_pair(path):
        raise ScanError(
            "the header states that the voxels lie in another file (.img); call it .hdr and keep "
            "that file beside it, or save both as one .nii.gz",
            source=path,
        )
    if mark == b"n+" and is_pair(path):
        raise ScanError(
            "the header states that the voxels follow in the same file; call it .nii",
            source=path,
        )
    if mark not in (b"ni", b"n+"):
        raise ScanError(
            "an Analyze 7.5 header, or a damaged NIfTI one: it does not say where left and right "
            "are; convert it to NIfTI with the program that wrote it",
            source=path,
        )


def _check_offset(header: Header, path: Path) -> None:
    """Refuse a first voxel inside the header: header bytes would come back as voxels."""
    offset = float(header["vox_offset"])
    header_size = int(header["sizeof_hdr"]) + _EXTENSION_FLAG
    lowest = 0 if is_pair(path) else header_size
    if not offset >= lowest or not offset.is_integer():
        raise ScanError(
            f"its voxels begin at byte {offset:g} (vox_offset) by the header, and can begin at "
            f"{lowest} or later; the header is damaged",
            source=path,
        )


def _fill_unstated_sizes(header: Header) -> None:
    """Put 1 where 0 is no fault: for the sign, and for axes that there are not."""
    sizes = header["pixdim"]
    for axis in (0, *range(_count_axes(header) + 1, 4)):
        if sizes[axis] == 0:
            sizes[axis] = 1


def _count_axes(header: Header) -> int:
    """Return how many spatial axes there are, whatever the header states."""
    return min(max(int(header["dim"][0]), 0), 3)


def _settle_sizes(
    header: Header, stated: npt.NDArray[np.float64], path: Path
) -> None:
    """Refuse sizes that are none where the affine is made of them; else take the sform's.

    Args:
        header: The header, in which nibabel has put 1 for them.
        stated: ``pixdim`` as the file states it: the sign of the third axis, then the sizes.
        path: The file, for errors.
    """
    sign, sizes = stated[0], stated[1 : _count_axes(header) + 1]
    is_size = np.isfinite(sizes) & (sizes > 0)
    sform = header.get_sform()
    if int(header["sform_code"]) and is_usable(sform):
        # Whoever reads the results by them gets the sizes that the sform has.
        steps = np.linalg.norm(sform[:3, : len(sizes)], axis=0)
        header["pixdim"][1 : len(sizes) + 1] = np.where(
            is_size, header["pixdim"][1 : len(sizes) + 1], steps
        )
        return
    if not is_size.all():
        listed = ", ".join(f"{size:g}" for size in sizes)
        raise GeometryError(
            f"the header gives voxels of {listed} mm (pixdim); each must be above 0; correct the "
            "header, or convert the images again",
            source=path,
        )
    is_certain = sign == -1 or sign >= 0
    if int(header["qform_code"]) and not is_certain:
        raise GeometryError(
            f"pixdim[0], which tells a mirrored qform, is {sign:g}; it must be 1 or -1",
            source=path,
        )
