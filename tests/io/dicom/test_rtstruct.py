"""A label map must be the same voxels after an RTSTRUCT, for us and for other readers."""

from __future__ import annotations

import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from pydicom.uid import generate_uid
from support import dicom as made

from medseg.errors import GeometryError, OutputError, ScanError
from medseg.io import read_image, read_labels
from medseg.io.dicom.rtstruct_reader import read_rtstruct
from medseg.io.dicom.rtstruct_writer import write_rtstruct
from medseg.labels import Label, LabelSet

LABELS = LabelSet(
    [
        Label(1, "liver", 1, (230, 60, 60), "SCT:10200004"),
        Label(2, "tumour", 2, (70, 170, 255), "SCT:108369006"),
        Label(3, "thing", 3, (0, 255, 0)),
    ]
)
NOON = datetime(2024, 5, 6, 12, 0, 0)  # noqa: DTZ001 (DICOM times are local)


def scan(folder: Path, **changes):
    return read_image(made.save(folder / "ct", made.series(**changes)))


def random_labels(shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)


def ball(shape) -> np.ndarray:
    """A hollow ball of 1 with a 2 inside, and a 3 beside it that touches the border."""
    places = np.indices(shape) / (np.array(shape) - 1.0).clip(1)[:, None, None, None]
    distance = np.sqrt(((places - 0.5) ** 2).sum(axis=0))
    labels = np.zeros(shape, np.uint8)
    labels[distance < 0.45] = 1
    labels[distance < 0.3] = 0
    labels[distance < 0.15] = 2
    labels[: shape[0] // 8, : shape[1] // 3] = 3
    return labels


def write(path: Path, labels: np.ndarray, like, label_set: LabelSet = LABELS, **more) -> Path:
    write_rtstruct(path, labels, like, label_set, version="1.2.3", **more)
    return path


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(2, 4)),
    seed=st.integers(0, 1000),
    share=st.floats(0, 1),
    shear=st.floats(-0.9, 0.9),
)
def test_any_label_map_on_any_stack_comes_back(tmp_path_factory, shape, seed, share, shear):
    folder = tmp_path_factory.mktemp("rt")
    datasets = made.series(made.voxels(shape))
    for k, ds in enumerate(datasets):
        made.move(ds, shear * k * made.COLUMNS)
    like = read_image(made.save(folder / "ct", datasets))
    labels = random_labels(shape, seed) * (np.random.default_rng(seed).random(shape) < share)
    back = read_rtstruct(write(folder / "rt.dcm", labels, like), like)
    assert np.array_equal(back.array[0], labels)
    assert back.header == {1: "liver", 2: "tumour", 3: "thing"}
    assert back.warnings == ()


