"""Reading, stacking and writing through the one door that all formats share."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from support import dicom as made
from support.label_maps import in_other_order

import medseg.io
from medseg.errors import GeometryError, OutputError, ScanError
from medseg.io import (
    find_series,
    read_image,
    read_labels,
    stack_channels,
    with_channels,
    write_labels,
)
from medseg.volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def test_missing_and_unknown_files_say_what_is_allowed(tmp_path):
    with pytest.raises(ScanError, match=r"gone\.nii: no such file"):
        read_image(tmp_path / "gone.nii")
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(
        ScanError, match=r"notes\.txt: not a known kind.*\.nii\.gz"
    ):
        read_image(tmp_path / "notes.txt")
    with pytest.raises(ScanError, match="no files"):
        read_image([])


def test_importing_the_readers_loads_nothing_heavy():
    heavy = "{'torch', 'monai', 'SimpleITK', 'mlflow'}"
    code = f"import sys, medseg.io; print({heavy} & set(sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert answer.stdout.strip() == "set()"


# Channels


def volume(
    shift: float = 0.0, shape=made.SHAPE, channels: int = 1, name: str = "scan"
) -> Volume:
    affine = made.affine()
    affine[0, 3] += shift
    return Volume(np.ones((channels, *shape), np.float32), affine, name)


def test_channels_on_one_grid_are_stacked_in_order():
    first, second = volume(name="flair"), volume(shift=1e-3, name="t1")
    stacked = stack_channels([first, second.with_array(second.array * 2)])
    assert stacked.array.shape == (2, *made.SHAPE)
    assert stacked.array[:, 0, 0, 0].tolist() == [1, 2]
    assert np.array_equal(stacked.affine, first.affine)


def test_channels_in_another_order_come_on_the_first_ones_grid():
    first = volume(name="flair")
    values = made.voxels().astype(np.int16)
    image = nib.Nifti1Image(values, made.affine())
    stored = in_other_order(image, (2, 0, 1), (-1, 1, -1))
    second = Volume(np.asarray(stored.dataobj)[None], stored.affine, "t1")
    stacked = stack_channels([first, second])
    assert np.array_equal(stacked.array[1], values)
    assert np.array_equal(stacked.affine, first.affine)


def test_channels_on_other_grids_are_refused_with_the_distance():
    with pytest.raises(
        GeometryError, match=r"^t1: .*channel file 2 .* up to 3\.50 mm apart"
    ):
        stack_channels([volume(), volume(shift=3.5, name="t1")])
    with pytest.raises(
        GeometryError, match=r"^t2: .*channel file 3 differ.*\(6, 5, 3\) voxels"
    ):
        stack_channels([volume(), volume(), volume(shape=(6, 5, 3), name="t2")])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_channels_that_are_shifted_along_one_axis_are_refused(axis):
    affine = made.affine()
    affine[axis, 3] += 2
    shifted = Volume(volume().array, affine)
    with pytest.raises(GeometryError, match=r"2\.00 mm apart"):
        stack_channels([volume(), shifted])


def test_warnings_of_channels_are_kept_by_number_and_not_by_name():
    second = replace(volume(name="Secret^Person.nii"), warnings=("has NaN",))
    assert stack_channels([volume(), second]).warnings == (
        "channel file 2: has NaN",
    )


def test_grey_pictures_serve_colour_bundles_and_nothing_else_does():
    picture = volume(shape=(4, 3, 1))
    assert with_channels(picture, 1) is picture
    assert with_channels(picture, 3).array.shape == (3, 4, 3, 1)
    with pytest.raises(
        ScanError, match=r"has 1 channel\(s\), the bundle needs 2"
    ):
        with_channels(picture, 2)
    with pytest.raises(
        ScanError, match=r"has 3 channel\(s\), the bundle needs 1"
    ):
        with_channels(volume(shape=(4, 3, 1), channels=3), 1)


# Writing label maps


@pytest.mark.parametrize(
    "name", ["out.nii.gz", "out.nii", "out.nrrd", "out.mha"]
)
@pytest.mark.parametrize("most", [3, 300])
def test_labels_come_back_on_the_scans_grid(tmp_path, name, most):
    labels = (made.voxels() % (most + 1)).astype(np.int64)
    write_labels(tmp_path / name, labels, volume())
    back = read_labels(tmp_path / name)
    assert back.array.dtype == (np.uint8 if most == 3 else np.uint16)
    assert np.array_equal(back.array[0], labels)
    assert np.allclose(back.affine, made.affine(), atol=5e-6)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "name", ["out.nii.gz", "out.nii", "out.nrrd", "out.mha"]
)
def test_equal_labels_are_equal_bytes(tmp_path, name):
    labels = made.voxels() % 3
    for folder in ("a", "b"):
        write_labels(tmp_path / folder / name, labels, volume())
    assert (tmp_path / "a" / name).read_bytes() == (
        tmp_path / "b" / name
    ).read_bytes()


def test_simpleitk_and_nibabel_see_the_labels_at_one_place(tmp_path):
    labels = made.voxels() % 3
    write_labels(tmp_path / "out.nii.gz", labels, volume())
    image = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(image).T, labels)
    place = LPS[:3, :3] @ image.TransformIndexToPhysicalPoint((5, 4, 3))
    assert np.allclose(place, made.affine()[:3] @ (5, 4, 3, 1), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_get_pictures(tmp_path, dtype):
    labels = (
        made.voxels((7, 3, 1)) % (200 if dtype == np.uint8 else 1000)
    ).astype(dtype)
    picture = Volume(np.zeros((1, 7, 3, 1), np.float32), np.eye(4))
    write_labels(tmp_path / "out.png", labels, picture)
    assert Image.open(tmp_path / "out.png").size == (7, 3)
    assert np.array_equal(read_labels(tmp_path / "out.png").array[0], labels)


def test_labels_that_do_not_fit_are_refused_and_leave_nothing(tmp_path):
    like, labels = volume(), made.voxels()
    cases = [
        ("out.png", labels, "slices do not fit"),
        ("out.jpg", labels, r"written as \.nii"),
        ("out.nii", labels[:-1], "do not fit a scan"),
        ("out.nii", labels * 0.5, "hold integers"),
        ("out.nii", labels.astype(np.int32) - 5000, "hold integers from 0"),
    ]
    for name, wrong, why in cases:
        with pytest.raises(OutputError, match=why):
            write_labels(tmp_path / name, wrong, like)
    assert list(tmp_path.iterdir()) == []


def test_a_sheared_grid_goes_into_nifti_only(tmp_path):
    affine = made.affine()
    affine[:3, 2] += 0.3 * affine[:3, 1]
    tilted = Volume(np.zeros((1, *made.SHAPE), np.float32), affine)
    labels = made.voxels() % 2
    write_labels(tmp_path / "out.nii.gz", labels, tilted)
    header = nib.load(tmp_path / "out.nii.gz").header
    assert (header["qform_code"], header["sform_code"]) == (0, 1)
    assert np.allclose(
        read_labels(tmp_path / "out.nii.gz").affine, affine, atol=5e-6
    )
    for name in ("out.nrrd", "out.mha"):
        with pytest.raises(OutputError, match="sheared grid"):
            write_labels(tmp_path / name, labels, tilted)


def test_an_unwritable_folder_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_labels(tmp_path / "file" / "out.nii", made.voxels(), volume())


def test_a_series_found_is_a_scan_read(tmp_path):
    folder = made.save(tmp_path, made.series())
    (found,), _ = find_series(folder)
    assert np.array_equal(read_image(found.files).array[0], made.voxels())


def test_names_are_listed_before_they_are_loaded() -> None:
    assert dir(medseg.io) == sorted(medseg.io.__all__)
    assert all(hasattr(medseg.io, name) for name in medseg.io.__all__)
