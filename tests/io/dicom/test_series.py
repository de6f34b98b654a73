"""Series are found by their headers, whatever files and folders are called."""

from __future__ import annotations

import numpy as np
import pytest
from support import dicom as made
from support.dicom import dynamic, two_echoes

from medseg.datasets.scans import find_scans
from medseg.errors import GeometryError, ScanError
from medseg.inference.hashes import hash_scan
from medseg.io import find_series, read_image


def test_several_volumes_are_refused_as_one_and_found_as_two(tmp_path):
    folder = made.save(tmp_path, two_echoes())
    with pytest.raises(
        GeometryError, match=r"hold 2 volumes; .*\(EchoTime 4\.6; EchoTime 80"
    ):
        read_image(folder)
    found, skipped = find_series(folder)
    assert [one.volume_name for one in found] == [
        "EchoTime 4.6",
        "EchoTime 80.0",
    ]
    assert skipped == []
    for seed, one in enumerate(found, start=1):
        assert np.array_equal(
            read_image(one.files).array[0], made.voxels(seed=seed)
        )


def test_time_points_are_told_apart_without_telling_the_time(tmp_path):
    datasets = two_echoes()
    for n, ds in enumerate(datasets):
        ds.EchoTime = 5
        ds.AcquisitionTime = f"1012{10 + n // 4}.5"
    found, _ = find_series(made.save(tmp_path, datasets))
    assert [one.volume_name for one in found] == [
        "AcquisitionTime #1",
        "AcquisitionTime #2",
    ]


def test_a_series_lies_in_several_folders_and_a_folder_holds_several(tmp_path):
    one, other = (
        made.series(name="one"),
        made.series(made.voxels(seed=5), name="other"),
    )
    made.save(tmp_path / "a", [*one[:2], *other], prefix="x")
    made.save(tmp_path / "b" / "c", one[2:], prefix="y")
    (tmp_path / "notes.txt").write_text("no DICOM")
    counts: list[int] = []
    found, skipped = find_series(tmp_path, progress=counts.append)
    arrays = {one.uid: read_image(one.files).array[0] for one in found}
    assert np.array_equal(arrays[one[0].SeriesInstanceUID], made.voxels())
    assert np.array_equal(
        arrays[other[0].SeriesInstanceUID], made.voxels(seed=5)
    )
    assert [(s.file.name, s.reason) for s in skipped] == [
        ("notes.txt", "not DICOM")
    ]
    assert counts == list(range(1, 10))
    with pytest.raises(ScanError, match="hold 2 DICOM series"):
        read_image(tmp_path)


def test_series_without_a_uid_are_one_per_folder(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        made.save(
            tmp_path / name,
            made.series(made.voxels(seed=seed), SeriesInstanceUID=""),
        )
    found, _ = find_series(tmp_path)
    assert [one.files[0].parent.name for one in found] == ["a", "b"]


@pytest.mark.parametrize("size", [140, 250, 330, 600, 700])
def test_a_damaged_slice_is_not_just_skipped_by_the_search(tmp_path, size):
    folder = made.save(tmp_path, made.series())
    (folder / "IM0001").write_bytes((folder / "IM0001").read_bytes()[:size])
    (found,), _ = find_series(folder)
    with pytest.raises(ScanError, match="IM0001"):
        read_image(found.files)


def test_a_lost_file_of_a_dicom_name_is_not_just_skipped_either(tmp_path):
    folder = made.save(tmp_path, made.series())
    (folder / "gone.dcm").symlink_to(tmp_path / "nowhere")
    (found,), _ = find_series(folder)
    for files in (folder, found.files):
        with pytest.raises(ScanError, match=r"gone\.dcm"):
            read_image(files)


def test_a_damaged_file_beside_two_series_harms_neither(tmp_path):
    made.save(tmp_path, made.series(name="one"), prefix="a")
    made.save(tmp_path, made.series(name="two"), prefix="b")
    (tmp_path / "broken").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    found, skipped = find_series(tmp_path)
    assert [len(one.files) for one in found] == [4, 4]
    assert [(one.file.name, one.reason[:7]) for one in skipped] == [
        ("broken", "damaged")
    ]


def test_time_points_in_one_file_are_found_and_read_one_by_one(tmp_path):
    folder = made.save(tmp_path, [dynamic()])
    with pytest.raises(
        GeometryError, match=r"hold 3 volumes; .*\(TemporalPositionIndex 1; "
    ):
        read_image(folder)
    found, skipped = find_series(folder)
    assert [one.volume_name for one in found] == [
        f"TemporalPositionIndex {n}" for n in (1, 2, 3)
    ]
    assert all(one.shares_files for one in found)
    assert skipped == []
    for seed, one in enumerate(found):
        volume = read_image(one.files, volume=one.volume)
        assert np.array_equal(volume.array[0], made.voxels(seed=seed))
        assert np.allclose(volume.affine, made.affine(), atol=1e-5)
    with pytest.raises(
        ScanError, match=r"hold 0 volumes of .*'TemporalPositionIndex 9'"
    ):
        read_image(folder, volume="TemporalPositionIndex 9")


@pytest.mark.parametrize("as_file", [False, True])
def test_each_volume_in_a_file_is_a_scan_of_its_own(tmp_path, as_file):
    folder = made.save(tmp_path, [dynamic()])
    scans = find_scans(folder / "IM0000" if as_file else folder, 1).scans
    assert len({scan.name for scan in scans}) == 3
    assert len({hash_scan(scan) for scan in scans}) == 3
    assert {scan.volume for scan in scans} == {
        f"TemporalPositionIndex {n}" for n in (1, 2, 3)
    }


def test_volumes_told_apart_by_three_elements_at_once(tmp_path):
    ds = dynamic(8)
    for n, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        bits = n % 8
        content = frame.FrameContentSequence[0]
        content.TemporalPositionIndex = 1 + bits % 2
        content.DimensionIndexValues = [1 + bits // 2 % 2, 1 + bits // 4]
    found, _ = find_series(made.save(tmp_path, [ds]))
    arrays = [
        read_image(one.files, volume=one.volume).array[0] for one in found
    ]
    expected = {made.voxels(seed=seed).tobytes() for seed in range(8)}
    assert {array.astype(np.uint16).tobytes() for array in arrays} == expected


def test_series_of_one_uid_in_two_studies_are_two(tmp_path):
    made.save(tmp_path / "a", made.series())
    other = made.series(made.voxels(seed=1), StudyInstanceUID="1.2.3")
    made.save(
        tmp_path / "b",
        [made.move(ds, made.NORMAL * made.GAP / 2) for ds in other],
    )
    found, _ = find_series(tmp_path)
    assert [len(one.files) for one in found] == [4, 4]
    assert [one.study for one in found][1] == "1.2.3"
    scans = find_scans(tmp_path, 1).scans
    assert len({scan.name for scan in scans}) == 2
    arrays = [read_image(scan.parts[0]).array[0] for scan in scans]
    assert all(
        np.array_equal(a, made.voxels(seed=n)) for n, a in enumerate(arrays)
    )
