"""Segmentations of ours and of others become label maps, or are refused."""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest
from support.studies import edited, labels_in, scan, write_seg

from medseg.dicom_labels.seg_reader import read_dicom_seg
from medseg.errors import ScanError
from medseg.io import read_image, read_labels


def test_broken_and_foreign_files_are_refused(tmp_path):
    like = scan(tmp_path)
    path = write_seg(tmp_path / "seg.dcm", labels_in(like.shape), like)
    whole = path.read_bytes()
    for length in (*range(0, len(whole), 97), len(whole) - 4):
        path.write_bytes(whole[:length])
        with pytest.raises(ScanError):
            read_dicom_seg(path, like)
    with pytest.raises(ScanError, match="not a DICOM Segmentation"):
        read_dicom_seg(like.header.files[0], like)


def test_a_value_that_no_segment_describes_is_refused(tmp_path):
    like = scan(tmp_path)
    path = write_seg(
        tmp_path / "seg.dcm", labels_in(like.shape), like, kind="labelmap"
    )
    ds = pydicom.dcmread(path)
    ds.SegmentSequence = [
        one for one in ds.SegmentSequence if one.SegmentNumber != 2
    ]
    ds.save_as(path)
    with pytest.raises(ScanError, match="value 2, which no segment describes"):
        read_dicom_seg(path, like)


def test_segmentations_of_others_hold_the_stated_pixels(shared_data):
    folder = shared_data / "dicom_seg"
    truth = json.loads((folder / "truth.json").read_text())
    overlapping = {
        "dcmqi/partial_overlaps.dcm",
        "highdicom/seg_image_ct_binary_overlap.dcm",
    }
    for name in (
        set(truth)
        - overlapping
        - {"highdicom/seg_image_ct_true_fractional.dcm"}
    ):
        back = read_dicom_seg(folder / name)
        heights = (
            back.affine @ [[0], [0], [0], [1]] + back.affine[:, 2:3] * range(99)
        )[2]
        for segment, counts in truth[name][
            "nonzero_pixels_by_segment_and_z"
        ].items():
            for z, count in counts.items():
                k = int(np.abs(heights - float(z)).argmin())
                assert (
                    np.count_nonzero(back.array[0, :, :, k] == int(segment))
                    == count
                )
    for name in overlapping:
        with pytest.raises(ScanError, match="segments 1 and 2 overlap"):
            read_dicom_seg(folder / name)


def test_fractions_count_from_one_half(shared_data, tmp_path):
    stored = pydicom.dcmread(
        shared_data / "dicom_seg/highdicom/seg_image_ct_true_fractional.dcm"
    )
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
    labels = labels_in(like.shape)
    path = write_seg(tmp_path / "seg.dcm", labels, like, kind="labelmap")
    ds = pydicom.dcmread(path)
    ds.decompress()
    ds.PixelPaddingValue = 9
    ds.PixelData = ds.PixelData.replace(b"\0", b"\x09")
    ds.save_as(path)
    assert np.array_equal(read_dicom_seg(path, like).array[0], labels)


@pytest.mark.parametrize(
    ("scan_name", "seg_name", "truth"),
    [
        ("ct-3slice", "liver.dcm", "liver_seg.nrrd"),
        ("23x38x3/image", "23x38x3/seg/label.seg", "23x38x3/nrrd/label.nrrd"),
        (
            "24x38x3/multiframe/mf.dcm",
            "24x38x3/seg/label.seg",
            "24x38x3/nrrd/label.nrrd",
        ),
    ],
)
def test_dcmqi_segmentations_equal_their_nrrd(
    shared_data, scan_name, seg_name, truth
):
    folder = shared_data / "dicom_seg/dcmqi"
    like = read_image(folder / scan_name)
    back = read_dicom_seg(folder / seg_name, like)
    assert np.array_equal(back.array, read_labels(folder / truth).array)


def test_overlapping_segments_are_refused_unless_one_is_chosen(tmp_path):
    like = scan(tmp_path)
    path = write_seg(tmp_path / "seg.dcm", np.ones(like.shape, np.uint8), like)

    def copy(ds):
        groups = ds.PerFrameFunctionalGroupsSequence
        groups[1].PlanePositionSequence = groups[0].PlanePositionSequence
        groups[1].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2

    edited(path, copy)
    with pytest.raises(
        ScanError, match="segments 1 and 2 overlap in 30 pixels"
    ):
        read_dicom_seg(path, like)
    assert read_dicom_seg(path, like, ["tumour"]).array.any()


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_a_seg_of_fewer_rows_than_it_holds_is_refused(tmp_path, kind):
    like = scan(tmp_path)
    path = write_seg(
        tmp_path / "seg.dcm", labels_in(like.shape), like, kind=kind
    )

    def lose_rows(ds):
        ds.Rows = 3

    with pytest.raises(ScanError, match=r"more bytes of pixels|be decoded"):
        read_dicom_seg(edited(path, lose_rows), like)
