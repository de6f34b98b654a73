"""A label map must be the same voxels after a DICOM SEG, for us and for other readers."""

from __future__ import annotations

import json
import shutil
import subprocess
import warnings
from datetime import datetime
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid
from support import dicom as made

from medseg.errors import GeometryError, OutputError, ScanError
from medseg.io import read_image, read_labels, write_labels
from medseg.io.dicom.seg_reader import read_dicom_seg
from medseg.io.dicom.seg_writer import write_dicom_seg
from medseg.labels import Label, LabelSet

LABELS = LabelSet(
    [
        Label(1, "liver", 1, (230, 60, 60), "SCT:10200004"),
        Label(2, "tumour", 2, (70, 170, 255), "SCT:108369006"),
        Label(3, "thing", 3, (0, 255, 0)),
    ]
)
NOON = datetime(2024, 5, 6, 12, 0, 0)  # noqa: DTZ001 (DICOM times are local)


def scan(folder: Path, **changes):
    return read_image(made.save(folder / "ct", made.series(**changes)))


def random_labels(shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)


def blocks(shape) -> np.ndarray:
    """Labels in boxes of several sizes, every third slice empty."""
    labels = np.zeros(shape, np.uint8)
    for value, part in enumerate((5, 3, 2), start=1):
        labels[tuple(slice(n // (part + 1), 1 + n // part) for n in shape)] = value
    labels[:, :, ::3] = 0
    return labels


def write(path: Path, labels: np.ndarray, like, label_set: LabelSet = LABELS, **more) -> Path:
    write_dicom_seg(path, labels, like, label_set, version="1.2.3", **more)
    return path


def seen_by_highdicom(path: Path, like) -> np.ndarray:
    """The label map as highdicom finds it by the slices that the frames refer to."""
    seg = highdicom.seg.segread(path)
    slices = like.header
    options = {"combine_segments": True, "assert_missing_frames_are_empty": True}
    if len(set(slices.files)) == 1:
        numbers = [number + 1 for number in slices.frames]
        pixels = seg.get_pixels_by_source_frame(slices.sop_uids[0], numbers, **options)
    else:
        pixels = seg.get_pixels_by_source_instance(list(slices.sop_uids), **options)
    return pixels.transpose(2, 1, 0)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_voxels_come_back_for_us_and_for_highdicom(tmp_path, kind):
    like = scan(tmp_path)
    labels = random_labels(like.shape)
    path = write(tmp_path / "seg.dcm", labels, like, kind=kind)
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
def test_any_label_map_on_any_stack_comes_back(tmp_path_factory, shape, seed, kind, shear):
    folder = tmp_path_factory.mktemp("seg")
    datasets = made.series(made.voxels(shape))
    for k, ds in enumerate(datasets):
        made.move(ds, shear * k * made.COLUMNS)
    like = read_image(made.save(folder / "ct", datasets))
    labels = random_labels(shape, seed) * (np.random.default_rng(seed).random(shape) < 0.3)
    path = write(folder / "seg.dcm", labels, like, kind=kind)
    assert np.array_equal(read_dicom_seg(path, like).array[0], labels)
    assert np.array_equal(seen_by_highdicom(path, like), labels)


def test_frames_lie_where_their_slices_lie_on_a_tilted_series(tmp_path):
    datasets = made.series()
    for k, ds in enumerate(datasets):
        made.move(ds, 0.7 * k * made.ROWS)
    like = read_image(made.save(tmp_path / "ct", datasets))
    path = write(tmp_path / "seg.dcm", np.ones(like.shape, np.uint8), like)
    seg = pydicom.dcmread(path)
    place = {ds.SOPInstanceUID: ds.ImagePositionPatient for ds in datasets}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(position, place[source.ReferencedSOPInstanceUID], atol=1e-6)


def test_a_multi_frame_scan_is_referred_to_by_frame(tmp_path):
    order = [2, 0, 3, 1]
    made.save(tmp_path / "mr", [made.enhanced(order=order)])
    like = read_image(tmp_path / "mr")
    labels = np.zeros(like.shape, np.uint8)
    labels[1:3, 2, 1] = 1
    path = write(tmp_path / "seg.dcm", labels, like)
    (frame,) = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    source = frame.DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedFrameNumber == order.index(1) + 1
    assert source.ReferencedSOPInstanceUID == like.header.sop_uids[0]
    assert np.array_equal(seen_by_highdicom(path, like), labels)


def test_a_series_of_several_multi_frame_files(tmp_path):
    parts = [made.enhanced(order=[0, 1]), made.enhanced(order=[3, 2])]
    parts[1].SOPInstanceUID = parts[1].file_meta.MediaStorageSOPInstanceUID = generate_uid()
    like = read_image(made.save(tmp_path / "mr", parts))
    labels = random_labels(like.shape)
    path = write(tmp_path / "seg.dcm", labels, like)
    seg = pydicom.dcmread(path)
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 2
    assert np.array_equal(read_dicom_seg(path, like).array[0], labels)


def test_absent_labels_keep_the_numbering(tmp_path):
    like = scan(tmp_path)
    labels = (random_labels(like.shape) == 3) * np.uint8(3)
    path = write(tmp_path / "seg.dcm", labels, like)
    seg = pydicom.dcmread(path)
    assert [segment.SegmentNumber for segment in seg.SegmentSequence] == [1, 2, 3]
    assert seg.NumberOfFrames == like.shape[2]
    assert np.array_equal(read_dicom_seg(path, like).array[0], labels)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_nothing_found_is_a_result_too(tmp_path, kind):
    like = scan(tmp_path)
    path = write(tmp_path / "seg.dcm", np.zeros(like.shape, np.uint8), like, kind=kind)
    assert pydicom.dcmread(path).NumberOfFrames == (3 if kind == "binary" else 1)
    assert not read_dicom_seg(path, like).array.any()


def test_the_same_result_is_the_same_object(tmp_path):
    like = scan(tmp_path)
    labels = random_labels(like.shape)
    first = write(tmp_path / "a.dcm", labels, like, created=NOON)
    again = write(tmp_path / "b.dcm", labels.astype(np.int64), like, created=NOON)
    assert first.read_bytes() == again.read_bytes()
    uids = set()
    for number, (changed, kind) in enumerate([(labels, "labelmap"), (labels[::-1], "binary")]):
        path = write(tmp_path / f"{number}.dcm", changed, like, kind=kind)
        uids |= {pydicom.dcmread(path).SOPInstanceUID, pydicom.dcmread(path).SeriesInstanceUID}
    ds = pydicom.dcmread(first)
    uids |= {ds.SOPInstanceUID, ds.SeriesInstanceUID}
    assert len(uids) == 6
    assert all(pydicom.uid.UID(uid).is_valid for uid in uids)
    assert (ds.ContentDate, ds.ContentTime) == ("20240506", "120000.000000")


def test_the_patient_is_the_scans_whatever_its_script(tmp_path, caplog):
    like = scan(
        tmp_path,
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎",
        PatientID="a number that is far longer than the sixty-four characters DICOM allows it",
        PatientBirthDate="1970?",
        StudyDescription="Kopf",
    )
    caplog.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path = write(tmp_path / "seg.dcm", random_labels(like.shape), like)
    assert not any("1970" in str(warning.message) for warning in caught)
    assert "1970" not in caplog.text
    seg, source = pydicom.dcmread(path), pydicom.dcmread(like.header.files[0])
    assert str(seg.PatientName) == "Yamada^Tarou=山田^太郎"
    for keyword in ("PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDescription"):
        assert seg[keyword].value == source[keyword].value
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID


def test_what_the_scan_lacks_is_there_but_empty(tmp_path):
    like = scan(tmp_path, PatientName=None, PatientID=None, PatientBirthDate=None)
    seg = pydicom.dcmread(write(tmp_path / "seg.dcm", random_labels(like.shape), like))
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate"):
        assert keyword in seg
        assert not seg[keyword].value


def test_segments_carry_code_category_colour_and_algorithm(tmp_path):
    like = scan(tmp_path)
    path = write(tmp_path / "seg.dcm", random_labels(like.shape), like, algorithm="liver_ct")
    liver, tumour, thing = pydicom.dcmread(path).SegmentSequence

    def coded(item, kind):
        return item[f"SegmentedProperty{kind}CodeSequence"].value[0].CodeValue

    assert coded(liver, "Type") == "10200004"
    assert coded(liver, "Category") == coded(thing, "Category") == coded(thing, "Type")
    assert coded(thing, "Type") == "91723000"
    assert coded(tumour, "Category") == "49755003"
    assert (liver.SegmentLabel, liver.SegmentAlgorithmName) == ("liver", "liver_ct")
    assert liver.SegmentAlgorithmType == "AUTOMATIC"
    rgb = highdicom.color.CIELabColor(*_cielab(liver.RecommendedDisplayCIELabValue)).to_rgb()
    assert np.allclose(rgb, (230, 60, 60), atol=2)


def _cielab(stored) -> tuple[float, float, float]:
    """DICOM PS3.3 C.10.7.1.1: L from 0 to 100, a and b from -128 to 127, over 16 bits."""
    light, a, b = np.array(stored) / 65535
    return light * 100, a * 255 - 128, b * 255 - 128


def test_names_that_dicom_cannot_hold_are_made_to_fit(tmp_path):
    like = scan(tmp_path)
    names = ["Größe\\肝臓\n", "x" * 200, " "]
    label_set = LabelSet([Label(n, name, n, (1, 2, 3)) for n, name in enumerate(names, start=1)])
    path = write(tmp_path / "seg.dcm", random_labels(like.shape), like, label_set)
    shown = [segment.SegmentLabel for segment in pydicom.dcmread(path).SegmentSequence]
    assert shown == ["Größe/肝臓", "x" * 64, "label 3"]


@pytest.mark.parametrize(
    ("missing", "named"),
    [("FrameOfReferenceUID", "Frame of Reference"), ("StudyInstanceUID", "Study Instance")],
)
def test_a_scan_without_a_needed_uid_is_refused(tmp_path, missing, named):
    like = scan(tmp_path, **{missing: None})
    with pytest.raises(OutputError, match=f"no valid {named} UID"):
        write(tmp_path / "seg.dcm", random_labels(like.shape), like)
    assert not (tmp_path / "seg.dcm").exists()


def test_other_scans_labels_and_files_are_refused(tmp_path):
    like = scan(tmp_path)
    labels = random_labels(like.shape)
    out = tmp_path / "seg.dcm"
    write_labels(tmp_path / "a.nii.gz", labels, like)
    with pytest.raises(OutputError, match="is not a DICOM scan"):
        write(out, labels, read_image(tmp_path / "a.nii.gz"))
    with pytest.raises(OutputError, match="do not fit"):
        write(out, labels[1:], like)
    with pytest.raises(OutputError, match="index 4, but only 1 to 3"):
        write(out, labels + 1, like)
    with pytest.raises(OutputError, match="integers"):
        write(out, labels.astype(float), like)
    first, second, *_ = like.header.files
    shutil.copy(first, second)
    with pytest.raises(OutputError, match=r"was changed"):
        write(out, labels, like)
    first.unlink()
    with pytest.raises(OutputError, match=r"gone"):
        write(out, labels, like)
    assert not out.exists()


def test_without_its_scan_a_segmentation_has_its_own_grid(tmp_path):
    like = scan(tmp_path)
    labels = np.zeros(like.shape, np.uint8)
    labels[2, 1, 1], labels[3, 3, 3] = 1, 2  # nothing on slices 0 and 2: their frames are left out
    back = read_dicom_seg(write(tmp_path / "seg.dcm", labels, like))
    assert np.array_equal(back.array[0], labels[:, :, 1:])
    expected = like.affine.copy()
    expected[:3, 3] += like.affine[:3, 2]
    assert np.allclose(back.affine, expected, atol=1e-4)


def test_a_segmentation_may_lie_flipped_or_turned_on_its_scan(tmp_path):
    like = scan(tmp_path)
    labels = random_labels(like.shape)
    path = write(tmp_path / "seg.dcm", labels, like)
    flips = like.affine.copy()
    flips[:3, 3] += like.affine[:3, 0] * (like.shape[0] - 1)
    flips[:3, 0] *= -1
    turned = type(like)(like.array[:, ::-1].transpose(0, 3, 1, 2), flips[:, [2, 0, 1, 3]])
    back = read_dicom_seg(path, turned)
    assert np.array_equal(back.array[0], labels[::-1].transpose(2, 0, 1))


def test_what_lies_outside_the_scan_is_counted(tmp_path):
    like = scan(tmp_path)
    path = write(tmp_path / "seg.dcm", np.ones(like.shape, np.uint8), like)
    smaller = type(like)(like.array[:, :4, :, :2], like.affine)
    back = read_dicom_seg(path, smaller)
    assert back.array.all()
    outside = np.prod(like.shape) - np.prod(smaller.shape)
    assert back.warnings == (f"{outside} labelled pixels lie outside the scan and were left out",)
    away = like.affine.copy()
    away[:3, 3] += like.affine[:3, 2] * 10
    with pytest.raises(GeometryError, match="all it shows lies outside"):
        read_dicom_seg(path, type(like)(like.array, away))


def test_another_grid_or_frame_of_reference_is_refused(tmp_path):
    like = scan(tmp_path)
    path = write(tmp_path / "seg.dcm", random_labels(like.shape), like)
    moved = like.affine.copy()
    moved[:3, 3] += like.affine[:3, 0] * 0.4
    with pytest.raises(GeometryError, match="not voxels of the scan"):
        read_dicom_seg(path, type(like)(like.array, moved))
    other = made.series(FrameOfReferenceUID=generate_uid())
    with pytest.raises(GeometryError, match="another frame of reference"):
        read_dicom_seg(path, read_image(made.save(tmp_path / "other", other)))


def test_broken_and_foreign_files_are_refused(tmp_path):
    like = scan(tmp_path)
    path = write(tmp_path / "seg.dcm", random_labels(like.shape), like)
    whole = path.read_bytes()
    for length in (*range(0, len(whole), 97), len(whole) - 4):
        path.write_bytes(whole[:length])
        with pytest.raises(ScanError):
            read_dicom_seg(path, like)
    with pytest.raises(ScanError, match="no DICOM Segmentation"):
        read_dicom_seg(like.header.files[0], like)


def test_a_value_that_no_segment_describes_is_refused(tmp_path):
    like = scan(tmp_path)
    path = write(tmp_path / "seg.dcm", random_labels(like.shape), like, kind="labelmap")
    ds = pydicom.dcmread(path)
    ds.SegmentSequence = [one for one in ds.SegmentSequence if one.SegmentNumber != 2]
    ds.save_as(path)
    with pytest.raises(ScanError, match="value 2, which no segment describes"):
        read_dicom_seg(path, like)


def test_segmentations_of_others_hold_the_stated_pixels(shared_data):
    folder = shared_data / "dicom_seg"
    truth = json.loads((folder / "truth.json").read_text())
    overlapping = {"dcmqi/partial_overlaps.dcm", "highdicom/seg_image_ct_binary_overlap.dcm"}
    for name in set(truth) - overlapping - {"highdicom/seg_image_ct_true_fractional.dcm"}:
        back = read_dicom_seg(folder / name)
        heights = (back.affine @ [[0], [0], [0], [1]] + back.affine[:, 2:3] * range(99))[2]
        for segment, counts in truth[name]["nonzero_pixels_by_segment_and_z"].items():
            for z, count in counts.items():
                k = int(np.abs(heights - float(z)).argmin())
                assert np.count_nonzero(back.array[0, :, :, k] == int(segment)) == count
    for name in overlapping:
        with pytest.raises(ScanError, match="segments 1 and 2 overlap"):
            read_dicom_seg(folder / name)


def test_fractions_count_from_one_half(shared_data, tmp_path):
    stored = pydicom.dcmread(shared_data / "dicom_seg/highdicom/seg_image_ct_true_fractional.dcm")
    stored.MaximumFractionalValue = 200
    pixels = (np.arange(stored.pixel_array.size) % 201).astype(np.uint8)
    stored.PixelData = pixels.tobytes()
    stored.save_as(tmp_path / "seg.dcm")
    back = read_dicom_seg(tmp_path / "seg.dcm")
    pixels = pixels.reshape(stored.pixel_array.shape)
    assert np.array_equal(back.array[0].T, (pixels >= 100).astype(np.uint8))
    assert "fractional" in back.warnings[0]


def test_padding_is_background(tmp_path):
    like = scan(tmp_path)
    labels = random_labels(like.shape)
    path = write(tmp_path / "seg.dcm", labels, like, kind="labelmap")
    ds = pydicom.dcmread(path)
    ds.decompress()
    ds.PixelPaddingValue = 9
    ds.PixelData = ds.PixelData.replace(b"\0", b"\x09")
    ds.save_as(path)
    assert np.array_equal(read_dicom_seg(path, like).array[0], labels)


def test_a_lossy_scan_stays_known_as_lossy(tmp_path):
    lossy = {"LossyImageCompression": "01", "LossyImageCompressionRatio": "7.5"}
    like = scan(tmp_path, LossyImageCompressionMethod="ISO_10918_1", **lossy)
    seg = pydicom.dcmread(write(tmp_path / "seg.dcm", random_labels(like.shape), like))
    assert seg.LossyImageCompression == "01"
    assert seg.LossyImageCompressionRatio == 7.5


@pytest.mark.parametrize(
    ("scan_name", "seg_name", "truth"),
    [
        ("ct-3slice", "liver.dcm", "liver_seg.nrrd"),
        ("23x38x3/image", "23x38x3/seg/label.seg", "23x38x3/nrrd/label.nrrd"),
        ("24x38x3/multiframe/mf.dcm", "24x38x3/seg/label.seg", "24x38x3/nrrd/label.nrrd"),
    ],
)
def test_dcmqi_segmentations_equal_their_nrrd(shared_data, scan_name, seg_name, truth):
    folder = shared_data / "dicom_seg/dcmqi"
    like = read_image(folder / scan_name)
    back = read_dicom_seg(folder / seg_name, like)
    assert np.array_equal(back.array, read_labels(folder / truth).array)


REAL = (
    "dicom_brain_mr_oblique/Study3/T1post",
    "dicom_brain_mr_oblique/Study3/HCropVolume",
    "dicom_dcm_qa/t1_sagittal_head_first_prone/in",
    "sts_ct_mr_pet/dicom/STS_008/PET/image",
)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_real_scans(shared_data, tmp_path, name, kind):
    like = read_image(shared_data / name)
    labels = blocks(like.shape)
    path = write(tmp_path / "seg.dcm", labels, like, kind=kind)
    assert np.array_equal(read_dicom_seg(path, like).array[0], labels)
    assert np.array_equal(seen_by_highdicom(path, like), labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_dciodvfy_finds_no_error(shared_data, tmp_path, name):
    verify = shutil.which("dciodvfy")
    if verify is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    like = read_image(shared_data / name)
    path = write(tmp_path / "seg.dcm", random_labels(like.shape), like)
    found = subprocess.run([verify, path], capture_output=True, text=True, check=False).stderr
    # What the scan itself breaks, a study ID that is too long, is repeated on purpose.
    faults = [line for line in found.splitlines() if line.startswith("Error")]
    assert [
        line for line in faults if "Study ID" not in line and "invalid data val" not in line
    ] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_dcmqi_reads_the_same_voxels(shared_data, tmp_path, name):
    convert = shutil.which("segimage2itkimage")
    if convert is None:
        pytest.skip("dcmqi's segimage2itkimage is not installed (PyPI: dcmqi)")
    like = read_image(shared_data / name)
    labels = random_labels(like.shape)
    path = write(tmp_path / "seg.dcm", labels, like)
    arguments = ["--inputDICOM", path, "--outputDirectory", tmp_path, "--prefix", "s"]
    subprocess.run([convert, *arguments, "--mergeSegments"], check=True, capture_output=True)
    back = read_labels(next(tmp_path.glob("s*.nrrd")))
    seen = read_dicom_seg(path, back)  # SEG pixels on dcmqi's grid: it may turn the axes
    assert np.array_equal(seen.array, back.array)
    assert np.array_equal(np.bincount(back.array.ravel()), np.bincount(labels.ravel()))
