"""Frames: where a file's slices lie and how they are scaled, as its header states it."""

from __future__ import annotations

import numpy as np
import pytest
from support import dicom as made

from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.frames import get_image_type, parse_uid, read_frames


def frame_of(tmp_path, **changes):
    (frame,) = read_frames(tmp_path / "file", made.series(**changes)[1])
    return frame


def test_pixels_are_located_by_position_orientation_and_spacing(tmp_path):
    frame = frame_of(tmp_path)
    between_rows, between_columns = made.SPACING
    start = made.ORIGIN + made.NORMAL * made.GAP
    assert np.allclose(frame.locate(0, 0), start)
    assert np.allclose(
        frame.locate(3, 0), start + 3 * between_columns * made.ROWS
    )
    assert np.allclose(
        frame.locate(0, 2), start + 2 * between_rows * made.COLUMNS
    )
    assert np.allclose(frame.normal, made.NORMAL)
    assert frame.corners == ((0, 0), (0, 4), (5, 0), (5, 4))


def test_rows_are_not_columns(tmp_path):
    frame = frame_of(tmp_path)
    assert (frame.columns, frame.rows) == made.SHAPE[:2]
    assert frame.spacing == made.SPACING
    assert frame.file_bytes == 2 * made.SHAPE[0] * made.SHAPE[1]


def test_every_frame_of_a_file_has_its_own_position_and_scaling(tmp_path):
    frames = list(
        read_frames(tmp_path / "file", made.enhanced(order=[2, 0, 3, 1]))
    )
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    heights = [
        float((frame.position - made.ORIGIN) @ made.NORMAL) for frame in frames
    ]
    assert np.allclose(heights, np.array([2, 0, 3, 1]) * made.GAP, atol=1e-5)
    assert [(frame.slope, frame.intercept) for frame in frames] == [
        (3, -2),
        (1, 0),
        (4, -3),
        (2, -1),
    ]
    assert all(frame.file_bytes == 4 * 2 * 30 for frame in frames)


def test_positions_for_more_or_fewer_frames_than_there_are_are_refused(
    tmp_path,
):
    ds = made.enhanced()
    del ds.PerFrameFunctionalGroupsSequence[-1]
    with pytest.raises(GeometryError, match="4 frames, but positions for 3"):
        list(read_frames(tmp_path / "file", ds))


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_scaling_that_is_no_number_is_refused(tmp_path, value):
    ds = made.series()[0]
    ds.RescaleIntercept = float(value)
    with pytest.raises(
        ScanError, match=r"RescaleIntercept is .* a finite number is needed"
    ):
        list(read_frames(tmp_path / "file", ds))


def test_positions_beyond_the_earth_are_refused(tmp_path):
    with pytest.raises(GeometryError, match="3 plausible numbers"):
        frame_of(tmp_path, ImagePositionPatient=[0, 0, 1e9])
    with pytest.raises(GeometryError, match="3 plausible numbers"):
        frame_of(tmp_path, ImagePositionPatient=[0, 0])


def test_scaling_is_1_and_0_unless_stated(tmp_path):
    frame = frame_of(tmp_path)
    assert (frame.slope, frame.intercept) == (1.0, 0.0)


def test_uids_are_kept_only_if_valid():
    assert parse_uid("1.2.840.4711") == "1.2.840.4711"
    for invalid in (
        "",
        None,
        "../etc",
        "1.2.MUSTERFRAU",
        "1.02",
        "1." + "2" * 63,
    ):
        assert parse_uid(invalid) == ""


def test_image_type_is_a_list_however_many_values_it_has():
    (ds, *_) = made.series()
    assert get_image_type(ds) == ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImageType = "ORIGINAL"
    assert get_image_type(ds) == ["ORIGINAL"]
    del ds.ImageType
    assert get_image_type(ds) == []
