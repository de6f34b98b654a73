"""A label map must be the same voxels after a DICOM SEG, for us and for other readers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid
from support import dicom as made
from support.dicom import dynamic
from support.studies import (
    LABELS,
    NOON,
    REAL_SCANS,
    blocks,
    labels_in,
    scan,
    write_seg,
)

from medseg.dicom_labels.seg_reader import read_dicom_seg
from medseg.dicom_labels.seg_writer import write_dicom_seg
from medseg.errors import OutputError
from medseg.io import find_series, read_image, read_labels


def seen_by_highdicom(path: Path, like) -> np.ndarray:
    """The label map as highdicom finds it by the slices that the frames refer to."""
    seg = highdicom.seg.segread(path)
    slices = like.header
    options = {
        "combine_segments": True,
        "assert_missing_frames_are_empty": True,
    }
    if len(set(slices.files)) == 1:
        numbers = [number + 1 for number in slices.frames]
        pixels = seg.get_pixels_by_source_frame(
            slices.sop_uids[0], numbers, **options
        )
    else:
        pixels = seg.get_pixels_by_source_instance(
            list(slices.sop_uids), **options
        )
    return pixels.transpose(2, 1, 0)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_voxels_come_back_for_us_and_for_highdicom(tmp_path, kind):
    like = scan(tmp_path)
    labels = labels_in(like.shape)
    path = write_seg(tmp_path / "seg.dcm", labels, like, kind=kind)
    back = read_dicom_seg(path, like)
    assert np.array_equal(back.array[0], labels)
    assert np.array_equal(back.affine, like.affine)
    assert back.header == {1: "liver", 2: "tumour", 3: "thing"}
    assert np.array_equal(seen_by_highdicom(path, like), labels)


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(8, 12), st.integers(2, 5)),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["binary", "labelmap"]),
    shear=st.floats(-0.9, 0.9),
)
def test_any_label_map_on_any_stack_comes_back(
    tmp_path_factory, shape, seed, kind, shear
):
    folder = tmp_path_factory.mktemp("seg")
    datasets = made.series(made.voxels(shape))
    for k, ds in enumerate(datasets):
        made.move(ds, shear * k * made.COLUMNS)
    like = read_image(made.save(folder / "ct", datasets))
    labels = labels_in(shape, seed) * (
        np.random.default_rng(seed).random(shape) < 0.3
    )
    path = write_seg(folder / "seg.dcm", labels, like, kind=kind)
    assert np.array_equal(read_dicom_seg(path, like).array[0], labels)
    assert np.array_equal(seen_by_highdicom(path, like), labels)


def test_frames_lie_where_their_slices_lie_on_a_tilted_series(tmp_path):
    datasets = made.series()
    for k, ds in enumerate(datasets):
        made.move(ds, 0.7 * k * made.ROWS)
    like = read_image(made.save(tmp_path / "ct", datasets))
    path = write_seg(tmp_path / "seg.dcm", np.ones(like.shape, np.uint8), like)
    seg = pydicom.dcmread(path)
    place = {ds.SOPInstanceUID: ds.ImagePositionPatient for ds in datasets}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(
            position, place[source.ReferencedSOPInstanceUID], atol=1e-6
        )


def test_a_multi_frame_scan_is_referred_to_by_frame(tmp_path):
    order = [2, 0, 3, 1]
    made.save(tmp_path / "mr", [made.enhanced(order=order)])
    like = read_image(tmp_path / "mr")
    labels = np.zeros(like.shape, np.uint8)
    labels[1:3, 2, 1] = 1
    path = write_seg(tmp_path / "seg.dcm", labels, like)
    (frame,) = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    source = frame.DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedFrameNumber == order.index(1) + 1
    assert source.ReferencedSOPInstanceUID == like.header.sop_uids[0]
    assert np.array_equal(seen_by_highdicom(path, like), labels)


def test_a_series_of_several_multi_frame_files(tmp_path):
    parts = [made.enhanced(order=[0, 1]), made.enhanced(order=[3, 2])]
    parts[1].SOPInstanceUID = parts[1].file_meta.MediaStorageSOPInstanceUID = (
        generate_uid()
    )
    like = read_image(made.save(tmp_path / "mr", parts))
    labels = labels_in(like.shape)
    path = write_seg(tmp_path / "seg.dcm", labels, like)
    seg = pydicom.dcmread(path)
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 2
    assert np.array_equal(read_dicom_seg(path, like).array[0], labels)


def test_absent_labels_keep_the_numbering(tmp_path):
    like = scan(tmp_path)
    labels = (labels_in(like.shape) == 3) * np.uint8(3)
    path = write_seg(tmp_path / "seg.dcm", labels, like)
    seg = pydicom.dcmread(path)
    assert [segment.SegmentNumber for segment in seg.SegmentSequence] == [
        1,
        2,
        3,
    ]
    assert seg.NumberOfFrames == like.shape[2]
    assert np.array_equal(read_dicom_seg(path, like).array[0], labels)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_nothing_found_is_a_result_too(tmp_path, kind):
    like = scan(tmp_path)
    path = write_seg(
        tmp_path / "seg.dcm", np.zeros(like.shape, np.uint8), like, kind=kind
    )
    assert pydicom.dcmread(path).NumberOfFrames == (
        3 if kind == "binary" else 1
    )
    assert not read_dicom_seg(path, like).array.any()


def test_the_same_result_is_the_same_object(tmp_path):
    like = scan(tmp_path)
    labels = labels_in(like.shape)
    first = write_seg(tmp_path / "a.dcm", labels, like, created=NOON)
    again = write_seg(
        tmp_path / "b.dcm", labels.astype(np.int64), like, created=NOON
    )
    assert first.read_bytes() == again.read_bytes()
    uids = set()
    for number, (changed, kind) in enumerate(
        [(labels, "labelmap"), (labels[::-1], "binary")]
    ):
        path = write_seg(tmp_path / f"{number}.dcm", changed, like, kind=kind)
        uids |= {
            pydicom.dcmread(path).SOPInstanceUID,
            pydicom.dcmread(path).SeriesInstanceUID,
        }
    ds = pydicom.dcmread(first)
    uids |= {ds.SOPInstanceUID, ds.SeriesInstanceUID}
    assert len(uids) == 6
    assert all(pydicom.uid.UID(uid).is_valid for uid in uids)
    assert (ds.ContentDate, ds.ContentTime) == ("20240506", "120000.000000")


@pytest.mark.parametrize("name", REAL_SCANS)
@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_real_scans(shared_data, tmp_path, name, kind):
    like = read_image(shared_data / name)
    labels = blocks(like.shape)
    path = write_seg(tmp_path / "seg.dcm", labels, like, kind=kind)
    assert np.array_equal(read_dicom_seg(path, like).array[0], labels)
    assert np.array_equal(seen_by_highdicom(path, like), labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_SCANS)
def test_dciodvfy_finds_no_error(shared_data, tmp_path, name):
    verify = shutil.which("dciodvfy")
    if verify is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    like = read_image(shared_data / name)
    path = write_seg(tmp_path / "seg.dcm", labels_in(like.shape), like)
    found = subprocess.run(
        [verify, path], capture_output=True, text=True, check=False
    ).stderr
    assert not [line for line in found.splitlines() if line.startswith("Error")]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_SCANS)
def test_dcmqi_reads_the_same_voxels(shared_data, tmp_path, name):
    convert = shutil.which("segimage2itkimage")
    if convert is None:
        pytest.skip("dcmqi's segimage2itkimage is not installed (PyPI: dcmqi)")
    like = read_image(shared_data / name)
    labels = labels_in(like.shape)
    path = write_seg(tmp_path / "seg.dcm", labels, like)
    arguments = [
        "--inputDICOM",
        path,
        "--outputDirectory",
        tmp_path,
        "--prefix",
        "s",
    ]
    subprocess.run(
        [convert, *arguments, "--mergeSegments"],
        check=True,
        capture_output=True,
    )
    back = read_labels(next(tmp_path.glob("s*.nrrd")))
    # SEG pixels on dcmqi's grid: it may turn the axes.
    seen = read_dicom_seg(path, back)
    assert np.array_equal(seen.array, back.array)
    assert np.array_equal(
        np.bincount(back.array.ravel()), np.bincount(labels.ravel())
    )


def test_a_segmentation_refers_to_the_frames_of_its_own_volume(tmp_path):
    folder = made.save(tmp_path / "scan", [dynamic()])
    one = find_series(folder)[0][1]
    volume = read_image(one.files, volume=one.volume)
    labels = (made.voxels(seed=9) % 3).astype(np.uint8)
    write_seg(tmp_path / "a.dcm", labels, volume)
    seg = highdicom.seg.segread(tmp_path / "a.dcm")
    numbers = [frame + 1 for frame in volume.header.frames]
    read = seg.get_pixels_by_source_frame(
        made_uid(folder),
        numbers,
        combine_segments=True,
        ignore_spatial_locations=True,
    )
    assert np.array_equal(read.transpose(2, 1, 0), labels)


def made_uid(folder: Path) -> str:
    (file,) = folder.iterdir()
    return str(pydicom.dcmread(file).SOPInstanceUID)


def test_whatever_makes_a_result_another_makes_it_another_object(tmp_path):
    like = scan(tmp_path)
    labels = labels_in(like.shape)
    ways: list[dict[str, Any]] = [
        {},
        {"version": "1.2.4"},
        {"algorithm": "other"},
        {"series_description": "other"},
        {"kind": "labelmap"},
        {"corrected": True},
    ]
    uids = set()
    for way in ways:
        write_dicom_seg(
            tmp_path / "seg.dcm",
            labels,
            like,
            LABELS,
            **{"version": "1.2.3"} | way,
        )
        uids.add(pydicom.dcmread(tmp_path / "seg.dcm").SOPInstanceUID)
    assert len(uids) == len(ways)


def test_a_corrected_mask_says_so(tmp_path):
    like = scan(tmp_path)
    path = write_seg(
        tmp_path / "seg.dcm", labels_in(like.shape), like, corrected=True
    )
    segments = pydicom.dcmread(path).SegmentSequence
    assert {segment.SegmentAlgorithmType for segment in segments} == {
        "SEMIAUTOMATIC"
    }


def test_slices_of_few_pixels_are_refused(tmp_path):
    like = read_image(
        made.save(tmp_path / "ct", made.series(made.voxels((7, 1, 3))))
    )
    with pytest.raises(OutputError, match="slices of 7 pixels are too small"):
        write_seg(tmp_path / "seg.dcm", labels_in(like.shape), like)
    assert not (tmp_path / "seg.dcm").exists()


def test_where_an_imported_model_comes_from_stands_in_every_segment(tmp_path):
    like = scan(tmp_path)
    origin = "nnU-Net v2 nnUNetTrainer__nnUNetPlans__3d_fullres of Dataset009, licence CC BY 4.0"
    path = write_seg(
        tmp_path / "seg.dcm", labels_in(like.shape), like, origin=origin
    )
    for segment in pydicom.dcmread(path).SegmentSequence:
        (stated,) = segment.SegmentationAlgorithmIdentificationSequence
        assert origin in stated.AlgorithmParameters
        assert stated.AlgorithmSource == origin[:64].strip()
    plain = write_seg(tmp_path / "plain.dcm", labels_in(like.shape), like)
    (stated, *_) = (
        pydicom.dcmread(plain)
        .SegmentSequence[0]
        .SegmentationAlgorithmIdentificationSequence
    )
    assert "AlgorithmSource" not in stated
