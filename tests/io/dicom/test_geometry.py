"""Frames make up volumes, each placed exactly, or they are refused."""

from __future__ import annotations

import json
import time

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support import dicom as made
from support.dicom import two_echoes

from medseg.errors import GeometryError
from medseg.io import find_series, read_image
from medseg.io.dicom.frames import read_frames
from medseg.io.dicom.geometry import group_by_position
from medseg.io.dicom.stacks import split_stacks


@pytest.mark.parametrize("missing", [1, 2])
def test_a_missing_slice_is_refused_with_its_place(tmp_path, missing):
    array = made.voxels((6, 5, 7))
    datasets = made.series(array)
    gone = datasets.pop(missing)
    before = float(
        np.array(datasets[missing - 1].ImagePositionPatient, float)
        @ made.NORMAL
    )
    with pytest.raises(
        GeometryError, match=rf"1 slice\(s\) missing, after .* {before:.2f} mm"
    ):
        read_image(made.save(tmp_path, datasets))
    assert gone is not None


def test_variable_spacing_is_refused(tmp_path):
    datasets = made.series(made.voxels((6, 5, 6)))
    for k, ds in enumerate(datasets):
        made.move(ds, made.NORMAL * 0.05 * k**2)
    with pytest.raises(
        GeometryError, match=r"spacing varies from 2\.55 to 2\.95 mm"
    ):
        read_image(made.save(tmp_path, datasets))


def test_one_slice_off_the_line_is_refused(tmp_path):
    datasets = made.series()
    made.move(datasets[2], made.ROWS * 1.0)
    with pytest.raises(GeometryError, match="off a regular stack"):
        read_image(made.save(tmp_path, datasets))


def test_slices_that_are_not_parallel_are_refused(tmp_path):
    datasets = made.series(made.voxels((200, 5, 4)))
    turn = np.array(
        [[np.cos(0.002), np.sin(0.002)], [-np.sin(0.002), np.cos(0.002)]]
    )
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
        ds.ImagePositionPatient = (
            (axes[2] * spacing[2] * k + origin).round(6).tolist()
        )
    volume = read_image(made.save(tmp_path_factory.mktemp("rigid"), datasets))
    assert np.array_equal(volume.array[0], array)
    expected = np.eye(4)
    expected[:3, :3], expected[:3, 3] = axes.T * spacing, origin
    assert np.allclose(
        volume.affine, np.diag([-1, -1, 1, 1]) @ expected, atol=1e-4
    )


def test_an_incomplete_second_volume_is_refused(tmp_path):
    with pytest.raises(
        GeometryError, match="no element of their headers tells"
    ):
        read_image(made.save(tmp_path, two_echoes()[:-1]))


