"""What each kind of DICOM series must come back as: the geometry rules, one test each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support import dicom as made

from medseg.errors import GeometryError, ScanError
from medseg.io import find_series, read_image, read_labels
from medseg.io.dicom.volume import Slices


def test_a_series_is_sorted_by_position_and_placed_exactly(tmp_path):
    folder = made.save(tmp_path / "ct", made.series())
    volume = read_image(folder)
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array[0], made.voxels())
    assert np.allclose(volume.affine, made.affine(), atol=1e-5)
    assert volume.warnings == ()
    assert volume.source == "ct"


def test_instance_numbers_do_not_count(tmp_path):
    datasets = made.series()
    for ds, number in zip(datasets, (3, 1, 4, 2), strict=True):
        ds.InstanceNumber = number
    volume = read_image(made.save(tmp_path, datasets))
    assert np.array_equal(volume.array[0], made.voxels())


def test_highdicom_agrees(tmp_path):
    folder = made.save(tmp_path, made.series())
    volume = read_image(folder)
    datasets = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    oracle = highdicom.get_volume_from_series(datasets)
    affine = np.diag([-1, -1, 1, 1]) @ oracle.affine  # LPS, axes (slice, row, column)
    k, j, i = np.unravel_index(np.argmax(oracle.array), oracle.array.shape)
    place = affine @ (k, j, i, 1)
    mine = np.unravel_index(np.argmax(volume.array[0]), volume.shape)
    assert np.allclose(volume.affine @ (*mine, 1), place, atol=1e-4)


def test_each_slice_is_rescaled_by_its_own_values(tmp_path):
    datasets = made.series()
    for k, ds in enumerate(datasets):
        ds.RescaleSlope, ds.RescaleIntercept = 0.5 * (k + 1), -1000 + k
    volume = read_image(made.save(tmp_path, datasets))
    slopes = 0.5 * np.arange(1, 5)
    expected = made.voxels() * slopes - 1000 + np.arange(4)
    assert np.array_equal(volume.array[0], expected.astype(np.float32))


def test_monochrome1_is_not_inverted(tmp_path):
    volume = read_image(made.save(tmp_path, made.series(PhotometricInterpretation="MONOCHROME1")))
    assert np.array_equal(volume.array[0], made.voxels())


def test_signed_pixels_and_unused_bits(tmp_path):
    stored = made.voxels() % 2048
    dirty = (stored | 0xF000).astype(np.uint16)  # an old overlay in the upper four bits
    volume = read_image(made.save(tmp_path / "a", made.series(dirty, BitsStored=12, HighBit=11)))
    assert np.array_equal(volume.array[0], stored)
    signed = made.voxels().astype(np.int16) - 2000
    volume = read_image(made.save(tmp_path / "b", made.series(signed)))
    assert np.array_equal(volume.array[0], signed)


@pytest.mark.parametrize("missing", [1, 2])
def test_a_missing_slice_is_refused_with_its_place(tmp_path, missing):
    array = made.voxels((6, 5, 7))
    datasets = made.series(array)
    gone = datasets.pop(missing)
    before = float(np.array(datasets[missing - 1].ImagePositionPatient, float) @ made.NORMAL)
    with pytest.raises(GeometryError, match=rf"1 slice\(s\) missing, after .* {before:.2f} mm"):
        read_image(made.save(tmp_path, datasets))
    assert gone is not None


def test_variable_spacing_is_refused(tmp_path):
    datasets = made.series(made.voxels((6, 5, 6)))
    for k, ds in enumerate(datasets):
        made.move(ds, made.NORMAL * 0.05 * k**2)
    with pytest.raises(GeometryError, match=r"spacing varies from 2\.55 to 2\.95 mm"):
        read_image(made.save(tmp_path, datasets))


def test_one_slice_off_the_line_is_refused(tmp_path):
    datasets = made.series()
    made.move(datasets[2], made.ROWS * 1.0)
    with pytest.raises(GeometryError, match="off a regular stack"):
        read_image(made.save(tmp_path, datasets))


def test_slices_that_are_not_parallel_are_refused(tmp_path):
    datasets = made.series(made.voxels((200, 5, 4)))
    turn = np.array([[np.cos(0.002), np.sin(0.002)], [-np.sin(0.002), np.cos(0.002)]])
    turned = turn @ np.array([made.ROWS, made.COLUMNS])
    datasets[1].ImageOrientationPatient = turned.round(9).ravel().tolist()
    with pytest.raises(GeometryError, match="not parallel"):
        read_image(made.save(tmp_path, datasets))


@settings(max_examples=25, deadline=None)
@given(along=st.floats(-0.9, 0.9), across=st.floats(-0.9, 0.9))
def test_a_tilted_gantry_stays_in_the_affine(tmp_path_factory, along, across):
    shift = along * made.ROWS + across * made.COLUMNS
    datasets = made.series()
    for k, ds in enumerate(datasets):
        made.move(ds, shift * k)
    volume = read_image(made.save(tmp_path_factory.mktemp("tilt"), datasets))
    step = np.array([-1, -1, 1]) * (made.NORMAL * made.GAP + shift)
    assert np.allclose(volume.affine[:3, 2], step, atol=1e-5)
    assert np.allclose(volume.affine[:3, :2], made.affine()[:3, :2], atol=1e-6)
    tilt = np.degrees(np.arctan(np.hypot(along, across) / made.GAP))
    assert bool(volume.warnings) == (tilt > 0.05) or abs(tilt - 0.05) < 1e-3


@settings(max_examples=20, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 5)] * 3),
    origin=st.tuples(*[st.floats(-400, 400)] * 3),
    slices=st.integers(2, 6),
)
def test_any_rigid_stack_lies_where_its_headers_say(
    tmp_path_factory, angles, spacing, origin, slices
):
    axes = Rotation.from_euler("xyz", angles).as_matrix().T
    array = made.voxels((4, 3, slices))
    datasets = made.series(array)
    for k, ds in enumerate(datasets):
        ds.ImageOrientationPatient = axes[:2].round(9).ravel().tolist()
        ds.PixelSpacing = [round(spacing[1], 6), round(spacing[0], 6)]
        ds.ImagePositionPatient = (axes[2] * spacing[2] * k + origin).round(6).tolist()
    volume = read_image(made.save(tmp_path_factory.mktemp("rigid"), datasets))
    assert np.array_equal(volume.array[0], array)
    expected = np.eye(4)
    expected[:3, :3], expected[:3, 3] = axes.T * spacing, origin
    assert np.allclose(volume.affine, np.diag([-1, -1, 1, 1]) @ expected, atol=1e-4)


def test_exact_copies_are_dropped_and_others_refused(tmp_path):
    datasets = made.series()
    copy = made.series()[1]
    copy.SOPInstanceUID = pydicom.uid.generate_uid()
    volume = read_image(made.save(tmp_path / "same", [*datasets, copy]))
    assert np.array_equal(volume.array[0], made.voxels())
    assert volume.warnings == ("1 exact copies of slices left out",)
    copy.RescaleIntercept = 1
    with pytest.raises(GeometryError, match="5 slices lie at 4 places"):
        read_image(made.save(tmp_path / "other", [*datasets, copy]))


def two_echoes() -> list[pydicom.FileDataset]:
    first = made.series(made.voxels(seed=1), EchoTime=4.6)
    second = made.series(made.voxels(seed=2), EchoTime=80)
    for ds in second:
        ds.SOPInstanceUID = pydicom.uid.generate_uid()
    return [*first, *second]


def test_several_volumes_are_refused_as_one_and_found_as_two(tmp_path):
    folder = made.save(tmp_path, two_echoes())
    with pytest.raises(GeometryError, match=r"2 volumes \(EchoTime 4\.6; EchoTime 80"):
        read_image(folder)
    found, skipped = find_series(folder)
    assert [one.volume_name for one in found] == ["EchoTime 4.6", "EchoTime 80.0"]
    assert skipped == []
    for seed, one in enumerate(found, start=1):
        assert np.array_equal(read_image(one.files).array[0], made.voxels(seed=seed))


def test_time_points_are_told_apart_without_telling_the_time(tmp_path):
    datasets = two_echoes()
    for n, ds in enumerate(datasets):
        ds.EchoTime = 5
        ds.AcquisitionTime = f"1012{10 + n // 4}.5"
    found, _ = find_series(made.save(tmp_path, datasets))
    assert [one.volume_name for one in found] == ["AcquisitionTime #1", "AcquisitionTime #2"]


def test_an_incomplete_second_volume_is_refused(tmp_path):
    with pytest.raises(GeometryError, match="nothing in their headers tells"):
        read_image(made.save(tmp_path, two_echoes()[:-1]))


def test_slices_all_at_one_place_are_no_volume(tmp_path):
    datasets = made.series()
    for n, ds in enumerate(datasets):
        ds.ImagePositionPatient = made.ORIGIN.tolist()
        ds.AcquisitionNumber = n
    with pytest.raises(GeometryError, match="4 slices lie at 1 places"):
        read_image(made.save(tmp_path, datasets))


def test_localizers_and_odd_sizes_are_left_out_with_a_warning(tmp_path):
    uid = made.series()[0].SeriesInstanceUID
    scout = made.slice_dataset(
        made.voxels()[:, :, 0], 9, uid, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    odd = made.slice_dataset(made.voxels((3, 3, 1))[:, :, 0], 8, uid)
    volume = read_image(made.save(tmp_path, [*made.series(), scout, odd]))
    assert np.array_equal(volume.array[0], made.voxels())
    assert volume.warnings == (
        "1 file(s) left out: a localizer",
        "1 slice(s) of another orientation or size left out",
    )


def test_two_stacks_of_different_orientation_are_two_volumes(tmp_path):
    turned = made.series()
    for k, ds in enumerate(turned):
        ds.SOPInstanceUID = pydicom.uid.generate_uid()
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        ds.ImagePositionPatient = [0, 3 * k, 0]
    folder = made.save(tmp_path, [*made.series(), *turned])
    with pytest.raises(GeometryError, match="2 volumes"):
        read_image(folder)
    assert [read_image(one.files).shape for one in find_series(folder)[0]] == [made.SHAPE] * 2


def test_enhanced_multi_frame_uses_each_frames_own_place_and_rescale(tmp_path):
    folder = made.save(tmp_path, [made.enhanced(order=[2, 0, 3, 1])])
    volume = read_image(folder)
    numbers = np.arange(4)
    # The factory stores frame k's pixels with slope k + 1 and intercept -k.
    assert np.array_equal(volume.array[0], made.voxels() * (numbers + 1.0) - numbers)
    assert np.allclose(volume.affine, made.affine(), atol=1e-5)
    assert volume.header.frames == (1, 3, 0, 2)


def test_a_single_slice_says_how_thick_it_is(tmp_path):
    folder = made.save(tmp_path, made.series()[:1])
    volume = read_image(folder)
    assert np.allclose(volume.affine[:3, 2], made.affine(gap=1.0)[:3, 2], atol=1e-6)
    assert "only one slice" in volume.warnings[0]


def test_the_header_knows_each_slices_instance(tmp_path):
    datasets = made.series()
    volume = read_image(made.save(tmp_path, datasets))
    slices = volume.header
    assert isinstance(slices, Slices)
    assert slices.sop_uids == tuple(ds.SOPInstanceUID for ds in datasets)
    assert slices.series == datasets[0].SeriesInstanceUID
    assert slices.frame_of_reference == datasets[0].FrameOfReferenceUID
    for k, file in enumerate(slices.files):
        assert pydicom.dcmread(file).SOPInstanceUID == slices.sop_uids[k]


def test_a_series_lies_in_several_folders_and_a_folder_holds_several(tmp_path):
    one, other = made.series(name="one"), made.series(made.voxels(seed=5), name="other")
    made.save(tmp_path / "a", [*one[:2], *other], prefix="x")
    made.save(tmp_path / "b" / "c", one[2:], prefix="y")
    (tmp_path / "notes.txt").write_text("no DICOM")
    counts: list[int] = []
    found, skipped = find_series(tmp_path, progress=counts.append)
    arrays = {one.uid: read_image(one.files).array[0] for one in found}
    assert np.array_equal(arrays[one[0].SeriesInstanceUID], made.voxels())
    assert np.array_equal(arrays[other[0].SeriesInstanceUID], made.voxels(seed=5))
    assert [(s.file.name, s.reason) for s in skipped] == [("notes.txt", "not DICOM")]
    assert counts == list(range(1, 10))
    with pytest.raises(ScanError, match="holds 2 DICOM series"):
        read_image(tmp_path)


def test_labels_can_lie_in_dicom(tmp_path):
    labels = read_labels(made.save(tmp_path, made.series(made.voxels() % 3)))
    assert labels.array.dtype == np.uint8
    assert np.array_equal(labels.array[0], made.voxels() % 3)


# Real series against the answers that came with them


def in_ras(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
    return np.asanyarray(image.dataobj), image.affine


def assert_same_in_ras(volume, reference: Path, atol: float = 0.0) -> None:
    image = nib.load(reference)
    expected = np.asanyarray(image.dataobj).astype(np.float32).reshape(volume.shape)
    expected, where = in_ras(expected, image.affine)
    mine, here = in_ras(volume.array[0], volume.affine)
    assert np.allclose(here, where, atol=2e-4)
    assert np.allclose(mine, expected, rtol=0, atol=atol)


D2N = ["anatomical/001_implicit", "anatomical/002_non_isotropic", "compressed_j2k/001"]
D2N = [f"generic/{one}" for one in [*D2N, *(f"compressed_{c}/001" for c in ("jpegls", "rle"))]]
D2N += ["generic/compressed_jpeg/001", "failing/slicecount/001", "hitachi/anatomical/001"]
D2N += [f"{maker}/anatomical/001" for maker in ("hyperfine", "philips", "philips_enhanced")]


@pytest.mark.parametrize("name", [*D2N, "siemens_multiframe/anatomical/001"])
def test_tricky_real_series_equal_their_reference(shared_data, name):
    folder = shared_data / "dicom_d2n_geometry" / name
    reference = folder.with_name(f"{folder.name}_ground_truth.nii.gz")
    # The Philips reference stores rescaled values with a rounded slope of its own.
    assert_same_in_ras(read_image(folder), reference, atol=2e-4 if "philips_e" in name else 0)


@pytest.mark.parametrize("kind", ["CT", "MR_T1", "PET"])
def test_real_series_equal_their_nifti(shared_data, kind):
    folder = shared_data / "sts_ct_mr_pet"
    volume = read_image(folder / "dicom" / "STS_008" / kind / "image")
    reference = folder / "nifti" / "STS_008" / f"{kind}_image.nii.gz"
    assert_same_in_ras(volume, reference, atol=1e-6 if kind == "PET" else 0)


@pytest.mark.parametrize("name", ["T1post", "HCropVolume"])
def test_oblique_real_series_equal_dcm2niix(shared_data, name):
    folder = shared_data / "dicom_brain_mr_oblique"
    volume = read_image(folder / "Study3" / name)
    assert_same_in_ras(volume, folder / "ref" / f"Study3_{name}" / "ref.nii.gz")


def test_a_prone_sagittal_series_equals_dcm2niix(shared_data):
    folder = shared_data / "dicom_dcm_qa" / "t1_sagittal_head_first_prone"
    (reference,) = (folder / "ref").glob("*.nii*")
    assert_same_in_ras(read_image(folder / "in"), reference)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("dicom_dcm_qa/ge_4d_epi/in", "150 slices lie at 15 places"),
        ("dicom_dcm_qa/siemens_mosaic_axial/in", "mosaic"),
        ("dicom_d2n_geometry/generic/rgb/001", "Secondary Capture"),
        ("dicom_d2n_geometry/failing/notavolume/001", "4 slices lie at 1 places"),
        ("dicom_d2n_geometry/failing/sliceincrement/001", r"missing, after the slice at 28\.11"),
        ("dicom_d2n_geometry/failing/sliceincrement/002", "missing"),
        ("dicom_d2n_geometry/failing/sliceorientation/001", "2 volumes"),
        ("dicom_d2n_geometry/philips/dti/001", "4 volumes"),
    ],
)
def test_real_series_that_are_no_volume_are_refused(shared_data, name, why):
    with pytest.raises(ScanError, match=why):
        read_image(shared_data / name)


def test_a_real_tilt_is_the_one_that_was_measured(shared_data):
    folder = shared_data / "dicom_d2n_geometry"
    truth = json.loads((folder / "truth.json").read_text())["failing/gantrytilting/001"]
    volume = read_image(folder / "failing" / "gantrytilting" / "001")
    assert f"sheared by {truth['series'][0]['shear_deg']}°" in volume.warnings[0]


def test_a_slice_copied_into_a_second_folder_changes_nothing(tmp_path):
    folder = made.save(tmp_path / "ct", made.series())
    (tmp_path / "ct" / "again").mkdir()
    shutil.copy(folder / "IM0001", folder / "again" / "IM0001")
    assert np.array_equal(read_image(folder).array[0], made.voxels())
