"""What a scan may be in Python → volumes; nothing is resampled or turned on the way.

nibabel counts as medseg does (RAS+), SimpleITK in LPS.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medseg._support.files import is_folder
from medseg._support.gzip import BROKEN_STREAM
from medseg.errors import GeometryError, ScanError
from medseg.io import list_readable_suffixes, stack_channels
from medseg.io.arrays import from_array, is_array
from medseg.io.contents import detach, is_content, stored_contents
from medseg.io.dicom.volume import DICOM
from medseg.io.itk_headers import LPS_TO_RAS
from medseg.io.nifti_affines import NO_ORIENTATION, read_affine
from medseg.io.nifti_headers import (
    drop_empty_axes,
    read_header,
    read_scaling,
    read_shape,
)
from medseg.io.series_choice import read_chosen
from medseg.io.volume_like import Image, SeriesChoice, VolumeLike
from medseg.io.voxels import check_size, empty_image
from medseg.padding import join_padding, replace_nonfinite
from medseg.volume import Affine, Volume

# What nibabel raises where a file does not hold what its header promises.
_BROKEN: tuple[type[Exception], ...] = (
    *BROKEN_STREAM,
    *(ValueError, TypeError, ArithmeticError, MemoryError),
)


_MOST_LEVELS = 4
"""How deep lists of images may lie in each other."""


def as_volume(
    image: VolumeLike,
    *,
    spacing: Sequence[float] | None = None,
    affine: npt.ArrayLike | None = None,
    series: SeriesChoice = None,
) -> Volume:
    """Return a volume of what a scan may be in Python.

    Args:
        image: One of

            * a path of any image that ``medseg segment`` reads, or of a folder of DICOM;
            * bytes, or a file open in binary mode, that hold such an image: NIfTI, NRRD, MHA,
              MGH, a picture or DICOM, told by the first bytes;
            * pydicom data sets of one series, in any order, or one with several frames;
            * a NumPy array or torch tensor, ``(i, j, k)``, ``(channels, i, j, k)`` or, a picture,
              ``(i, j)``; it needs its spacing or affine;
            * MONAI's ``MetaTensor``, channels first, with its affine;
            * a nibabel image, whose fourth axis becomes the channels;
            * a ``SimpleITK.Image`` of two or three dimensions, whose vectors become channels;
            * a volume, which stays as it is;
            * a list of these, one per channel, or a dictionary of them, channel name → image. A
              list of paths is taken for channels unless all of them are DICOM files.
        spacing: Of an array: mm along i, j and k; the axes then run to the patient's right, front
            and head.
        affine: Of an array, instead: 4×4, voxel index → mm, RAS+.
        series: Which DICOM series is meant where there are several: its number in the list that
            the error without it gives, or its Series Instance UID.

    Returns:
        float32, shape ``(channels, i, j, k)``, affine RAS+ in mm. Voxels that were NaN or
        infinite have the lowest value of their channel, with a warning. Bytes and data sets pass
        through a private temporary folder (in ``TMPDIR``), which is gone when this returns.

    Raises:
        ScanError: If it is none of these, its voxels are no real numbers, or its files hold
            several series and none was chosen.
        GeometryError: If its position in the patient is not certain, or channels do not lie on
            one grid.

    Examples:
        >>> image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([0.8, 0.8, 1.5, 1]))
        >>> as_volume(image).spacing
        (0.8, 0.8, 1.5)
        >>> as_volume(np.zeros((4, 5, 6)), spacing=(0.8, 0.8, 1.5)).shape
        (4, 5, 6)
    """
    _refuse_deep_lists(image)
    channels = _list_channels(image)
    if channels is not None:
        volumes = [
            as_volume(channel, spacing=spacing, affine=affine, series=series)
            for channel in channels
        ]
        return stack_channels(volumes)
    files = _list_files(image)
    if series is not None and not files:
        raise ScanError(
            f"series chooses among DICOM series; a {type(image).__name__} holds one image"
        )
    if is_array(image):
        return from_array(image, affine, spacing)
    if spacing is not None or affine is not None:
        raise GeometryError(
            f"spacing and affine are for arrays and tensors; a {type(image).__name__} says itself "
            "where its voxels lie"
        )
    if files:
        return _read_files(files, series)
    return _convert(image)


def _refuse_deep_lists(image: VolumeLike) -> None:
    """Refuse lists in lists, beyond those of a channel's files: one may hold itself.

    Raises:
        ScanError: If they are deeper.
    """
    level = [image]
    for _ in range(_MOST_LEVELS):
        below: list[Any] = []
        for each in level:
            below.extend(_list_parts(each))
        level = below
    if level:
        raise ScanError(
            "the lists lie in each other too deeply, or one holds itself; give one image, or one "
            "per channel in one list"
        )


def _list_parts(image: VolumeLike) -> Sequence[Any]:
    if isinstance(image, Mapping):
        return list(image.values())
    return image if _is_list(image) else ()


def _convert(image: Image) -> Volume:
    """Return a volume of what other libraries, or we, hold."""
    if isinstance(image, Volume):
        return _make_finite(image)
    if isinstance(image, nib.spatialimages.SpatialImage):
        return _from_nibabel(image)
    # By name, because importing SimpleITK takes long and few callers have it loaded.
    if type(image).__module__.partition(".")[0] == "SimpleITK":
        return _from_sitk(image)
    raise ScanError(
        "a scan is a path, bytes, an open file, an array or tensor, a MetaTensor, a nibabel or "
        "SimpleITK image, pydicom data sets, a Volume, or one of these per channel; got "
        f"{type(image).__name__}"
    )


def _is_path(image: object) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(image, str | os.PathLike)


def _is_list(image: object) -> TypeGuard[Sequence[Any]]:
    is_sequence = isinstance(image, Sequence) and not isinstance(image, str)
    return is_sequence and not is_content(image)


def _list_files(image: VolumeLike) -> Sequence[Any]:
    """Return the paths, bytes or data sets that an image is stored in; nothing of others."""
    if _is_path(image) or is_content(image):
        return [image]
    return image if _is_list(image) else []


def _list_channels(image: VolumeLike) -> list[Any] | None:
    """Return the images of the channels where each has its own, or ``None``."""
    if isinstance(image, Mapping):
        return _require_some(list(image.values()))
    if not _is_list(image) or _is_one_scan(image):
        return None
    return list(image)


def _is_one_scan(images: Sequence[Any]) -> bool:
    """Tell whether a list may hold the files or data sets of one DICOM series, not channels."""
    _require_some(images)
    if all(_is_path(image) for image in images):
        return _are_dicom([Path(image) for image in images])
    return all(is_content(image) for image in images)


def _require_some(images: Sequence[Any]) -> list[Any]:
    if not images:
        raise ScanError("there are no files to read")
    return list(images)


def _are_dicom(paths: Sequence[Path]) -> bool:
    others = tuple(
        suffix
        for suffix in list_readable_suffixes()
        if suffix not in DICOM.suffixes
    )
    are_others = [
        is_folder(path) or path.name.lower().endswith(others) for path in paths
    ]
    return not any(are_others)


def _read_files(images: Sequence[Any], series: SeriesChoice) -> Volume:
    """Read the files of one series; or bytes, open files and data sets as files."""
    if _is_path(images[0]):
        return read_chosen([Path(image) for image in images], series)
    with stored_contents(images) as files:
        if len(files) == 1 or _are_dicom(files):
            return detach(read_chosen(files, series))
        channels = [detach(read_chosen([file], series)) for file in files]
    return stack_channels(channels)


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
    # The process would end in the line that asks for its components.
    if image.GetPixelIDTypeAsString().startswith("label "):
        raise ScanError(
            "a SimpleITK label map holds no intensities; a scan is needed"
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