def test_localizers_and_odd_sizes_are_left_out_with_a_warning(tmp_path):
    uid = made.series()[0].SeriesInstanceUID
    scout = made.slice_dataset(
        made.voxels()[:, :, 0],
        9,
        uid,
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
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
    assert [read_image(one.files).shape for one in find_series(folder)[0]] == [
        made.SHAPE
    ] * 2


def test_enhanced_multi_frame_uses_each_frames_own_place_and_rescale(tmp_path):
    folder = made.save(tmp_path, [made.enhanced(order=[2, 0, 3, 1])])
    volume = read_image(folder)
    numbers = np.arange(4)
    # The factory stores frame k's pixels with slope k + 1 and intercept -k.
    assert np.array_equal(
        volume.array[0], made.voxels() * (numbers + 1.0) - numbers
    )
    assert np.allclose(volume.affine, made.affine(), atol=1e-5)
    assert volume.header.frames == (1, 3, 0, 2)


def test_a_single_slice_says_how_thick_it_is(tmp_path):
    folder = made.save(tmp_path, made.series()[:1])
    volume = read_image(folder)
    assert np.allclose(
        volume.affine[:3, 2], made.affine(gap=1.0)[:3, 2], atol=1e-6
    )
    assert "only one slice" in volume.warnings[0]


def test_a_real_tilt_is_the_one_that_was_measured(shared_data):
    folder = shared_data / "dicom_d2n_geometry"
    truth = json.loads((folder / "truth.json").read_text())[
        "failing/gantrytilting/001"
    ]
    volume = read_image(folder / "failing" / "gantrytilting" / "001")
    assert (
        f"sheared by {truth['series'][0]['shear_deg']}°" in volume.warnings[0]
    )


def test_many_orientations_end_soon(tmp_path):
    datasets = made.series(made.voxels((3, 3, 60)))
    for n, ds in enumerate(datasets):
        angle = n * 0.05
        ds.ImageOrientationPatient = [
            1,
            0,
            0,
            0,
            round(np.cos(angle), 9),
            round(np.sin(angle), 9),
        ]
    folder = made.save(tmp_path, datasets)
    start = time.monotonic()
    with pytest.raises(GeometryError, match="more than 50 orientations"):
        read_image(folder)
    assert len(find_series(folder)[0]) == 1
    assert time.monotonic() - start < 20


def test_all_missing_slices_are_counted(tmp_path):
    datasets = made.series(made.voxels((6, 5, 9)))
    del datasets[6], datasets[3], datasets[2]
    with pytest.raises(
        GeometryError,
        match=r"3 slice\(s\) missing, after the slice at -16\.26, -6\.26 mm",
    ):
        read_image(made.save(tmp_path, datasets))


@pytest.mark.parametrize(
    ("millimetres", "is_read"), [(0.08, True), (0.1, False)]
)
def test_a_corner_may_be_a_twentieth_of_a_millimetre_off_and_no_more(
    tmp_path, millimetres, is_read
):
    datasets = made.series()
    # Of four slices one is moved, and the fitted line follows it by 0.3 of the way; along x, the
    # longest part of the rows' direction, 0.7 · 0.8 of the way are left.
    made.move(datasets[1], made.ROWS * millimetres)
    folder = made.save(tmp_path, datasets)
    if is_read:
        assert np.array_equal(read_image(folder).array[0], made.voxels())
        return
    with pytest.raises(GeometryError, match="off a regular stack"):
        read_image(folder)


def test_thin_slices_have_to_lie_within_a_tenth_of_their_gap(tmp_path):
    datasets = made.series()
    for k, ds in enumerate(datasets):
        place = made.ORIGIN + made.NORMAL * (0.2 * k + 0.06 * (k == 1))
        ds.ImagePositionPatient = [round(float(x), 6) for x in place]
    with pytest.raises(GeometryError):
        read_image(made.save(tmp_path, datasets))


def test_volumes_at_different_positions_are_not_told_apart(tmp_path):
    datasets = two_echoes()
    for ds in datasets[4:]:
        made.move(ds, made.NORMAL * made.GAP)
    with pytest.raises(GeometryError, match="8 slices lie at 5 positions"):
        read_image(made.save(tmp_path, datasets))


def test_echoes_are_ordered_by_number_not_as_text(tmp_path):
    datasets = two_echoes()
    for ds in datasets[:4]:
        ds.EchoTime = 100
    stacks, _ = split_stacks(
        [frame for ds in datasets for frame in read_frames(tmp_path, ds)]
    )
    assert [stack.volume_name for stack in stacks] == [
        "EchoTime 80.0",
        "EchoTime 100.0",
    ]


def test_slices_nearer_than_a_hundredth_of_a_millimetre_share_a_position(
    tmp_path,
):
    datasets = made.series()
    made.move(datasets[1], made.NORMAL * (0.008 - made.GAP))
    made.move(datasets[2], made.NORMAL * (0.02 - 2 * made.GAP))
    frames = [frame for ds in datasets for frame in read_frames(tmp_path, ds)]
    groups = group_by_position(frames)
    assert [len(group) for group in groups] == [2, 1, 1]
