"""Images that other libraries hold ↔ volumes; nothing is resampled or turned on the way.

nibabel counts as medseg does (RAS+), SimpleITK in LPS.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError, ScanError
from medseg.io import Files, read_image
from medseg.io.gzip import BROKEN_STREAM
from medseg.io.itk_headers import LPS_TO_RAS
from medseg.io.voxels import empty_image, replace_nonfinite
from medseg.volume import Affine, Volume

Image: TypeAlias = Any
"""A nibabel image or a ``SimpleITK.Image``; neither library states types."""


def as_volume(image: Volume | Files | Image) -> Volume:
    """Return a volume of what a scan may be in Python.

    Args:
        image: A path of any image ``medseg segment`` reads, or of a folder with one DICOM series;
            the files of one; a nibabel image, whose fourth axis becomes the channels; a
            ``SimpleITK.Image`` of two or three dimensions, whose vectors become channels; or a
            volume, which stays as it is. For arrays there is ``Volume.from_numpy``.

    Returns:
        float32, shape ``(channels, i, j, k)``, affine RAS+ in mm.

    Raises:
        ScanError: If it is none of these, or its voxels are no real numbers.
        GeometryError: If its place in the patient is not certain.
    """
    if isinstance(image, Volume):
        return image
    if isinstance(image, nib.spatialimages.SpatialImage):
        return _from_nibabel(image)
    if type(image).__module__.partition(".")[0] == "SimpleITK":
        return _from_sitk(image)
    if isinstance(image, str | Path) or _is_paths(image):
        return read_image(image)
    hint = "; Volume.from_numpy takes arrays" if isinstance(image, np.ndarray) else ""
    raise ScanError(
        f"a scan is a path, a Volume, a nibabel image or a SimpleITK image, got "
        f"{type(image).__name__}{hint}"
    )


def _is_paths(image: object) -> bool:
    return isinstance(image, Sequence) and all(isinstance(one, str | Path) for one in image)


def _from_nibabel(image: Image) -> Volume:
    name = Path(image.get_filename() or "").name
    if image.affine is None:
        raise GeometryError(f"{name or 'the nibabel image'}: has no affine")
    try:
        array = np.asanyarray(image.dataobj)
    except BROKEN_STREAM as error:
        raise ScanError(f"{name}: nibabel cannot read its voxels ({error})") from error
    while array.ndim > 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if not 2 <= array.ndim <= 4:
        raise ScanError(
            f"{name or 'the nibabel image'}: {array.ndim} axes; three are needed, or four with the "
            "channels last"
        )
    array = array.reshape((*array.shape, 1, 1)[:4] if array.ndim < 4 else array.shape)
    header = image.header if isinstance(image.header, nib.Nifti1Header) else None
    return _volume(array, image.affine, name, header)


def _from_sitk(image: Image) -> Volume:
    import SimpleITK as sitk  # noqa: N813

    dims = image.GetDimension()
    if dims not in (2, 3):
        raise ScanError(f"a SimpleITK image of {dims} dimensions; two or three are segmented")
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        array = array[..., None]
    array = np.moveaxis(array, range(dims), range(dims - 1, -1, -1))
    lps = np.eye(4)
    spacing = np.array(image.GetSpacing())
    lps[:dims, :dims] = np.reshape(image.GetDirection(), (dims, dims)) * spacing
    lps[:dims, 3] = image.GetOrigin()
    return _volume(array if dims == 3 else array[:, :, None], LPS_TO_RAS @ lps, "", None)


def _volume(array: npt.NDArray[Any], affine: Affine, name: str, header: Any) -> Volume:
    """Make a volume of voxels ``(i, j, k, channels)``."""
    if array.dtype.kind not in "buif":
        raise ScanError(f"{name or 'the image'}: voxels of type {array.dtype} are not segmented")
    voxels = empty_image(array.shape, name)
    with np.errstate(over="ignore"):
        voxels[...] = array
    return Volume(np.moveaxis(voxels, 3, 0), affine, name, replace_nonfinite(voxels), header)
