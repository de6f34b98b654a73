"""A label map must be the same voxels after an RTSTRUCT, for us and for other readers."""

from __future__ import annotations

import shutil
import subprocess

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import (
    apply_orientation,
    io_orientation,
    ornt_transform,
)
from support import dicom as made
from support.studies import (
    LABELS,
    NOON,
    REAL_SCANS,
    ball,
    labels_in,
    scan,
    write_rt,
)

from medseg.dicom_labels.rtstruct_reader import read_rtstruct
from medseg.errors import OutputError
from medseg.io import read_image


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(2, 4)),
    seed=st.integers(0, 1000),
    share=st.floats(0, 1),
    shear=st.floats(-0.9, 0.9),
)
def test_any_label_map_on_any_stack_comes_back(
    tmp_path_factory, shape, seed, share, shear
):
    folder = tmp_path_factory.mktemp("rt")
    datasets = made.series(made.voxels(shape))
    for k, ds in enumerate(datasets):
        made.move(ds, shear * k * made.COLUMNS)
    like = read_image(made.save(folder / "ct", datasets))
    labels = labels_in(shape, seed) * (
        np.random.default_rng(seed).random(shape) < share
    )
    back = read_rtstruct(write_rt(folder / "rt.dcm", labels, like), like)
    assert np.array_equal(back.array[0], labels)
    assert back.header == {1: "liver", 2: "tumour", 3: "thing"}
    assert back.warnings == ()


