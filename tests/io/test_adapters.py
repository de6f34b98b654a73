"""Volumes of what other libraries hold, and the way back: exact, whatever the grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support import dicom

from medseg.errors import GeometryError, OutputError, ScanError
from medseg.io import itk, nifti, read_image
from medseg.io.adapters import as_volume
from medseg.volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
ANGLES = st.tuples(*[st.floats(-3, 3)] * 3)
SIZES = st.tuples(*[st.floats(0.2, 5)] * 3)
ORIGINS = st.tuples(*[st.floats(-400, 400)] * 3)
SHAPES = st.tuples(*[st.integers(1, 5)] * 3)


def placed(angles: Any, spacing: Any, origin: Any, flip: bool) -> np.ndarray:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", angles).as_matrix() @ np.diag(
        [-1.0 if flip else 1.0, 1, 1]
    )
    affine[:3, :3], affine[:3, 3] = turn * spacing, origin
    return affine


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


@settings(max_examples=50)
@given(ANGLES, SIZES, ORIGINS, SHAPES, st.booleans(), st.integers(0, 3))
def test_nibabel_there_and_back(angles, spacing, origin, shape, flip, channels):
    affine = placed(angles, spacing, origin, flip)
    array = numbered((*shape, channels) if channels else shape)
    volume = as_volume(nib.Nifti1Image(array, affine))
    assert volume.array.dtype == np.float32
    expected = np.moveaxis(array, 3, 0) if channels else array[None]
    assert np.array_equal(volume.array, expected)
    assert np.array_equal(volume.affine, affine)
    back = nifti.make_label_image(
        array.reshape(*shape, -1)[..., 0].astype(np.uint16), volume.grid
    )
    assert np.array_equal(back.dataobj, array.reshape(*shape, -1)[..., 0])
    assert np.allclose(back.affine, affine, rtol=1e-6, atol=1e-4)


@settings(max_examples=50)
@given(ANGLES, SIZES, ORIGINS, SHAPES, st.booleans(), st.integers(1, 3))
def test_simpleitk_there_and_back(
    angles, spacing, origin, shape, flip, channels
):
    affine = placed(angles, (1, 1, 1), origin, flip)
    array = numbered((channels, *shape))
    stored = array.transpose(3, 2, 1, 0)
    image = sitk.GetImageFromArray(stored if channels > 1 else stored[..., 0])
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(affine[:3, :3].ravel().tolist())
    volume = as_volume(image)
    assert np.array_equal(volume.array, array)
    for index in ((0, 0, 0), tuple(n - 1 for n in shape)):
        place = image.TransformIndexToPhysicalPoint(index)
        assert np.allclose(
            LPS @ volume.affine @ (*index, 1), (*place, 1), atol=1e-9
        )
    back = itk.make_label_image(array[0].astype(np.uint8), volume.grid)
    assert np.array_equal(
        sitk.GetArrayFromImage(back).T, array[0].astype(np.uint8)
    )
    assert np.allclose(back.GetOrigin(), image.GetOrigin(), atol=1e-9)
    assert np.allclose(back.GetSpacing(), image.GetSpacing(), rtol=1e-9)
    assert np.allclose(back.GetDirection(), image.GetDirection(), atol=1e-9)


@settings(max_examples=20)
@given(ANGLES, SIZES, ORIGINS, SHAPES, st.booleans())
def test_both_libraries_and_arrays_mean_the_same_place(
    tmp_path_factory, angles, spacing, origin, shape, flip
):
    affine = placed(angles, spacing, origin, flip)
    file = tmp_path_factory.mktemp("same") / "a.nii.gz"
    nib.save(nib.Nifti1Image(numbered(shape), affine), file)
    volumes = [
        read_image(file),
        as_volume(str(file)),
        as_volume(nib.load(file)),
        as_volume(sitk.ReadImage(file)),
        Volume.from_numpy(numbered(shape), affine),
    ]
    for volume in volumes:
        assert np.array_equal(volume.array, volumes[0].array)
        # ITK keeps what the file states as a quaternion of single precision.
        assert volume.on_same_grid(volumes[0], 1e-3)


def test_flat_images_are_one_slice():
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    image = sitk.GetImageFromArray(numbered((3, 4)))
    image.SetSpacing((0.5, 0.7))
    image.SetOrigin((10, 20))
    image.SetDirection(turn.ravel().tolist())
    volume = as_volume(image)
    assert volume.shape == (4, 3, 1)
    assert np.array_equal(volume.array[0, :, :, 0], numbered((3, 4)).T)
    place = image.TransformIndexToPhysicalPoint((3, 2))
    assert np.allclose(LPS @ volume.affine @ (3, 2, 0, 1), (*place, 0, 1))
    flat = as_volume(nib.Nifti1Image(numbered((4, 3)), np.eye(4)))
    assert flat.shape == (4, 3, 1)


def test_a_volume_stays_and_colours_in_vectors_are_channels():
    volume = Volume.from_numpy(numbered((2, 3, 4)), np.eye(4))
    assert as_volume(volume) is volume
    colours = sitk.GetImageFromArray(
        numbered((4, 5, 3)).astype(np.uint8), isVector=True
    )
    assert as_volume(colours).array.shape == (3, 5, 4, 1)


def test_arrays_need_a_place():
    array = numbered((2, 3, 4))
    volume = Volume.from_numpy(array, spacing=(1, 2, 3), source="mine")
    assert np.array_equal(volume.affine, np.diag([1, 2, 3, 1]))
    assert (volume.array.dtype, volume.source) == (np.float32, "mine")
    assert Volume.from_numpy(array[0], spacing=(1, 2)).shape == (3, 4, 1)
    assert Volume.from_numpy(array[None], np.eye(4)).array.shape == (1, 2, 3, 4)
    for place in ({}, {"affine": np.eye(4), "spacing": (1, 1, 1)}):
        with pytest.raises(
            GeometryError, match="either its affine or its spacing"
        ):
            Volume.from_numpy(array, **place)
    for spacing in ((1,), (1, 0, 1), (1, np.nan, 1), (1, 2, 3, 4)):
        with pytest.raises(GeometryError, match="three lengths in mm"):
            Volume.from_numpy(array, spacing=spacing)
    with pytest.raises(GeometryError, match=r"4×4|three lengths"):
        Volume.from_numpy(array, np.eye(3))
    with pytest.raises(GeometryError, match="shape"):
        Volume.from_numpy(array[0, 0], np.eye(4))
    with pytest.raises(ScanError, match="complex"):
        Volume.from_numpy(array * 1j, np.eye(4))


def test_what_a_volume_was_made_of_may_change_later():
    array, affine = numbered((2, 3, 4)).astype(np.float32), np.eye(4)
    volume = Volume.from_numpy(array, affine)
    array[:], affine[:] = -1, 7
    assert volume.array.min() == 0
    assert np.array_equal(volume.affine, np.eye(4))


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (numbered((2, 3, 4)), "either its affine or its spacing"),
        (7, "got int"),
        (
            nib.Nifti1Image(np.ones((2, 2, 2), np.complex64), np.eye(4)),
            "complex64",
        ),
        (
            nib.Nifti1Image(np.ones((2, 2, 2, 2, 2), np.float32), np.eye(4)),
            "5 axes",
        ),
        (
            sitk.Image([2, 2, 2, 2], sitk.sitkUInt8),
            "two or three dimensions .* got 4",
        ),
        (sitk.Image([2, 2, 2], sitk.sitkComplexFloat32), "complex64"),
    ],
)
def test_what_cannot_be_a_scan_is_refused(image, why):
    with pytest.raises(ScanError, match=why):
        as_volume(image)


def test_nibabel_images_without_a_place_or_with_a_torn_file_are_refused(
    tmp_path,
):
    with pytest.raises(GeometryError, match="no affine"):
        as_volume(nib.spatialimages.SpatialImage(np.zeros((2, 2, 2)), None))
    file = tmp_path / "a.nii.gz"
    nib.save(
        nib.Nifti1Image(np.random.default_rng(0).random((9, 9, 9)), np.eye(4)),
        file,
    )
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(ScanError, match=r"a\.nii\.gz: nibabel cannot read"):
        as_volume(nib.load(file))


def test_nan_takes_the_lowest_value_whatever_the_image_came_as(tmp_path):
    """One rule: a CT's air, not water, in files, both libraries' images, arrays and volumes."""
    array = np.full((2, 3, 4), 60, np.float32)
    array[0], array[1, 1, 1], array[1, 2, 3] = -1000, np.nan, np.inf
    nifti_image = nib.Nifti1Image(array, np.eye(4))
    sitk_image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    nib.save(nifti_image, tmp_path / "a.nii.gz")
    sitk.WriteImage(sitk_image, tmp_path / "a.nrrd")
    sitk.WriteImage(sitk_image, tmp_path / "a.mha")
    unchecked = Volume(array[None], np.eye(4), warnings=("a doubt",))
    for image in (
        nifti_image,
        sitk_image,
        str(tmp_path / "a.nii.gz"),
        str(tmp_path / "a.nrrd"),
        str(tmp_path / "a.mha"),
        Volume.from_numpy(array, np.eye(4)),
        unchecked,
    ):
        volume = as_volume(image)
        assert volume.array[0, 1, 1, 1] == volume.array[0, 1, 2, 3] == -1000
        assert volume.array.max() == 60
        assert volume.warnings[-1].startswith("2 of 24 voxels")
    assert as_volume(unchecked).warnings[0] == "a doubt"
    assert np.isnan(unchecked.array[0, 1, 1, 1])


def test_a_sheared_grid_goes_back_to_nibabel_only():
    affine = np.eye(4)
    affine[1, 2] = 0.3
    volume = Volume.from_numpy(numbered((2, 3, 4)), affine)
    labels = np.ones((2, 3, 4), np.uint8)
    assert np.allclose(nifti.make_label_image(labels, volume).affine, affine)
    with pytest.raises(OutputError, match="sheared"):
        itk.make_label_image(labels, volume)


def test_a_list_of_files_is_the_channels_of_one_scan(tmp_path: Path) -> None:
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    files = []
    for number in range(2):
        files.append(tmp_path / f"channel_{number}.nii.gz")
        nib.save(
            nib.Nifti1Image(numbered((3, 4, 5)) + number, affine), files[-1]
        )
    expected = np.stack([numbered((3, 4, 5)), numbered((3, 4, 5)) + 1])
    both = [nib.load(file) for file in files]
    for channels in (
        files,
        [str(file) for file in files],
        both,
        [[files[0]], both[1]],
    ):
        volume = as_volume(channels)
        assert np.array_equal(volume.array, expected)
        assert np.array_equal(volume.affine, affine)


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    images = [
        nib.Nifti1Image(numbered((3, 4, 5)), np.diag([mm, 1, 1, 1]))
        for mm in (1.0, 1.1)
    ]
    with pytest.raises(GeometryError, match="channel file 2"):
        as_volume(images)


def test_a_list_of_dicom_files_is_one_series(tmp_path: Path) -> None:
    folder = dicom.save(tmp_path, dicom.series())
    files = sorted(folder.iterdir())
    assert np.array_equal(as_volume(files).array, as_volume(folder).array)
    assert as_volume([folder, folder]).array.shape[0] == 2


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"sform_code": 0, "pixdim": [1, 2, 2, 0, 0, 0, 0, 0]}, "above 0"),
        ({"vox_offset": 0}, "vox_offset"),
        ({"scl_slope": np.inf}, "scaling"),
    ],
)
def test_nibabel_images_of_files_that_are_refused_are_refused(
    tmp_path: Path, fields: dict[str, Any], why: str
) -> None:
    file = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(numbered((3, 4, 5)), np.eye(4)), file)
    content = bytearray(file.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    file.write_bytes(content)
    with pytest.raises(ScanError, match=why):
        as_volume(nib.load(file))


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti1Image])
def test_nibabel_images_of_sound_files_and_of_none_are_taken(
    tmp_path: Path, kind: Any
) -> None:
    image = kind(numbered((3, 4, 5)), np.eye(4))
    file = tmp_path / ("a.img" if kind is nib.Nifti1Pair else "a.nii")
    nib.save(image, file)
    for held in (image, nib.load(file), nib.load(file).slicer[1:]):
        assert as_volume(held).warnings == ()


@pytest.mark.parametrize("size", [0, 1, 50])
def test_nibabel_images_of_files_that_are_cut_are_refused(
    tmp_path: Path, size: int
) -> None:
    image = nib.Nifti1Pair(numbered((3, 4, 5)), np.eye(4))
    file = tmp_path / "a.img"
    nib.save(image, file)
    held = nib.load(file)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ScanError, match="nibabel cannot read"):
        as_volume(held)


def test_a_nibabel_image_of_a_forged_size_is_refused_before_it_is_read(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.mgh"
    nib.save(nib.MGHImage(np.ones((3, 4, 5), np.uint8), np.eye(4)), file)
    content = bytearray(file.read_bytes())
    content[4:16] = b"\0\0\x07\xd0" * 3
    file.write_bytes(content)
    with pytest.raises(ScanError, match="at most"):
        as_volume(nib.load(file))


def test_what_a_masked_array_masks_is_no_intensity() -> None:
    array = np.ma.masked_less(np.array([[[-9999.0, 3, 5]]]), 0)
    volume = as_volume(array, spacing=(1, 1, 1))
    assert volume.array.tolist() == [[[[3, 3, 5]]]]
    assert volume.get_shown(0).tolist() == [3, 5]
    assert "1 of 3 voxels" in volume.warnings[0]


@pytest.mark.parametrize(
    "place",
    [{"spacing": 1.0}, {"spacing": "two"}, {"affine": "abc"}, {"affine": [1]}],
)
def test_a_place_that_is_none_is_refused_with_what_is_needed(
    place: Any,
) -> None:
    with pytest.raises(GeometryError, match=r"4×4|three lengths"):
        as_volume(np.zeros((2, 2, 2)), **place)


def test_an_array_is_no_choice_among_series() -> None:
    with pytest.raises(ScanError, match="chooses among DICOM series"):
        as_volume(np.zeros((2, 2, 2)), spacing=(1, 1, 1), series=2)


def test_a_list_that_holds_itself_is_no_image() -> None:
    circle: list[Any] = []
    circle.append(circle)
    named: dict[str, Any] = {}
    named["CT"] = [named]
    for image in (circle, named):
        with pytest.raises(ScanError, match="one holds itself"):
            as_volume(image)
