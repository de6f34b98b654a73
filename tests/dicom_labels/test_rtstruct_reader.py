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


@pytest.mark.parametrize(
    "kind",
    [
        "closed_planar",
        "Closed Planar",
        "CLOSED-PLANAR",
        "INTERPOLATED_PLANAR",
        "",
        None,
    ],
)
def test_closed_polygons_are_read_whatever_their_type_is_called(tmp_path, kind):
    like = scan(tmp_path)
    labels = ball(like.shape)
    path = edited(write_rt(tmp_path / "rt.dcm", labels, like), retype_all(kind))
    back = read_rtstruct(path, like)
    assert np.array_equal(back.array[0], labels)
    is_closed_by_name = bool(kind) and kind.lower().startswith("closed")
    assert is_closed_by_name == (back.warnings == ())
    assert is_closed_by_name or "no type that DICOM defines" in " ".join(
        back.warnings
    )


@pytest.mark.parametrize("kind", ["OPEN_PLANAR", "open_nonplanar", "POINT"])
def test_a_named_structure_of_lines_alone_is_refused(tmp_path, kind):
    like = scan(tmp_path)
    labels = labels_in(like.shape)
    path = write_rt(tmp_path / "rt.dcm", labels, like)
    edited(path, retype_all(kind, roi=1))
    with pytest.raises(
        ScanError, match=r"ROI 2 is drawn as points and open lines.*'tumour'"
    ):
        read_rtstruct(path, like, ["liver", "tumour"])
    # Whoever reads all that there is gets the rest.
    back = read_rtstruct(path, like)
    assert np.array_equal(back.array[0], np.where(labels == 2, 0, labels))
    assert "lines of ROI 2 were left out" in " ".join(back.warnings)


def test_a_named_structure_without_contours_is_absent(tmp_path):
    like = scan(tmp_path)
    labels = np.where(ball(like.shape) == 1, 1, 0)
    path = write_rt(tmp_path / "rt.dcm", labels, like)
    back = read_rtstruct(path, like, ["liver", "tumour"])
    assert np.array_equal(back.array[0], labels)
    assert back.warnings == ("ROI 2 has no contours, so no voxels",)


def test_an_untyped_line_in_space_is_no_polygon(tmp_path):
    like = scan(tmp_path)
    labels = ball(like.shape)
    path = write_rt(tmp_path / "rt.dcm", labels, like)

    def bend(ds):
        catheter = pydicom.Dataset()
        catheter.NumberOfContourPoints = 4
        corners = [(0, 0, 0), (5, 0, 3), (5, 5, 9), (0, 5, 20)]
        catheter.ContourData = [f"{x}" for point in corners for x in point]
        ds.ROIContourSequence[0].ContourSequence.append(catheter)

    back = read_rtstruct(edited(path, bend), like)
    assert np.array_equal(back.array[0], labels)
    assert back.warnings == ("1 points or open lines of ROI 1 were left out",)


def test_xor_contours_turn_over_what_others_enclose(tmp_path):
    like = scan(tmp_path)
    labels = ball(like.shape)
    path = write_rt(tmp_path / "rt.dcm", labels, like)

    def double(ds):
        contours = ds.ROIContourSequence[0].ContourSequence
        contours.append(contours[0])

    edited(path, double)
    # A repeat of a closed contour says the same again; of an XOR contour it takes it away.
    assert np.array_equal(read_rtstruct(path, like).array[0], labels)
    edited(path, retype_all("CLOSEDPLANAR_XOR", roi=0))
    once = read_rtstruct(path, like).array[0]
    first = np.flatnonzero((labels == 1).any(axis=(0, 1)))[0]
    assert not (once[:, :, first] == 1).any()
    assert np.array_equal(once[:, :, first + 1 :], labels[:, :, first + 1 :])


def test_what_is_odd_in_contours_is_said(tmp_path):
    shown = made.series(made.voxels((6, 5, 6)))
    like = read_image(made.save(tmp_path / "ct", shown))
    labels = np.zeros(like.shape, np.uint8)
    labels[1:4, 1:4, ::2] = 1
    path = write_rt(tmp_path / "rt.dcm", labels, like)

    def lose_points(ds):
        contour = ds.ROIContourSequence[0].ContourSequence[0]
        contour.NumberOfContourPoints += 5

    back = read_rtstruct(edited(path, lose_points), like)
    assert np.array_equal(back.array[0], labels)
    missing, apart = back.warnings
    assert "1 contours of ROI 1 have another number of points" in missing
    assert "lie at least 2 slices apart" in apart


def test_contours_that_hold_no_voxel_are_said_or_refused(tmp_path):
    like = scan(tmp_path)
    labels = np.zeros(like.shape, np.uint8)
    labels[2, 2, 1] = 1
    path = write_rt(tmp_path / "rt.dcm", labels, like)

    def shrink(ds):
        contour = ds.ROIContourSequence[0].ContourSequence[0]
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        corner = points[0]
        smaller = corner + (points - corner) * 0.2
        contour.ContourData = [f"{x:.4f}" for x in smaller.ravel()]

    back = read_rtstruct(edited(path, shrink), like)
    assert not back.array.any()
    assert "enclose no centre of a voxel" in back.warnings[0]
    beside = like.affine.copy()
    beside[:3, 3] += like.affine[:3, 0] * 1000
    with pytest.raises(GeometryError, match="lie outside the scan"):
        read_rtstruct(path, type(like)(like.array, beside))


def test_structures_that_share_a_number_are_refused(tmp_path):
    like = scan(tmp_path)
    path = write_rt(tmp_path / "rt.dcm", ball(like.shape), like)

    def renumber(ds):
        ds.StructureSetROISequence[1].ROINumber = 1

    with pytest.raises(ScanError, match="two structures have the ROI Number 1"):
        read_rtstruct(edited(path, renumber), like)


def retype_all(kind, roi=None):
    """Return a change that gives contours another type, or none."""

    def retype(ds):
        items = ds.ROIContourSequence
        for item in items if roi is None else [items[roi]]:
            for contour in item.get("ContourSequence", ()):
                del contour.ContourGeometricType
                if kind is not None:
                    element = pydicom.DataElement(
                        0x30060042,
                        "CS",
                        kind,
                        validation_mode=pydicom.config.IGNORE,
                    )
                    contour.add(element)

    return retype


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