def test_contours_lie_in_the_plane_of_the_slice_they_refer_to(tmp_path):
    datasets = made.series()
    for k, ds in enumerate(datasets):
        made.move(ds, 0.7 * k * made.ROWS)
    like = read_image(made.save(tmp_path / "ct", datasets))
    rt = pydicom.dcmread(write_rt(tmp_path / "rt.dcm", ball(like.shape), like))
    place = {
        ds.SOPInstanceUID: np.array(ds.ImagePositionPatient, float)
        for ds in datasets
    }
    contours = rt.ROIContourSequence[0].ContourSequence
    assert {contour.ContourGeometricType for contour in contours} == {
        "CLOSED_PLANAR"
    }
    for contour in contours:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        origin = place[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        assert np.abs((points - origin) @ made.NORMAL).max() < 1e-4
        assert len(points) == contour.NumberOfContourPoints


def test_contours_surround_their_pixel_in_millimetres(tmp_path):
    like = scan(tmp_path)
    labels = np.zeros(like.shape, np.uint8)
    labels[4, 1, 2] = 1
    rt = pydicom.dcmread(write_rt(tmp_path / "rt.dcm", labels, like))
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
    assert np.isclose(
        np.abs((points - centre) @ made.ROWS).max(),
        between_columns / 2,
        atol=1e-4,
    )
    assert np.isclose(
        np.abs((points - centre) @ made.COLUMNS).max(),
        between_rows / 2,
        atol=1e-4,
    )


def test_a_multi_frame_scan_is_referred_to_by_frame(tmp_path):
    order = [2, 0, 3, 1]
    like = read_image(made.save(tmp_path / "mr", [made.enhanced(order=order)]))
    labels = np.zeros(like.shape, np.uint8)
    labels[1:3, 2, 1] = 1
    path = write_rt(tmp_path / "rt.dcm", labels, like)
    (contour,) = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    assert (
        contour.ContourImageSequence[0].ReferencedFrameNumber
        == order.index(1) + 1
    )
    assert np.array_equal(read_rtstruct(path, like).array[0], labels)


def test_structures_carry_name_colour_code_and_scan(tmp_path):
    like = scan(
        tmp_path, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Anna"
    )
    rt = pydicom.dcmread(
        write_rt(tmp_path / "rt.dcm", labels_in(like.shape), like)
    )
    assert [roi.ROIName for roi in rt.StructureSetROISequence] == [
        "liver",
        "tumour",
        "thing",
    ]
    assert list(rt.ROIContourSequence[1].ROIDisplayColor) == [70, 170, 255]
    liver, tumour, thing = rt.RTROIObservationsSequence
    assert liver.RTROIIdentificationCodeSequence[0].CodeValue == "10200004"
    assert (liver.RTROIInterpretedType, tumour.RTROIInterpretedType) == (
        "ORGAN",
        "",
    )
    assert "RTROIIdentificationCodeSequence" not in thing
    study = rt.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[
        0
    ]
    (series,) = study.RTReferencedSeriesSequence
    named = {
        item.ReferencedSOPInstanceUID for item in series.ContourImageSequence
    }
    assert named == set(like.header.sop_uids)
    assert series.SeriesInstanceUID == like.header.series
    assert str(rt.PatientName) == "Müller^Anna"
    assert rt.PatientSex == ""


def test_the_same_result_is_the_same_object(tmp_path):
    like = scan(tmp_path)
    labels = labels_in(like.shape)
    first = write_rt(tmp_path / "a.dcm", labels, like, created=NOON)
    again = write_rt(
        tmp_path / "b.dcm", labels.astype(np.int64), like, created=NOON
    )
    other = write_rt(tmp_path / "c.dcm", labels[::-1], like, created=NOON)
    assert first.read_bytes() == again.read_bytes()
    assert (
        pydicom.dcmread(first).SOPInstanceUID
        != pydicom.dcmread(other).SOPInstanceUID
    )


def test_nothing_found_is_a_result_too(tmp_path):
    like = scan(tmp_path)
    path = write_rt(tmp_path / "rt.dcm", np.zeros(like.shape, np.uint8), like)
    assert all(
        "ContourSequence" not in roi
        for roi in pydicom.dcmread(path).ROIContourSequence
    )
    assert not read_rtstruct(path, like).array.any()


def test_a_long_contour_is_whole(tmp_path):
    # More than 64 KiB in one element: the explicit transfer syntaxes have no room for it.
    folder = made.save(tmp_path / "ct", made.series(made.voxels((200, 200, 2))))
    like = read_image(folder)
    labels = np.zeros(like.shape, np.uint8)
    labels[0] = labels[:, ::4] = labels[::2, 1::4] = (
        1  # combs whose teeth have teeth
    )
    path = write_rt(tmp_path / "rt.dcm", labels, like)
    (contour, _) = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    assert (
        contour.NumberOfContourPoints * 3
        == len(contour.ContourData)
        > 64 * 1024 / 6
    )
    assert np.array_equal(read_rtstruct(path, like).array[0], labels)


def test_a_scan_that_cannot_be_referred_to_is_refused(tmp_path):
    like = scan(tmp_path, FrameOfReferenceUID=None)
    with pytest.raises(OutputError, match="no valid Frame of Reference UID"):
        write_rt(tmp_path / "rt.dcm", labels_in(like.shape), like)
    assert not (tmp_path / "rt.dcm").exists()


@pytest.mark.parametrize("name", REAL_SCANS)
def test_real_scans(shared_data, tmp_path, name):
    like = read_image(shared_data / name)
    labels = ball(like.shape)
    assert np.array_equal(
        read_rtstruct(write_rt(tmp_path / "rt.dcm", labels, like), like).array[
            0
        ],
        labels,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_SCANS)
def test_dciodvfy_finds_no_error(shared_data, tmp_path, name):
    verify = shutil.which("dciodvfy")
    if verify is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    like = read_image(shared_data / name)
    path = write_rt(tmp_path / "rt.dcm", ball(like.shape), like)
    found = subprocess.run(
        [verify, path], capture_output=True, text=True, check=False
    ).stderr
    assert not [line for line in found.splitlines() if line.startswith("Error")]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_SCANS)
def test_plastimatch_fills_the_same_voxels(shared_data, tmp_path, name):
    convert = shutil.which("plastimatch")
    if convert is None:
        pytest.skip("plastimatch (Debian package plastimatch) is not installed")
    like = read_image(shared_data / name)
    labels = ball(like.shape)
    path = write_rt(tmp_path / "rt.dcm", labels, like)
    masks = tmp_path / "masks"
    folder = like.header.files[0].parent
    arguments = [
        "--input",
        path,
        "--referenced-ct",
        folder,
        "--output-prefix",
        masks,
    ]
    subprocess.run(
        [convert, "convert", *arguments, "--prefix-format", "nii"],
        check=True,
        capture_output=True,
    )
    for label in LABELS:
        mask = nib.load(masks / f"{label.name}.nii")
        turn = ornt_transform(
            io_orientation(mask.affine), io_orientation(like.affine)
        )
        seen = apply_orientation(np.asarray(mask.dataobj), turn) > 0
        assert np.array_equal(seen, labels == label.index)
