"""The quick way through a header says what pydicom says, or leaves the file to pydicom."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileDataset
from support import dicom as made

from medseg.io.dicom.fast_header import read_elements_fast
from medseg.io.dicom.files import PYDICOM_ERRORS, read_elements
from medseg.io.dicom.headers import HEADER_KEYWORDS


def outcome(get: Callable[[str], Any], keyword: str) -> str:
    try:
        return repr(get(keyword))
    except PYDICOM_ERRORS as error:
        return type(error).__name__


def assert_says_what_pydicom_says(path: Path) -> bool:
    """Compare every element; return whether the file was walked through at all."""
    walked = read_elements_fast(path, HEADER_KEYWORDS)
    if walked is None:
        return False
    ds = read_elements(path, [*HEADER_KEYWORDS])
    for keyword in HEADER_KEYWORDS:
        assert (keyword in walked) == (keyword in ds), keyword
        assert outcome(walked.get, keyword) == outcome(ds.get, keyword), keyword
    for keyword in ("TransferSyntaxUID", "MediaStorageSOPClassUID"):
        said = outcome(walked.file_meta.get, keyword)
        assert said == outcome(ds.file_meta.get, keyword), keyword
    return True


def nested() -> Dataset:
    """Items within items, of a length that is not stated."""
    inner, item = Dataset(), Dataset()
    inner.CodeValue, inner.Rows = "1", 77
    item.PurposeOfReferenceCodeSequence = [inner, Dataset()]
    item.ReferencedSOPInstanceUID = "1.2.3"
    return item


def a_slice(**changes: Any) -> FileDataset:
    ds = made.series(
        EchoTime=4.6, AcquisitionTime="101210.5", RescaleSlope=2, **changes
    )[1]
    ds.ReferencedImageSequence = [nested(), nested()]
    ds.SourceImageSequence = []
    ds.add_new(0x00290010, "LO", "someone")
    ds.add_new(0x00291010, "OB", b"\1\2" * 20_000)
    for keyword in ("ReferencedImageSequence", "SourceImageSequence"):
        ds[keyword].is_undefined_length = True
    for item in ds.ReferencedImageSequence:
        item.is_undefined_length_sequence_item = True
        item["PurposeOfReferenceCodeSequence"].is_undefined_length = True
    return ds


@pytest.mark.parametrize(
    "syntax", [uids.ExplicitVRLittleEndian, uids.ImplicitVRLittleEndian]
)
def test_ordinary_headers_are_walked_through_sequences_and_all(
    tmp_path, syntax
):
    ds = a_slice(FrameReferenceTime=3.5)
    ds.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(tmp_path / "a", ds, enforce_file_format=True)
    assert (
        tmp_path / "a"
    ).stat().st_size > 40_000  # longer than what is read at first
    assert assert_says_what_pydicom_says(tmp_path / "a")
    assert (
        read_elements_fast(tmp_path / "a", HEADER_KEYWORDS).get("Rows")
        == ds.Rows
    )


def test_empty_and_absent_values_are_told_apart(tmp_path):
    ds = a_slice(ImageType=None)
    ds.SliceThickness = ds.EchoTime = ds.NumberOfFrames = None
    ds.FrameOfReferenceUID = ""
    ds.save_as(tmp_path / "a")
    assert assert_says_what_pydicom_says(tmp_path / "a")


def test_what_is_not_ordinary_is_left_to_pydicom(tmp_path):
    made.save(tmp_path, [made.enhanced()])
    assert read_elements_fast(tmp_path / "IM0000", HEADER_KEYWORDS) is None
    ds = a_slice()
    ds.file_meta.TransferSyntaxUID = uids.DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(tmp_path / "deflated", ds)
    big = made.series()[0]
    big.file_meta.TransferSyntaxUID = uids.ExplicitVRBigEndian
    pydicom.dcmwrite(tmp_path / "big", big, enforce_file_format=True)
    bare = {"implicit_vr": True, "little_endian": True}
    pydicom.dcmwrite(tmp_path / "bare", Dataset(a_slice()), **bare)
    (tmp_path / "text").write_text("DICM" * 100)
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for name in ("deflated", "big", "bare", "text", "empty", "pipe", "absent"):
        assert read_elements_fast(tmp_path / name, HEADER_KEYWORDS) is None, (
            name
        )


def test_deep_nesting_ends(tmp_path):
    ds = made.series()[0]
    inner = Dataset()
    for _ in range(200):
        outer = Dataset()
        outer.ReferencedImageSequence = [inner]
        outer["ReferencedImageSequence"].is_undefined_length = True
        outer.is_undefined_length_sequence_item = True
        inner = outer
    ds.update(inner)
    ds.save_as(tmp_path / "a")
    assert read_elements_fast(tmp_path / "a", HEADER_KEYWORDS) is None


@pytest.mark.parametrize("implicit", [False, True])
@given(data=st.data())
def test_flipped_and_cut_bytes_are_read_alike_or_left_to_pydicom(
    tmp_path_factory, data, implicit
):
    path = tmp_path_factory.mktemp("flip") / "a"
    ds = a_slice()
    del ds[0x00291010]
    if implicit:
        ds.file_meta.TransferSyntaxUID = uids.ImplicitVRLittleEndian
    pydicom.dcmwrite(path, ds)
    content = bytearray(path.read_bytes())
    for place in data.draw(
        st.lists(st.integers(132, len(content) - 1), max_size=3)
    ):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(132, len(content)))])
    try:
        assert_says_what_pydicom_says(path)
    except PYDICOM_ERRORS:
        assert read_elements_fast(path, HEADER_KEYWORDS) is None


def test_real_headers_are_read_alike(shared_data):
    files = [file for file in sorted(shared_data.rglob("*")) if file.is_file()][
        ::7
    ]
    walked = sum(
        assert_says_what_pydicom_says(file) for file in files if _is_dicom(file)
    )
    assert walked > 50


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(132)[128:] == b"DICM"


def test_elements_out_of_order_or_doubled_are_left_to_pydicom(tmp_path):
    (ds, *_) = made.series()
    ds.save_as(tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    rows = content.index(struct.pack("<HH2sH", 0x28, 0x10, b"US", 2))
    columns = content.index(struct.pack("<HH2sH", 0x28, 0x11, b"US", 2))
    assert columns == rows + 10
    swapped = (
        content[:rows] + content[columns : columns + 10] + content[rows:columns]
    )
    doubled = content[:columns] + content[rows:columns]
    for start, end in ((swapped, columns + 10), (doubled, columns)):
        (tmp_path / "b").write_bytes(start + content[end:])
        assert read_elements_fast(tmp_path / "b", HEADER_KEYWORDS) is None
