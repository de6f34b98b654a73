"""What each kind of DICOM series must come back as: the rules, one test each."""

from __future__ import annotations

import shutil
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from support import dicom as made

from medseg.errors import GeometryError, ScanError
from medseg.io import read_image, read_labels
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
    # LPS, axes (slice, row, column).
    affine = np.diag([-1, -1, 1, 1]) @ oracle.affine
    k, j, i = np.unravel_index(np.argmax(oracle.array), oracle.array.shape)
    place = affine @ (k, j, i, 1)
    mine = np.unravel_index(np.argmax(volume.array[0]), volume.shape)
    assert np.allclose(volume.affine @ (*mine, 1), place, atol=1e-4)


def test_exact_copies_are_dropped_and_others_refused(tmp_path):
    datasets = made.series()
    copy = made.series()[1]
    copy.SOPInstanceUID = pydicom.uid.generate_uid()
    volume = read_image(made.save(tmp_path / "same", [*datasets, copy]))
    assert np.array_equal(volume.array[0], made.voxels())
    assert volume.warnings == ("1 exact duplicates of slices left out",)
    copy.RescaleIntercept = 1
    with pytest.raises(GeometryError, match="5 slices lie at 4 positions"):
        read_image(made.save(tmp_path / "other", [*datasets, copy]))


@pytest.mark.parametrize("differing", [0, 1])
def test_every_doubled_position_is_compared(tmp_path, differing):
    doubled = made.series()[1:3]
    for ds in doubled:
        ds.SOPInstanceUID = pydicom.uid.generate_uid()
    doubled[differing].RescaleIntercept = 1
    with pytest.raises(GeometryError, match="6 slices lie at 4 positions"):
        read_image(made.save(tmp_path, [*made.series(), *doubled]))


@pytest.mark.parametrize("differing", [None, 0, 1, 2])
def test_every_copy_at_a_position_is_compared(tmp_path, differing):
    first, *others = made.series()
    folder = made.save(tmp_path, others)
    for n in range(3):
        first.SOPInstanceUID = pydicom.uid.generate_uid()
        first.RescaleIntercept = int(n == differing)
        first.save_as(folder / f"copy{n}")
    if differing is None:
        assert read_image(folder).warnings == (
            "2 exact duplicates of slices left out",
        )
        return
    with pytest.raises(GeometryError, match="6 slices lie at 4 positions"):
        read_image(folder)


def test_slices_of_different_frames_of_reference_are_refused(tmp_path):
    datasets = made.series()
    datasets[2].FrameOfReferenceUID = pydicom.uid.generate_uid()
    with pytest.raises(GeometryError, match="different frames of reference"):
        read_image(made.save(tmp_path, datasets))


def test_slices_all_at_one_place_are_no_volume(tmp_path):
    datasets = made.series()
    for n, ds in enumerate(datasets):
        ds.ImagePositionPatient = made.ORIGIN.tolist()
        ds.AcquisitionNumber = n
    with pytest.raises(GeometryError, match="4 slices lie at 1 positions"):
        read_image(made.save(tmp_path, datasets))


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


def test_labels_can_lie_in_dicom(tmp_path):
    labels = read_labels(made.save(tmp_path, made.series(made.voxels() % 3)))
    assert labels.array.dtype == np.uint8
    assert np.array_equal(labels.array[0], made.voxels() % 3)


def test_a_slice_copied_into_a_second_folder_changes_nothing(tmp_path):
    folder = made.save(tmp_path / "ct", made.series())
    (tmp_path / "ct" / "again").mkdir()
    shutil.copy(folder / "IM0001", folder / "again" / "IM0001")
    assert np.array_equal(read_image(folder).array[0], made.voxels())


def in_ras(
    array: np.ndarray, affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    image = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
    return np.asanyarray(image.dataobj), image.affine


def assert_same_in_ras(volume, reference: Path, atol: float = 0.0) -> None:
    image = nib.load(reference)
    expected = (
        np.asanyarray(image.dataobj).astype(np.float32).reshape(volume.shape)
    )
    expected, where = in_ras(expected, image.affine)
    mine, here = in_ras(volume.array[0], volume.affine)
    assert np.allclose(here, where, atol=2e-4)
    assert np.allclose(mine, expected, rtol=0, atol=atol)


D2N = [
    "anatomical/001_implicit",
    "anatomical/002_non_isotropic",
    "compressed_j2k/001",
]
D2N = [
    f"generic/{one}"
    for one in [*D2N, *(f"compressed_{c}/001" for c in ("jpegls", "rle"))]
]
D2N += [
    "generic/compressed_jpeg/001",
    "failing/slicecount/001",
    "hitachi/anatomical/001",
]
D2N += [
    f"{maker}/anatomical/001"
    for maker in ("hyperfine", "philips", "philips_enhanced")
]


@pytest.mark.parametrize("name", [*D2N, "siemens_multiframe/anatomical/001"])
def test_tricky_real_series_equal_their_reference(shared_data, name):
    folder = shared_data / "dicom_d2n_geometry" / name
    reference = folder.with_name(f"{folder.name}_ground_truth.nii.gz")
    # The Philips reference stores rescaled values with a rounded slope of its own.
    assert_same_in_ras(
        read_image(folder), reference, atol=2e-4 if "philips_e" in name else 0
    )


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
        ("dicom_dcm_qa/ge_4d_epi/in", "150 slices lie at 15 positions"),
        ("dicom_dcm_qa/siemens_mosaic_axial/in", "mosaic"),
        ("dicom_d2n_geometry/generic/rgb/001", "Secondary Capture"),
        (
            "dicom_d2n_geometry/failing/notavolume/001",
            "4 slices lie at 1 positions",
        ),
        (
            "dicom_d2n_geometry/failing/sliceincrement/001",
            r"missing, after the slice at 28\.11",
        ),
        ("dicom_d2n_geometry/failing/sliceincrement/002", "missing"),
        ("dicom_d2n_geometry/failing/sliceorientation/001", "2 volumes"),
        ("dicom_d2n_geometry/philips/dti/001", "4 volumes"),
    ],
)
def test_real_series_that_are_no_volume_are_refused(shared_data, name, why):
    with pytest.raises(ScanError, match=why):
        read_image(shared_data / name)


def test_a_folder_without_images_says_so(tmp_path):
    (tmp_path / "scan.nii").write_bytes(b"no DICOM")
    with pytest.raises(ScanError, match="no DICOM image of a volume") as caught:
        read_image(tmp_path)
    assert "give an image of another format as a file" in caught.value.message
