"""What other libraries read from a damaged file: a second opinion on where its voxels lie."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK
from nibabel.orientations import (
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
)
from PIL import Image
from sound_files import Sound

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME_MM = 0.05
_MOST_VOXELS = 1 << 24


class Reading(NamedTuple):
    """Voxels and where they lie.

    Attributes:
        array: Shape ``(i, j, k)``.
        affine: Voxel → RAS mm.
    """

    array: np.ndarray
    affine: np.ndarray


def read_independently(sound: Sound) -> Reading | None:
    """Read a damaged file without medseg; ``None`` where the other library cannot."""
    read = _READERS[sound.kind]
    with warnings.catch_warnings(), _silence():
        warnings.simplefilter("ignore")
        try:
            reading = read(sound)
        except Exception:  # noqa: BLE001 - whatever a library makes of a broken file
            return None
    if reading.array.ndim != 3 or not np.isfinite(reading.affine).all():
        return None
    return reading


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Let no library write on stderr, even past Python."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def agree(one: Reading, other: Reading) -> tuple[bool, bool]:
    """Tell whether two readings have the same grid, and on it the same voxels."""
    try:
        one, other = _turn(one), _turn(other)
    except (ValueError, np.linalg.LinAlgError):
        return False, False
    if one.array.shape != other.array.shape:
        return False, False
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in one.array.shape]))
    places = np.vstack([corners.reshape(3, -1), np.ones(8)])
    apart = np.abs((one.affine - other.affine) @ places).max()
    if not apart <= _SAME_MM:
        return False, False
    first, second = (np.asarray(r.array, np.float64) for r in (one, other))
    scale = max(np.abs(second[np.isfinite(second)]).max(initial=0), 1)
    near = np.isclose(first, second, rtol=1e-4, atol=1e-5 * scale)
    return True, bool(near.all())


def _turn(reading: Reading) -> Reading:
    """Return a reading along the patient's axes, from left to right and so on."""
    turn = io_orientation(reading.affine)
    array = apply_orientation(reading.array, turn)
    affine = reading.affine @ inv_ornt_aff(turn, reading.array.shape)
    return Reading(array, affine)


def _read_nifti(sound: Sound) -> Reading:
    # Not mapped into memory: a file that is shorter than it says would end the process.
    image = nib.load(sound.files[0], mmap=False)
    if np.prod(image.shape, dtype=float) > _MOST_VOXELS:
        raise ValueError("too large")
    array = np.array(image.dataobj)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return Reading(array, image.affine)


def _read_itk(sound: Sound) -> Reading:
    image = SimpleITK.ReadImage(sound.path)
    spacing = np.array(image.GetSpacing())
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * spacing
    lps[:3, 3] = image.GetOrigin()
    return Reading(SimpleITK.GetArrayFromImage(image).T, _LPS_TO_RAS @ lps)


def _read_dicom(sound: Sound) -> Reading:
    """Read every file's frames, sorted along the normal; each file must have all it needs."""
    slices = []
    for file in sorted(sound.path.iterdir()):
        if not file.is_file():
            continue
        ds = pydicom.dcmread(file, force=True)
        if ds.SOPClassUID in ("1.2.840.10008.5.1.4.1.1.2.1",):
            slices += _list_frames(ds)
            continue
        pixels = ds.pixel_array.T * float(ds.RescaleSlope)
        pixels = pixels + float(ds.RescaleIntercept)
        position = np.array(ds.ImagePositionPatient, float)
        slices.append((position, _get_plane(ds), pixels))
    _, plane, _ = slices[0]
    normal = np.cross(plane[:, 0], plane[:, 1])
    slices.sort(key=lambda one: one[0] @ normal)
    lps = np.eye(4)
    lps[:3, :2] = plane
    lps[:3, 2] = (slices[-1][0] - slices[0][0]) / (len(slices) - 1)
    lps[:3, 3] = slices[0][0]
    array = np.stack([pixels for *_, pixels in slices], axis=2)
    return Reading(array, _LPS_TO_RAS @ lps)


def _get_plane(ds: pydicom.Dataset) -> np.ndarray:
    rows, columns = np.array(ds.PixelSpacing, float)
    along = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
    return np.stack([along[0] * columns, along[1] * rows], axis=1)


def _list_frames(ds: pydicom.Dataset) -> list[tuple]:
    shared = ds.SharedFunctionalGroupsSequence[0]
    plane = pydicom.Dataset()
    measures = shared.PixelMeasuresSequence[0]
    plane.PixelSpacing = measures.PixelSpacing
    orientation = shared.PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = orientation.ImageOrientationPatient
    rescale = shared.PixelValueTransformationSequence[0]
    slices = []
    for group, pixels in zip(
        ds.PerFrameFunctionalGroupsSequence, ds.pixel_array, strict=True
    ):
        place = group.PlanePositionSequence[0].ImagePositionPatient
        values = pixels.T * float(rescale.RescaleSlope)
        values = values + float(rescale.RescaleIntercept)
        slices.append((np.array(place, float), _get_plane(plane), values))
    return slices


def _read_picture(sound: Sound) -> Reading:
    pixels = np.asarray(Image.open(sound.path))
    return Reading(pixels.T[..., None], np.eye(4))


_READERS = {
    "dicom": _read_dicom,
    "nifti": _read_nifti,
    "nifti gz": _read_nifti,
    "nifti pair": _read_nifti,
    "nrrd": _read_itk,
    "nhdr": _read_itk,
    "mha": _read_itk,
    "mhd": _read_itk,
    "png": _read_picture,
    "tiff": _read_picture,
    "jpg": _read_picture,
    "label map": _read_nifti,
}