def test_contours_lie_in_the_plane_of_the_slice_they_refer_to(tmp_path):
    datasets = made.series()
    for k, ds in enumerate(datasets):
        made.move(ds, 0.7 * k * made.ROWS)
    like = read_image(made.save(tmp_path / "ct", datasets))
    rt = pydicom.dcmread(write(tmp_path / "rt.dcm", ball(like.shape), like))
    place = {ds.SOPInstanceUID: np.array(ds.ImagePositionPatient, float) for ds in datasets}
    contours = rt.ROIContourSequence[0].ContourSequence
    assert {contour.ContourGeometricType for contour in contours} == {"CLOSED_PLANAR"}
    for contour in contours:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        origin = place[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        assert np.abs((points - origin) @ made.NORMAL).max() < 1e-4
        assert len(points) == contour.NumberOfContourPoints


def test_contours_surround_their_pixel_in_millimetres(tmp_path):
    like = scan(tmp_path)
    labels = np.zeros(like.shape, np.uint8)
    labels[4, 1, 2] = 1
    rt = pydicom.dcmread(write(tmp_path / "rt.dcm", labels, like))
    (contour,) = rt.ROIContourSequence[0].ContourSequence
    points = np.array(contour.ContourData, float).reshape(-1, 3)
    between_rows, between_columns = made.SPACING
    centre = (
        made.ORIGIN
        + 4 * between_columns * made.ROWS
        + 1 * between_rows * made.COLUMNS
        + 2 * made.GAP * made.NORMAL
    )
    assert np.allclose(points.mean(axis=0), centre, atol=1e-4)
    assert np.isclose(np.abs((points - centre) @ made.ROWS).max(), between_columns / 2, atol=1e-4)
    assert np.isclose(np.abs((points - centre) @ made.COLUMNS).max(), between_rows / 2, atol=1e-4)


def test_a_multi_frame_scan_is_referred_to_by_frame(tmp_path):
    order = [2, 0, 3, 1]
    like = read_image(made.save(tmp_path / "mr", [made.enhanced(order=order)]))
    labels = np.zeros(like.shape, np.uint8)
    labels[1:3, 2, 1] = 1
    path = write(tmp_path / "rt.dcm", labels, like)
    (contour,) = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    assert contour.ContourImageSequence[0].ReferencedFrameNumber == order.index(1) + 1
    assert np.array_equal(read_rtstruct(path, like).array[0], labels)


def test_structures_carry_name_colour_code_and_scan(tmp_path):
    like = scan(tmp_path, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Anna")
    rt = pydicom.dcmread(write(tmp_path / "rt.dcm", random_labels(like.shape), like))
    assert [roi.ROIName for roi in rt.StructureSetROISequence] == ["liver", "tumour", "thing"]
    assert list(rt.ROIContourSequence[1].ROIDisplayColor) == [70, 170, 255]
    liver, tumour, thing = rt.RTROIObservationsSequence
    assert liver.RTROIIdentificationCodeSequence[0].CodeValue == "10200004"
    assert (liver.RTROIInterpretedType, tumour.RTROIInterpretedType) == ("ORGAN", "")
    assert "RTROIIdentificationCodeSequence" not in thing
    study = rt.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    (series,) = study.RTReferencedSeriesSequence
    named = {item.ReferencedSOPInstanceUID for item in series.ContourImageSequence}
    assert named == set(like.header.sop_uids)
    assert series.SeriesInstanceUID == like.header.series
    assert str(rt.PatientName) == "Müller^Anna"
    assert rt.PatientSex == ""


def test_the_same_result_is_the_same_object(tmp_path):
    like = scan(tmp_path)
    labels = random_labels(like.shape)
    first = write(tmp_path / "a.dcm", labels, like, created=NOON)
    again = write(tmp_path / "b.dcm", labels.astype(np.int64), like, created=NOON)
    other = write(tmp_path / "c.dcm", labels[::-1], like, created=NOON)
    assert first.read_bytes() == again.read_bytes()
    assert pydicom.dcmread(first).SOPInstanceUID != pydicom.dcmread(other).SOPInstanceUID


def test_nothing_found_is_a_result_too(tmp_path):
    like = scan(tmp_path)
    path = write(tmp_path / "rt.dcm", np.zeros(like.shape, np.uint8), like)
    assert all("ContourSequence" not in roi for roi in pydicom.dcmread(path).ROIContourSequence)
    assert not read_rtstruct(path, like).array.any()


def test_a_long_contour_is_whole(tmp_path):
    # More than 64 KiB in one element: the explicit transfer syntaxes have no room for it.
    folder = made.save(tmp_path / "ct", made.series(made.voxels((200, 200, 2))))
    like = read_image(folder)
    labels = np.zeros(like.shape, np.uint8)
    labels[0] = labels[:, ::4] = labels[::2, 1::4] = 1  # combs whose teeth have teeth
    path = write(tmp_path / "rt.dcm", labels, like)
    (contour, _) = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    assert contour.NumberOfContourPoints * 3 == len(contour.ContourData) > 64 * 1024 / 6
    assert np.array_equal(read_rtstruct(path, like).array[0], labels)


def test_a_scan_that_cannot_be_referred_to_is_refused(tmp_path):
    like = scan(tmp_path, FrameOfReferenceUID=None)
    with pytest.raises(OutputError, match="no valid Frame of Reference UID"):
        write(tmp_path / "rt.dcm", random_labels(like.shape), like)
    assert not (tmp_path / "rt.dcm").exists()


def test_structures_are_chosen_by_name_in_order(tmp_path):
    like = scan(tmp_path)
    labels = random_labels(like.shape)
    path = write(tmp_path / "rt.dcm", labels, like)
    back = read_rtstruct(path, like, ["thing", "liver"])
    assert np.array_equal(back.array[0], np.array([0, 2, 0, 1])[labels])
    assert back.header == {1: "thing", 2: "liver"}
    assert np.array_equal(read_rtstruct(path, like, "tumour").array[0], labels == 2)
    with pytest.raises(ScanError, match=r"0 structures called 'Liver'.*liver, tumour, thing"):
        read_rtstruct(path, like, "Liver")


def edited(path: Path, change) -> Path:
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path)
    return path


def test_overlapping_structures_are_refused_unless_one_is_chosen(tmp_path):
    like = scan(tmp_path)
    labels = ball(like.shape)
    path = write(tmp_path / "rt.dcm", labels, like)

    def copy(ds):
        ds.ROIContourSequence[2].ContourSequence = ds.ROIContourSequence[0].ContourSequence

    edited(path, copy)
    with pytest.raises(ScanError, match="'thing' and 'liver' overlap in"):
        read_rtstruct(path, like)
    assert np.array_equal(read_rtstruct(path, like, "thing").array[0], labels == 1)


def test_repeated_contours_points_and_lines_do_no_harm(tmp_path):
    like = scan(tmp_path)
    labels = ball(like.shape)
    path = write(tmp_path / "rt.dcm", labels, like)

    def add(ds):
        contours = ds.ROIContourSequence[0].ContourSequence
        contours.append(contours[0])
        for kind in ("POINT", "OPEN_PLANAR"):
            extra = pydicom.Dataset()
            extra.ContourGeometricType, extra.ContourData = kind, ["1", "2", "3"]
            contours.append(extra)

    back = read_rtstruct(edited(path, add), like)
    assert np.array_equal(back.array[0], labels)
    assert back.warnings == ("2 points or open lines of 'liver' were left out",)


def test_contours_of_another_place_are_refused(tmp_path):
    like = scan(tmp_path)
    path = write(tmp_path / "rt.dcm", ball(like.shape), like)
    for share, message in ((0.5, "slices off"), (10, "lie outside the scan")):
        moved = like.affine.copy()
        moved[:3, 3] += like.affine[:3, 2] * share
        with pytest.raises(GeometryError, match=message):
            read_rtstruct(path, type(like)(like.array, moved))
    other = made.series(FrameOfReferenceUID=generate_uid())
    with pytest.raises(GeometryError, match="another frame of reference"):
        read_rtstruct(path, read_image(made.save(tmp_path / "other", other)))
    fewer = type(like)(like.array[..., :2], like.affine)
    back = read_rtstruct(path, fewer)
    assert np.array_equal(back.array[0], ball(like.shape)[:, :, :2])
    assert any("beyond the scan's slices" in warning for warning in back.warnings)


def test_broken_and_foreign_files_are_refused(tmp_path):
    like = scan(tmp_path)
    path = write(tmp_path / "rt.dcm", random_labels(like.shape), like)
    whole = path.read_bytes()
    labels = read_rtstruct(path, like).array
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        try:
            back = read_rtstruct(path, like)
        except ScanError:
            continue
        assert length > len(whole) - 400  # all contours are there
        assert np.array_equal(back.array, labels)
    with pytest.raises(ScanError, match="no DICOM RT Structure Set"):
        read_rtstruct(like.header.files[0], like)
    path.write_bytes(whole)

    def spoil(ds):
        ds.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2", "3", "4"]

    with pytest.raises(ScanError, match="damaged structure set"):
        read_rtstruct(edited(path, spoil), like)


@pytest.mark.parametrize("case", ["STS_008", "STS_025"])
@pytest.mark.parametrize("modality", ["CT", "MR_T1", "PET"])
def test_contours_of_others_give_the_published_masks(shared_data, case, modality):
    folder = shared_data / "sts_ct_mr_pet"
    like = read_image(folder / f"dicom/{case}/{modality}/image")
    back = read_rtstruct(folder / f"dicom/{case}/{modality}/mask/RS.dcm", like)
    truth = read_labels(folder / f"nifti/{case}/{modality}_mask.nii.gz")
    turn = ornt_transform(io_orientation(truth.affine), io_orientation(like.affine))
    assert back.header == {1: f"GTV_Mass_{modality}"}
    assert np.array_equal(back.array[0], apply_orientation(truth.array[0], turn))


REAL = (
    "dicom_brain_mr_oblique/Study3/T1post",
    "dicom_brain_mr_oblique/Study3/HCropVolume",
    "dicom_dcm_qa/t1_sagittal_head_first_prone/in",
    "sts_ct_mr_pet/dicom/STS_008/PET/image",
)


@pytest.mark.parametrize("name", REAL)
def test_real_scans(shared_data, tmp_path, name):
    like = read_image(shared_data / name)
    labels = ball(like.shape)
    assert np.array_equal(
        read_rtstruct(write(tmp_path / "rt.dcm", labels, like), like).array[0], labels
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_dciodvfy_finds_no_error(shared_data, tmp_path, name):
    verify = shutil.which("dciodvfy")
    if verify is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    like = read_image(shared_data / name)
    path = write(tmp_path / "rt.dcm", ball(like.shape), like)
    found = subprocess.run([verify, path], capture_output=True, text=True, check=False).stderr
    # What the scan itself breaks, a study ID that is too long, is repeated on purpose.
    faults = [line for line in found.splitlines() if line.startswith("Error")]
    assert [
        line for line in faults if "Study ID" not in line and "invalid data val" not in line
    ] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_plastimatch_fills_the_same_voxels(shared_data, tmp_path, name):
    convert = shutil.which("plastimatch")
    if convert is None:
        pytest.skip("plastimatch (Debian package plastimatch) is not installed")
    like = read_image(shared_data / name)
    labels = ball(like.shape)
    path = write(tmp_path / "rt.dcm", labels, like)
    masks = tmp_path / "masks"
    folder = like.header.files[0].parent
    arguments = ["--input", path, "--referenced-ct", folder, "--output-prefix", masks]
    subprocess.run(
        [convert, "convert", *arguments, "--prefix-format", "nii"], check=True, capture_output=True
    )
    for label in LABELS:
        mask = nib.load(masks / f"{label.name}.nii")
        turn = ornt_transform(io_orientation(mask.affine), io_orientation(like.affine))
        seen = apply_orientation(np.asarray(mask.dataobj), turn) > 0
        assert np.array_equal(seen, labels == label.index)
