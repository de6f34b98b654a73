"""Structure sets of ours and of others become label maps, or are refused."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from nibabel.orientations import (
    apply_orientation,
    io_orientation,
    ornt_transform,
)
from pydicom.uid import generate_uid
from support import dicom as made
from support.studies import (
    ball,
    edited,
    labels_in,
    scan,
    write_rt,
)

from medseg.dicom_labels.rtstruct_reader import read_rtstruct
from medseg.errors import GeometryError, ScanError
from medseg.io import read_image, read_labels


def test_structures_are_chosen_by_name_in_order(tmp_path):
    like = scan(tmp_path)
    labels = labels_in(like.shape)
    path = write_rt(tmp_path / "rt.dcm", labels, like)
    back = read_rtstruct(path, like, ["thing", "liver"])
    assert np.array_equal(back.array[0], np.array([0, 2, 0, 1])[labels])
    assert back.header == {1: "thing", 2: "liver"}
    assert np.array_equal(
        read_rtstruct(path, like, "tumour").array[0], labels == 2
    )
    with pytest.raises(
        ScanError, match=r"has 0 structures of .*'Liver'.*liver, tumour, thing"
    ):
        read_rtstruct(path, like, "Liver")


def test_overlapping_structures_are_refused_unless_one_is_chosen(tmp_path):
    like = scan(tmp_path)
    labels = ball(like.shape)
    path = write_rt(tmp_path / "rt.dcm", labels, like)

    def copy(ds):
        ds.ROIContourSequence[2].ContourSequence = ds.ROIContourSequence[
            0
        ].ContourSequence

    edited(path, copy)
    with pytest.raises(
        ScanError, match=r"ROIs 1 and 3 overlap in .*'liver' and 'thing'"
    ):
        read_rtstruct(path, like)
    assert np.array_equal(
        read_rtstruct(path, like, "thing").array[0], labels == 1
    )


def test_repeated_contours_points_and_lines_do_no_harm(tmp_path):
    like = scan(tmp_path)
    labels = ball(like.shape)
    path = write_rt(tmp_path / "rt.dcm", labels, like)

    def add(ds):
        contours = ds.ROIContourSequence[0].ContourSequence
        contours.append(contours[0])
        for kind in ("POINT", "OPEN_PLANAR"):
            extra = pydicom.Dataset()
            extra.ContourGeometricType, extra.ContourData = (
                kind,
                ["1", "2", "3"],
            )
            contours.append(extra)

    back = read_rtstruct(edited(path, add), like)
    assert np.array_equal(back.array[0], labels)
    assert back.warnings == ("2 points or open lines of ROI 1 were left out",)


def test_contours_of_another_place_are_refused(tmp_path):
    like = scan(tmp_path)
    path = write_rt(tmp_path / "rt.dcm", ball(like.shape), like)
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
    assert any(
        "beyond the scan and were left out" in warning
        for warning in back.warnings
    )


def test_broken_and_foreign_files_are_refused(tmp_path):
    like = scan(tmp_path)
    path = write_rt(tmp_path / "rt.dcm", labels_in(like.shape), like)
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
    with pytest.raises(ScanError, match="not a DICOM RT Structure Set"):
        read_rtstruct(like.header.files[0], like)
    path.write_bytes(whole)

    def spoil(ds):
        ds.ROIContourSequence[0].ContourSequence[0].ContourData = [
            "1",
            "2",
            "3",
            "4",
        ]

    with pytest.raises(ScanError, match="the structure set is damaged"):
        read_rtstruct(edited(path, spoil), like)


@pytest.mark.parametrize("case", ["STS_008", "STS_025"])
@pytest.mark.parametrize("modality", ["CT", "MR_T1", "PET"])
def test_contours_of_others_give_the_published_masks(
    shared_data, case, modality
):
    folder = shared_data / "sts_ct_mr_pet"
    like = read_image(folder / f"dicom/{case}/{modality}/image")
    back = read_rtstruct(folder / f"dicom/{case}/{modality}/mask/RS.dcm", like)
    truth = read_labels(folder / f"nifti/{case}/{modality}_mask.nii.gz")
    turn = ornt_transform(
        io_orientation(truth.affine), io_orientation(like.affine)
    )
    assert back.header == {1: f"GTV_Mass_{modality}"}
    assert np.array_equal(
        back.array[0], apply_orientation(truth.array[0], turn)
    )
