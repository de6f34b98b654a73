"""Several volumes of a series: told apart by headers, or by instance numbers if asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import dicom as made

from medseg.datasets.scans import find_scans
from medseg.errors import GeometryError, MedsegError
from medseg.io import find_series, read_image

TIMES = 3
POSITIONS = 4
BY_NUMBER = "instance-number"


def times(numbers: np.ndarray) -> list:
    """Slices of several volumes; ``numbers`` are their instance numbers, (time, position)."""
    datasets = []
    for time in range(TIMES):
        volume = made.series(made.voxels(seed=time))
        for k, ds in enumerate(volume):
            ds.InstanceNumber = int(numbers[time, k])
            ds.SOPInstanceUID += f".{time}"
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        datasets.extend(volume)
    return datasets


VOLUME_AFTER_VOLUME = np.arange(12).reshape(TIMES, POSITIONS) + 1
POSITION_AFTER_POSITION = np.arange(12).reshape(POSITIONS, TIMES).T + 1
INTERLEAVED = VOLUME_AFTER_VOLUME[:, [2, 0, 3, 1]]
WITH_GAPS = VOLUME_AFTER_VOLUME * 10
CLEAN = [VOLUME_AFTER_VOLUME, POSITION_AFTER_POSITION, INTERLEAVED, WITH_GAPS]


@pytest.mark.parametrize("numbers", CLEAN)
def test_volumes_are_split_by_instance_numbers_if_asked(tmp_path, numbers):
    folder = made.save(tmp_path, times(numbers))
    (unsplit,), _ = find_series(folder)
    for files in (folder, unsplit.files):
        with pytest.raises(
            GeometryError,
            match=r"12 slices lie at 4 positions, .*--split-4d instance-number",
        ):
            read_image(files)
    found, skipped = find_series(folder, split_4d=BY_NUMBER)
    assert skipped == []
    assert [one.volume_name for one in found] == [
        f"InstanceNumber #{n}" for n in (1, 2, 3)
    ]
    for time, one in enumerate(found):
        volume = read_image(one.files, volume=one.volume)
        assert np.array_equal(volume.array[0], made.voxels(seed=time))
        assert np.allclose(volume.affine, made.affine(), atol=1e-5)
        assert volume.warnings == ()


def mixed(seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(12) + 1
    return order.reshape(TIMES, POSITIONS)


TURNED = VOLUME_AFTER_VOLUME.copy()
TURNED[1] = TURNED[1, ::-1]
TWICE = VOLUME_AFTER_VOLUME.copy()
TWICE[2] = TWICE[1]


@pytest.mark.parametrize("numbers", [mixed(0), mixed(1), TURNED, TWICE])
def test_numbers_that_make_no_clean_volumes_split_nothing(tmp_path, numbers):
    folder = made.save(tmp_path, times(numbers))
    (found,), _ = find_series(folder, split_4d=BY_NUMBER)
    with pytest.raises(
        GeometryError, match="neither do their instance numbers"
    ) as raised:
        read_image(found.files)
    assert "--split-4d" not in raised.value.message


def test_a_volume_that_lacks_a_slice_is_not_split_off(tmp_path):
    datasets = times(VOLUME_AFTER_VOLUME)[:-1]
    (found,), _ = find_series(made.save(tmp_path, datasets), split_4d=BY_NUMBER)
    with pytest.raises(GeometryError, match="neither do their instance"):
        read_image(found.files)


@pytest.mark.parametrize("broken", ["", "1a", None])
def test_broken_instance_numbers_split_nothing_and_harm_nothing(
    tmp_path, broken
):
    datasets = made.series()
    for ds in datasets:
        del ds.InstanceNumber
        if broken is not None:
            ds.add_new("InstanceNumber", "LO", broken)
    volume = read_image(made.save(tmp_path, datasets))
    assert np.array_equal(volume.array[0], made.voxels())


def test_headers_come_before_instance_numbers(tmp_path):
    folder = made.save(tmp_path, made.two_echoes())
    found, _ = find_series(folder, split_4d=BY_NUMBER)
    assert [one.volume_name for one in found] == [
        "EchoTime 4.6",
        "EchoTime 80.0",
    ]


def test_one_volume_stays_one(tmp_path):
    (found,), _ = find_series(
        made.save(tmp_path, made.series()), split_4d=BY_NUMBER
    )
    assert found.volume_name == ""


def test_nothing_else_can_be_split_by(tmp_path):
    folder = made.save(tmp_path, made.series())
    with pytest.raises(
        MedsegError, match="split by instance-number, got 'time'"
    ):
        find_series(folder, split_4d="time")


def test_volumes_have_names_of_their_own_in_results(tmp_path):
    folder = made.save(tmp_path, times(VOLUME_AFTER_VOLUME))
    scans = find_scans(folder, 1, split_4d=BY_NUMBER).scans
    assert len({scan.name for scan in scans}) == TIMES
    assert all(scan.name.startswith("series-") for scan in scans)


@pytest.mark.parametrize(
    ("name", "times", "shape"),
    [
        ("dicom_dcm_qa/ge_4d_epi/in", 10, (64, 64, 15)),
        ("dicom_d2n_geometry/ge/dti/002", 4, (64, 64, 4)),
    ],
)
def test_real_series_are_split_by_instance_numbers(
    shared_data, name, times, shape
):
    found, _ = find_series(shared_data / name, split_4d=BY_NUMBER)
    volumes = [read_image(one.files) for one in found]
    assert len(volumes) == times
    assert {volume.shape for volume in volumes} == {shape}
    for volume in volumes:
        assert np.array_equal(volume.affine, volumes[0].affine)


# --- acquisitions that overlap ------------------------------------------------------------


def part(
    start: float, count: int, acquisition: int, gap: float = made.GAP
) -> list:
    """A stack that begins some mm along the normal."""
    datasets = made.series(
        made.voxels((6, 5, count), seed=acquisition),
        AcquisitionNumber=acquisition,
    )
    for k, ds in enumerate(datasets):
        place = made.ORIGIN + made.NORMAL * (start + gap * k)
        ds.ImagePositionPatient = place.round(6).tolist()
        ds.SOPInstanceUID += f".{acquisition}"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return datasets


@pytest.mark.parametrize("start", [10.0, 11.25, 12.1])
def test_stacks_that_overlap_are_told_apart_by_acquisition(tmp_path, start):
    folder = made.save(tmp_path, [*part(0, 8, 1), *part(start, 9, 2)])
    found, _ = find_series(folder)
    assert [one.volume_name for one in found] == [
        "AcquisitionNumber 1",
        "AcquisitionNumber 2",
    ]
    for acquisition, (one, count) in enumerate(
        zip(found, (8, 9), strict=True), 1
    ):
        volume = read_image(one.files)
        expected = made.voxels((6, 5, count), seed=acquisition)
        assert np.array_equal(volume.array[0], expected)


def refused(folder: Path, datasets: list) -> str:
    (found,), _ = find_series(made.save(folder, datasets))
    with pytest.raises(GeometryError) as raised:
        read_image(found.files)
    return raised.value.message


def test_acquisitions_with_a_hole_between_them_are_one_that_lacks_slices(
    tmp_path,
):
    datasets = [*part(0, 5, 1), *part(made.GAP * 6, 5, 2)]
    assert "1 slice(s) missing" in refused(tmp_path, datasets)


def test_acquisitions_that_join_are_one_volume(tmp_path):
    folder = made.save(tmp_path, [*part(0, 5, 1), *part(made.GAP * 5, 5, 2)])
    assert read_image(folder).shape == (6, 5, 10)


@pytest.mark.parametrize(("first", "count"), [(0, 5), (1, 5), (2, 4), (0, 4)])
def test_an_acquisition_that_lacks_an_end_slice_is_not_split_off(
    tmp_path, first, count
):
    datasets = [*part(0, 6, 1), *part(made.GAP * first, count, 2)]
    message = f"{6 + count} slices lie at 6 positions"
    assert message in refused(tmp_path, datasets)


def test_interleaved_acquisitions_that_lack_a_slice_are_refused(tmp_path):
    odd = part(0, 6, 1, gap=5)
    even = part(2.5, 6, 2, gap=5)
    assert read_image(made.save(tmp_path / "whole", odd + even)).shape[2] == 12
    assert "missing" in refused(tmp_path / "torn", odd + even[1:])


def test_an_overlapping_stack_with_a_hole_is_refused(tmp_path):
    upper = part(10, 9, 2)
    del upper[4]
    assert "positions" in refused(tmp_path, [*part(0, 8, 1), *upper])
