"""Several volumes in one file, and slices at uneven distances."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dicom as made

from medseg.datasets.scans import find_scans
from medseg.errors import GeometryError, ScanError
from medseg.inference.hashes import hash_scan
from medseg.io import find_series, read_image, write_labels
from medseg.io.dicom.rtstruct_writer import write_rtstruct
from medseg.io.dicom.seg_writer import write_dicom_seg
from medseg.labels import Label, LabelSet

LABELS = LabelSet((Label(1, "liver", 1, (200, 0, 0)), Label(2, "kidney", 2, (0, 200, 0))))


# --- several volumes in one multi-frame file ------------------------------------------------


def dynamic(points: int = 3) -> pydicom.FileDataset:
    """One file with several time points, their frames mixed; each has voxels of its own."""
    stacks = [made.voxels(seed=point) for point in range(points)]
    mixed = [(k, point) for k in (2, 0, 3, 1) for point in range(points)]
    array = np.stack([stacks[point][:, :, k] for k, point in mixed], axis=2)
    ds = made.enhanced(array, order=list(range(len(mixed))))
    frames = [made.enhanced().PerFrameFunctionalGroupsSequence[k] for k, _ in mixed]
    for frame, (k, point) in zip(frames, mixed, strict=True):
        frame.FrameContentSequence[0].TemporalPositionIndex = point + 1
        frame.FrameContentSequence[0].DimensionIndexValues = [k + 1, point + 1]
        (scaling,) = frame.PixelValueTransformationSequence
        scaling.RescaleSlope, scaling.RescaleIntercept = 1, 0
    ds.PerFrameFunctionalGroupsSequence = frames
    return ds


def test_time_points_in_one_file_are_found_and_read_one_by_one(tmp_path):
    folder = made.save(tmp_path, [dynamic()])
    with pytest.raises(GeometryError, match=r"holds 3 volumes \(TemporalPositionIndex 1; "):
        read_image(folder)
    found, skipped = find_series(folder)
    assert [one.volume_name for one in found] == [f"TemporalPositionIndex {n}" for n in (1, 2, 3)]
    assert all(one.shares_files for one in found)
    assert skipped == []
    for seed, one in enumerate(found):
        volume = read_image(one.files, volume=one.volume)
        assert np.array_equal(volume.array[0], made.voxels(seed=seed))
        assert np.allclose(volume.affine, made.affine(), atol=1e-5)
    with pytest.raises(ScanError, match="holds no volume 'TemporalPositionIndex 9'"):
        read_image(folder, volume="TemporalPositionIndex 9")


@pytest.mark.parametrize("as_file", [False, True])
def test_each_volume_in_a_file_is_a_scan_of_its_own(tmp_path, as_file):
    folder = made.save(tmp_path, [dynamic()])
    scans = find_scans(folder / "IM0000" if as_file else folder, 1).scans
    assert len({scan.name for scan in scans}) == 3
    assert len({hash_scan(scan) for scan in scans}) == 3
    assert {scan.volume for scan in scans} == {f"TemporalPositionIndex {n}" for n in (1, 2, 3)}


def test_volumes_told_apart_by_three_elements_at_once(tmp_path):
    ds = dynamic(8)
    for n, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        bits = n % 8
        content = frame.FrameContentSequence[0]
        content.TemporalPositionIndex = 1 + bits % 2
        content.DimensionIndexValues = [1 + bits // 2 % 2, 1 + bits // 4]
    found, _ = find_series(made.save(tmp_path, [ds]))
    arrays = [read_image(one.files, volume=one.volume).array[0] for one in found]
    expected = {made.voxels(seed=seed).tobytes() for seed in range(8)}
    assert {array.astype(np.uint16).tobytes() for array in arrays} == expected


def test_a_segmentation_refers_to_the_frames_of_its_own_volume(tmp_path):
    folder = made.save(tmp_path / "scan", [dynamic()])
    one = find_series(folder)[0][1]
    volume = read_image(one.files, volume=one.volume)
    labels = (made.voxels(seed=9) % 3).astype(np.uint8)
    write_dicom_seg(tmp_path / "a.dcm", labels, volume, LABELS, version="1")
    seg = highdicom.seg.segread(tmp_path / "a.dcm")
    numbers = [frame + 1 for frame in volume.header.frames]
    read = seg.get_pixels_by_source_frame(
        made_uid(folder), numbers, combine_segments=True, ignore_spatial_locations=True
    )
    assert np.array_equal(read.transpose(2, 1, 0), labels)


def made_uid(folder: Path) -> str:
    (file,) = folder.iterdir()
    return str(pydicom.dcmread(file).SOPInstanceUID)


# --- studies ------------------------------------------------------------------------------


def test_series_of_one_uid_in_two_studies_are_two(tmp_path):
    made.save(tmp_path / "a", made.series())
    other = made.series(made.voxels(seed=1), StudyInstanceUID="1.2.3")
    made.save(tmp_path / "b", [made.move(ds, made.NORMAL * made.GAP / 2) for ds in other])
    found, _ = find_series(tmp_path)
    assert [len(one.files) for one in found] == [4, 4]
    assert [one.study for one in found][1] == "1.2.3"
    scans = find_scans(tmp_path, 1).scans
    assert len({scan.name for scan in scans}) == 2
    arrays = [read_image(scan.parts[0]).array[0] for scan in scans]
    assert all(np.array_equal(a, made.voxels(seed=n)) for n, a in enumerate(arrays))


def test_series_are_named_by_their_headers_only_if_asked(tmp_path):
    facts = {"StudyDate": "20240101", "SeriesNumber": 7, "SeriesDescription": "../ä b\nc"}
    made.save(tmp_path / "Müller", made.series(**facts))
    (hashed,) = find_scans(tmp_path, 1).scans
    assert hashed.name.startswith("series-")
    (named,) = find_scans(tmp_path, 1, names_from_headers=True).scans
    assert named.name.startswith("ID-4711_20240101_7_")
    assert set("/\nä ").isdisjoint(named.name)
    (tmp_path / "scans.csv").write_text("name,scan\nmine,Müller\n,Müller/IM0000\n", "utf-8")
    scans = find_scans(tmp_path / "scans.csv", 1, names_from_headers=True).scans
    assert [scan.name[:7] for scan in scans] == ["mine", "ID-4711"]


# --- uneven slices ------------------------------------------------------------------------


def uneven(folder: Path, gaps: list[float], shear=(0.0, 0.0), gradient=(1.0, 2.0, 3.0)) -> Path:
    """A series at uneven distances whose intensities are linear in the place, LPS mm."""
    places = np.cumsum([0.0, *gaps])
    along = made.NORMAL + shear[0] * made.ROWS + shear[1] * made.COLUMNS
    datasets = made.series(np.zeros((6, 5, len(places)), np.uint16))
    i, j = np.mgrid[0:6, 0:5]
    for ds, place in zip(datasets, places, strict=True):
        ds.ImagePositionPatient = (made.ORIGIN + along * place).round(6).tolist()
        start = np.array(ds.ImagePositionPatient, float)
        columns = made.ROWS * made.SPACING[1]
        rows = made.COLUMNS * made.SPACING[0]
        at = start + i[..., None] * columns + j[..., None] * rows
        field = at @ np.array(gradient)
        ds.RescaleIntercept = 0
        ds.BitsAllocated, ds.FloatPixelData = 32, field.T.astype("<f4").tobytes()
        del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    return made.save(folder, datasets)


@settings(max_examples=40)
@given(
    gaps=st.lists(st.floats(0.4, 6), min_size=2, max_size=9).filter(lambda g: np.ptp(g) > 0.3),
    shear=st.tuples(*[st.floats(-0.4, 0.4)] * 2),
    gradient=st.tuples(*[st.floats(-5, 5)] * 3),
)
def test_a_field_linear_in_place_stays_the_same_field(tmp_path_factory, gaps, shear, gradient):
    folder = uneven(tmp_path_factory.mktemp("uneven"), gaps, shear, gradient)
    try:
        read_image(folder)
    except GeometryError as error:
        if "missing" in str(error):
            return  # looks like a lost slice, which nothing may replace
    volume = read_image(folder, resample_uneven=True)
    voxels = np.stack([*np.indices(volume.shape), np.ones(volume.shape)]).reshape(4, -1)
    places = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine @ voxels)[:3]
    field = (np.array(gradient) @ places).reshape(volume.shape)
    assert np.abs(volume.array[0] - field).max() < 2e-3
    assert volume.shape[2] <= 4 * (len(gaps) + 1)
    planes = volume.header.planes
    assert (planes[0], planes[-1]) == (0, volume.shape[2] - 1)
    starts = np.array([pydicom.dcmread(f).ImagePositionPatient for f in volume.header.files], float)
    ends = volume.affine @ np.array([[0, 0, 0, 1], [0, 0, volume.shape[2] - 1, 1]]).T
    assert np.allclose(ends[:3].T * [-1, -1, 1], starts[[0, -1]], atol=1e-4)


def test_uneven_slices_are_refused_unless_asked_for_and_said(tmp_path):
    folder = uneven(tmp_path, [1.0, 1.0, 1.5, 2.0, 3.0])
    with pytest.raises(GeometryError, match=r"varies from 1\.00 to 3\.00 mm.*--resample-uneven"):
        read_image(folder)
    volume = read_image(folder, resample_uneven=True)
    assert volume.spacing[2] == pytest.approx(8.5 / 9)
    assert "6 slices lie at uneven distances" in volume.warnings[0]
    assert "10 planes, 0.94 mm apart" in volume.warnings[0]


def test_a_lost_or_stray_slice_is_refused_all_the_same(tmp_path):
    datasets = made.series(made.voxels((6, 5, 7)))
    del datasets[3]
    with pytest.raises(GeometryError, match="missing"):
        read_image(made.save(tmp_path / "lost", datasets), resample_uneven=True)
    datasets = made.series(made.voxels((6, 5, 7)))
    for k, ds in enumerate(datasets):
        made.move(ds, made.NORMAL * 0.1 * k**2 + made.ROWS * (k == 3))
    with pytest.raises(GeometryError, match="not parallel or not in a straight line"):
        read_image(made.save(tmp_path / "stray", datasets), resample_uneven=True)


def test_even_slices_are_read_as_ever(tmp_path):
    folder = made.save(tmp_path, made.series())
    volume = read_image(folder, resample_uneven=True)
    assert np.array_equal(volume.array[0], made.voxels())
    assert volume.header.planes == ()


def test_dicom_results_lie_on_the_slices_and_nifti_on_the_grid(tmp_path):
    gaps = [1.0, 1.0, 1.5, 2.0, 3.0]
    volume = read_image(uneven(tmp_path / "scan", gaps), resample_uneven=True)
    labels = np.zeros(volume.shape, np.uint8)
    labels[1:4, 1:4, 2:8], labels[2:3, 2:3, 4:9] = 1, 2
    expected = labels[:, :, list(volume.header.planes)]
    write_dicom_seg(tmp_path / "a.dcm", labels, volume, LABELS, version="1")
    seg = highdicom.seg.segread(tmp_path / "a.dcm")
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert "SpacingBetweenSlices" not in measures
    uids = list(volume.header.sop_uids)
    read = seg.get_pixels_by_source_instance(
        uids,
        combine_segments=True,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    assert np.array_equal(read.transpose(2, 1, 0), expected)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        k = uids.index(source.ReferencedSOPInstanceUID)
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(place, pydicom.dcmread(volume.header.files[k]).ImagePositionPatient)
    write_rtstruct(tmp_path / "b.dcm", labels, volume, LABELS, version="1")
    heights = {
        round(
            float(
                (np.reshape(contour.ContourData, (-1, 3))[0].astype(float) - made.ORIGIN)
                @ made.NORMAL
            ),
            3,
        )
        for structure in pydicom.dcmread(tmp_path / "b.dcm").ROIContourSequence
        for contour in structure.get("ContourSequence", [])
    }
    filled = np.flatnonzero(expected.any(axis=(0, 1)))
    assert heights == {float(np.cumsum([0, *gaps])[k]) for k in filled}
    write_labels(tmp_path / "c.nii.gz", labels, volume)
    assert read_image(tmp_path / "c.nii.gz").on_same_grid(volume, 1e-4)
