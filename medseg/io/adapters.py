"""Images that other libraries hold ↔ volumes; nothing is resampled or turned on the way.

nibabel counts as medseg does (RAS+), SimpleITK in LPS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medseg._support.gzip import BROKEN_STREAM
from medseg.errors import GeometryError, ScanError
from medseg.io import Files, list_readable_suffixes, read_image, stack_channels
from medseg.io.dicom.volume import DICOM
from medseg.io.itk_headers import LPS_TO_RAS
from medseg.io.nifti_affines import NO_ORIENTATION, read_affine
from medseg.io.nifti_headers import (
    drop_empty_axes,
    read_header,
    read_scaling,
    read_shape,
)
from medseg.io.voxels import check_size, empty_image
from medseg.padding import join_padding, replace_nonfinite
from medseg.volume import Affine, Volume

Image: TypeAlias = Any
"""A nibabel image or a ``SimpleITK.Image``; neither library states types."""

# What nibabel raises where a file does not hold what its header promises.
_BROKEN: tuple[type[Exception], ...] = (
    *BROKEN_STREAM,
    *(ValueError, TypeError, ArithmeticError, MemoryError),
)


def as_volume(
    image: Volume | Files | Image | Sequence[Volume | Files | Image],
) -> Volume:
    """Return a volume of what a scan may be in Python.

    Args:
        image: A path of any image ``medseg segment`` reads, or of a folder with one DICOM series;
            the files of one; a nibabel image, whose fourth axis becomes the channels; a
            ``SimpleITK.Image`` of two or three dimensions, whose vectors become channels; a
            volume, which stays as it is; or a list of these, one per channel. A list of paths
            is taken for channels unless all of them are DICOM files. For arrays there is
            ``Volume.from_numpy``.

    Returns:
        float32, shape ``(channels, i, j, k)``, affine RAS+ in mm. Voxels that were NaN or
        infinite have the lowest value of their channel, with a warning.

    Raises:
        ScanError: If it is none of these, or its voxels are no real numbers.
        GeometryError: If its position in the patient is not certain, or channels do not lie on
            one grid.

    Examples:
        >>> image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([0.8, 0.8, 1.5, 1]))
        >>> as_volume(image).spacing
        (0.8, 0.8, 1.5)
    """
    if isinstance(image, Volume):
        return _make_finite(image)
    if isinstance(image, nib.spatialimages.SpatialImage):
        return _from_nibabel(image)
    # By name, because importing SimpleITK takes long and few callers have it loaded.
    if type(image).__module__.partition(".")[0] == "SimpleITK":
        return _from_sitk(image)
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Sequence):
        if _is_one_series(image):
            return read_image(image)
        return stack_channels([as_volume(channel) for channel in image])
    hint = (
        "; Volume.from_numpy takes arrays"
        if isinstance(image, np.ndarray)
        else ""
    )
    raise ScanError(
        f"a scan is a path, a Volume, a nibabel image or a SimpleITK image, got "
        f"{type(image).__name__}{hint}"
    )


def _make_finite(volume: Volume) -> Volume:
    """Return the volume, or a copy where a voxel is NaN or infinite."""
    # Both are NaN where a voxel is; a mask of the whole image would take much memory.
    extremes = volume.array.min(), volume.array.max()
    if np.isfinite(extremes).all():
        return volume
    array = volume.array.copy(order="K")
    channels_last = np.moveaxis(array, 0, 3)
    padding, warnings = replace_nonfinite(channels_last, volume.source)
    return replace(
        volume,
        array=array,
        warnings=(*volume.warnings, *warnings),
        padding=join_padding(padding, volume.padding),
    )


def _is_one_series(images: Sequence[object]) -> bool:
    """Tell whether a list holds the files of one DICOM series, rather than channels."""
    others = tuple(
        suffix
        for suffix in list_readable_suffixes()
        if suffix not in DICOM.suffixes
    )
    for image in images:
        if not isinstance(image, str | Path):
            return False
        path = Path(image)
        if path.is_dir() or path.name.lower().endswith(others):
            return False
    return True


def _from_nibabel(image: Image) -> Volume:
    source = image.get_filename() or "the nibabel image"
    if image.affine is None:
        raise GeometryError(
            "the image has no affine; nibabel images need one", source=source
        )
    try:
        repairs = _check_file(image)
        check_size(image.shape, source)
        array = np.asanyarray(image.dataobj)
    except _BROKEN as error:
        raise ScanError(
            "nibabel cannot read the voxels; the file is truncated, damaged or gone",
            source=source,
            detail=str(error),
        ) from error
    array = _with_four_axes(array, source)
    name = Path(image.get_filename() or "").name
    header = image.header
    if isinstance(header, nib.Nifti1Header):
        affine, doubts = read_affine(header, source, image.affine)
        warnings = (*repairs, *doubts)
        return _make_volume(array, affine, name, header, warnings)
    doubts = ()
    if isinstance(header, nib.analyze.AnalyzeHeader):
        doubts = (NO_ORIENTATION,)
    return _make_volume(array, image.affine, name, None, doubts)


def _check_file(image: Image) -> tuple[str, ...]:
    """Refuse voxels that still lie in a file which is refused; return warnings about its header.

    nibabel has repaired the header by now, so that it looks sound.
    """
    is_nifti = isinstance(image.header, nib.Nifti1Header)
    if not is_nifti or not nib.is_proxy(image.dataobj):
        return ()
    holders = image.file_map
    file = holders.get("header", holders["image"]).filename
    if file is None:
        return ()
    path = Path(file)
    header, repairs = read_header(path)
    read_shape(header, path)
    _, doubts = read_scaling(header, path)
    return (*repairs, *doubts)


def _with_four_axes(array: npt.NDArray[Any], source: str) -> npt.NDArray[Any]:
    """Return voxels ``(i, j, k, channels)`` of two to four axes, and of more that are empty."""
    array = array.reshape(drop_empty_axes(array.shape))
    if not 2 <= array.ndim <= 4:
        raise ScanError(
            f"the image has {array.ndim} axes; three are needed, or four with the channels last",
            source=source,
        )
    missing = 4 - array.ndim
    return array.reshape((*array.shape, *(1,) * missing))


def _from_sitk(image: Image) -> Volume:
    import SimpleITK as sitk  # noqa: N813

    dimensions = image.GetDimension()
    if dimensions not in (2, 3):
        raise ScanError(
            f"a SimpleITK image has two or three dimensions to be segmented, got {dimensions}"
        )
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        array = array[..., None]
    # SimpleITK's arrays run k, j, i; the components stay last.
    spatial_axes = list(range(dimensions))
    array = np.moveaxis(array, spatial_axes, spatial_axes[::-1])
    if dimensions == 2:
        array = array[:, :, None]
    directions = np.reshape(image.GetDirection(), (dimensions, dimensions))
    lps = np.eye(4)
    lps[:dimensions, :dimensions] = directions * np.array(image.GetSpacing())
    lps[:dimensions, 3] = image.GetOrigin()
    return _make_volume(array, LPS_TO_RAS @ lps, "", None)


def _make_volume(
    array: npt.NDArray[Any],
    affine: Affine,
    name: str,
    header: Any,
    doubts: tuple[str, ...] = (),
) -> Volume:
    """Make a volume of voxels ``(i, j, k, channels)``."""
    source = name or "the image"
    if array.dtype.kind not in "buif":
        raise ScanError(
            f"voxels of type {array.dtype} cannot be segmented; real numbers are needed",
            source=source,
        )
    voxels = empty_image(array.shape, source)
    with np.errstate(over="ignore"):
        voxels[...] = array
    padding, warnings = replace_nonfinite(voxels, source)
    array = np.moveaxis(voxels, 3, 0)
    return Volume(
        array, affine, name, (*doubts, *warnings), header, padding=padding
    )
