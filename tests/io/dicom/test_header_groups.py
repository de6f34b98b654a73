"""A slice with a damaged header is a lost slice; a file that holds nothing is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import uid as uids
from support import dicom as made

from medseg.datasets.integrity import read_scan
from medseg.datasets.scans import find_scans
from medseg.errors import GeometryError, ScanError
from medseg.io import find_series, read_image

SLICES = 6
STUB = b"\0" * 128 + b"DICM"


def slices() -> list:
    return made.series(made.voxels((6, 5, SLICES)))


def set_class(ds, sop_class: str) -> None:
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class


# --- SOP classes --------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 2, SLICES - 1])
@pytest.mark.parametrize(
    "sop_class",
    [
        "1.2.840.10008.5.1.4.1.1.9",
        "1.2.3.4",
        "garbage",
        uids.SecondaryCaptureImageStorage,
        uids.MRImageStorage,
    ],
)
def test_a_slice_of_another_class_than_its_series_is_a_torn_one(
    tmp_path, k, sop_class
):
    datasets = slices()
    set_class(datasets[k], sop_class)
    folder = made.save(tmp_path, datasets)
    (found,), _ = find_series(folder)
    for files in (folder, found.files):
        with pytest.raises(
            ScanError, match=r"its SOP class is .* 'CT Image Storage'"
        ) as raised:
            read_image(files)
        assert "garbage" not in raised.value.message
        assert "1.2.3.4" not in raised.value.message


def test_a_file_of_another_class_that_is_no_slice_is_left_out(tmp_path):
    datasets = slices()
    report = made.slice_dataset(
        made.voxels((6, 5, 1))[:, :, 0], 9, datasets[0].SeriesInstanceUID
    )
    set_class(report, uids.SecondaryCaptureImageStorage)
    del report.ImagePositionPatient, report.ImageOrientationPatient
    other_size = made.slice_dataset(
        made.voxels((9, 9, 1))[:, :, 0], 9, datasets[0].SeriesInstanceUID
    )
    set_class(other_size, uids.SecondaryCaptureImageStorage)
    folder = made.save(tmp_path, [*datasets, report, other_size])
    volume = read_image(folder)
    assert volume.shape == (6, 5, SLICES)
    (warning,) = volume.warnings
    assert "2 file(s) left out: 'Secondary Capture" in warning
    (found,), skipped = find_series(folder)
    assert len(found.files) == SLICES
    assert len(skipped) == 2


def test_a_series_of_another_class_beside_is_left_alone(tmp_path):
    other = made.series(made.voxels((6, 5, SLICES)), name="other")
    for ds in other:
        set_class(ds, uids.SecondaryCaptureImageStorage)
    made.save(tmp_path / "a", slices())
    made.save(tmp_path / "b", other)
    (found,), skipped = find_series(tmp_path)
    assert read_image(found.files).warnings == ()
    assert len(skipped) == SLICES


def test_a_damaged_slice_among_others_goes_to_the_series_that_it_names(
    tmp_path,
):
    own, other = slices(), made.series(made.voxels((6, 5, SLICES)), "other")
    uid = own[0].SeriesInstanceUID
    made.save(tmp_path / "own", own[1:])
    made.save(tmp_path / "other", other)
    torn = made.save(tmp_path / "other", own[:1], "torn") / "torn0000"
    content = torn.read_bytes()
    torn.write_bytes(content[: content.index(uid.encode()) + len(uid) + 20])
    found, skipped = find_series(tmp_path)
    assert not skipped
    assert {each.uid: torn in each.files for each in found} == {
        uid: True,
        other[0].SeriesInstanceUID: False,
    }


# --- orphans ------------------------------------------------------------------------------


def warnings_of_scans(folder: Path) -> list[tuple[str, ...]]:
    scans = find_scans(folder, 1).scans
    volumes = [read_scan(scan, 1) for scan in scans]
    volumes.sort(key=lambda volume: -volume.shape[2])
    return [volume.warnings for volume in volumes]


@pytest.mark.parametrize("lost", [[0], [SLICES - 1], [0, 1]])
@pytest.mark.parametrize("uid", ["1.2.3", "", "1.2.broken"])
def test_a_series_that_lost_its_end_beside_an_orphan_is_told(
    tmp_path, lost, uid
):
    datasets = slices()
    for k in lost:
        datasets[k].SeriesInstanceUID = uid
    first, *_ = warnings_of_scans(made.save(tmp_path, datasets))
    (warning,) = first
    assert warning.startswith(
        f"{len(lost)} slice(s) of another series continue"
    )
    with pytest.raises(ScanError, match="2 DICOM series"):
        read_image(tmp_path)


def test_an_orphan_in_another_folder_is_told_too(tmp_path):
    datasets = slices()
    datasets[-1].SeriesInstanceUID = "1.2.3"
    made.save(tmp_path / "a", datasets[:-1])
    made.save(tmp_path / "b", datasets[-1:])
    first, *_ = warnings_of_scans(tmp_path)
    assert "continue this one at its end" in first[0]


@pytest.mark.parametrize("away", ["far", "inside", "turned", "frame"])
def test_a_lone_slice_elsewhere_is_no_orphan(tmp_path, away):
    datasets = slices()
    lone = datasets.pop()
    lone.SeriesInstanceUID = "1.2.3"
    if away == "far":
        made.move(lone, made.NORMAL * made.GAP)
    elif away == "inside":
        lone.ImagePositionPatient = datasets[2].ImagePositionPatient
    elif away == "turned":
        lone.ImageOrientationPatient = [*made.COLUMNS, *made.ROWS]
    else:
        lone.FrameOfReferenceUID = "1.2.4"
    first, *_ = warnings_of_scans(made.save(tmp_path, [*datasets, lone]))
    assert first == ()


def test_two_whole_series_that_continue_each_other_are_no_orphans(tmp_path):
    datasets = made.series(made.voxels((6, 5, 8)))
    for ds in datasets[4:]:
        ds.SeriesInstanceUID = "1.2.3"
    assert warnings_of_scans(made.save(tmp_path, datasets)) == [(), ()]


# --- stubs --------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [STUB, STUB + b"\xff" * 50, STUB + b"\0"])
@pytest.mark.parametrize("name", ["stub", "stub.dcm"])
def test_one_stub_beside_a_complete_stack_is_set_aside(tmp_path, content, name):
    folder = made.save(tmp_path, slices())
    (folder / name).write_bytes(content)
    (found,), _ = find_series(folder)
    for files in (folder, found.files):
        volume = read_image(files)
        assert np.array_equal(volume.array[0], made.voxels((6, 5, SLICES)))
        (warning,) = volume.warnings
        assert warning.startswith("1 damaged DICOM file left out")
    (told,) = warnings_of_scans(folder)
    assert told == volume.warnings


def test_several_stubs_are_slices_that_were_lost(tmp_path):
    folder = made.save(tmp_path, slices())
    for name in ("one", "two"):
        (folder / name).write_bytes(STUB)
    (found,), _ = find_series(folder)
    for files in (folder, found.files):
        with pytest.raises(ScanError, match="damaged or truncated DICOM"):
            read_image(files)


def test_a_stub_in_place_of_a_slice_within_leaves_a_hole(tmp_path):
    datasets = slices()
    del datasets[2]
    folder = made.save(tmp_path, datasets)
    (folder / "stub").write_bytes(STUB)
    with pytest.raises(GeometryError, match=r"1 slice\(s\) missing"):
        read_image(folder)


def test_a_stub_alone_is_a_damaged_file(tmp_path):
    (tmp_path / "stub").write_bytes(STUB)
    with pytest.raises(ScanError, match="damaged or truncated DICOM"):
        read_image(tmp_path)
    assert find_series(tmp_path)[0] == []


def test_a_large_file_without_a_header_is_no_stub(tmp_path):
    folder = made.save(tmp_path, slices())
    (folder / "slice").write_bytes(STUB + b"\xff" * 2000)
    with pytest.raises(ScanError, match="damaged or truncated DICOM"):
        read_image(folder)


def test_a_stub_stays_with_each_volume_of_its_series(tmp_path):
    folder = made.save(tmp_path, made.two_echoes())
    (folder / "stub").write_bytes(STUB)
    found, _ = find_series(folder)
    assert len(found) == 2
    for series in found:
        (warning,) = read_image(series.files).warnings
        assert "1 damaged DICOM file left out" in warning


def test_companions_that_archives_hold_are_no_slices(tmp_path):
    folder = made.save(tmp_path, slices())
    (folder / "._IM0001.dcm").write_bytes(b"\0\5\x16\7" + b"\0" * 100)
    (found,), skipped = find_series(folder)
    assert skipped == []
    assert read_image(folder).warnings == ()
    assert len(found.files) == SLICES
