"""What a header says of its file, and what is refused for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid as uids
from support import dicom as made
from support.dicom import forged

from medseg.datasets.scans import find_scans
from medseg.errors import GeometryError, ScanError
from medseg.io import find_series, read_image


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        (
            {"ImagePositionPatient": None},
            GeometryError,
            "ImagePositionPatient is missing",
        ),
        (
            {"ImageOrientationPatient": None},
            GeometryError,
            "ImageOrientationPatient is missing",
        ),
        ({"PixelSpacing": None}, GeometryError, "PixelSpacing is missing"),
        (
            {"PixelSpacing": [0, 1]},
            GeometryError,
            "PixelSpacing is .* both must be positive",
        ),
        (
            {"PixelSpacing": [1, -1]},
            GeometryError,
            "PixelSpacing is .* both must be positive",
        ),
        (
            {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
            GeometryError,
            "unit vectors",
        ),
        (
            {"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]},
            GeometryError,
            "unit vectors",
        ),
        ({"RescaleSlope": 0}, ScanError, "RescaleSlope is 0"),
        (
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
            ScanError,
            "colour images are not",
        ),
        (
            {"PhotometricInterpretation": "PALETTE COLOR"},
            ScanError,
            "colour images are not",
        ),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "MOSAIC"]}, ScanError, "mosaic"),
        (
            {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
            ScanError,
            "localizer",
        ),
        (
            {"SOPClassUID": uids.SecondaryCaptureImageStorage},
            ScanError,
            "Secondary Capture",
        ),
        ({"NumberOfFrames": 2}, GeometryError, "2 frames, but no PerFrame"),
        ({"PixelData": None}, ScanError, "truncated or holds no pixels"),
        ({"BitsAllocated": 1}, ScanError, "1 bits per pixel"),
        ({"Rows": 0}, ScanError, "no rows or columns"),
        ({"Rows": 60000, "Columns": 60000}, ScanError, "are declared"),
        ({"Columns": 5}, ScanError, "more bytes of pixels than its header"),
        ({"Rows": 4}, ScanError, "more bytes of pixels than its header"),
        ({"FrameOfReferenceUID": ""}, None, ""),
        ({"SeriesInstanceUID": ""}, None, ""),
        ({"SOPInstanceUID": "../../etc/passwd"}, None, ""),
    ],
)
def test_headers_that_say_too_little_or_too_much(tmp_path, changes, error, why):
    folder = made.save(tmp_path, made.series(**changes))
    if error is None:
        assert np.array_equal(read_image(folder).array[0], made.voxels())
        return
    with pytest.raises(error, match=why) as caught:
        read_image(folder)
    assert made.PATIENT.split("^")[0] not in str(caught.value)


def test_uids_that_are_paths_are_not_kept(tmp_path):
    folder = made.save(
        tmp_path,
        made.series(SeriesInstanceUID="../../x", SOPInstanceUID="../../../y"),
    )
    (found,), _ = find_series(folder)
    assert found.uid == ""
    assert read_image(found.files).header.sop_uids == ("",) * 4


def test_numbers_that_are_none(tmp_path):
    folder = made.save(tmp_path, made.series(NumberOfFrames=1))
    forged(folder / "IM0002", b"IS\x02\x001 ", b"IS\x02\x001A")
    with pytest.raises(
        ScanError, match="IM0002: the header has invalid values"
    ):
        read_image(folder)
    (found,), skipped = find_series(folder)
    assert len(found.files) == 4
    assert skipped == []


@pytest.mark.parametrize("size", [0, 100, 140, 300, 600, 900, -2, -1])
def test_a_truncated_slice_refuses_the_series_and_is_named(tmp_path, size):
    folder = made.save(tmp_path, made.series())
    broken = folder / "IM0001"
    broken.rename(folder / "IM0001.dcm")
    broken = folder / "IM0001.dcm"
    broken.write_bytes(broken.read_bytes()[:size])
    with pytest.raises(ScanError, match="IM0001"):
        read_image(folder)


def test_foreign_files_are_skipped_and_counted(tmp_path):
    folder = made.save(tmp_path, made.series())
    (folder / "readme.txt").write_text("hello")
    (folder / "empty").touch()
    (folder / "noise").write_bytes(b"\x08\x00" + os.urandom(500))
    os.mkfifo(folder / "pipe")
    volume = read_image(folder)
    assert np.array_equal(volume.array[0], made.voxels())
    assert volume.warnings == ("4 file(s) left out: not DICOM",)


def test_what_pydicom_says_about_header_values_stays_inside(tmp_path):
    folder = made.save(tmp_path, made.series())
    path = folder / "IM0001"
    content = path.read_bytes()
    uid = made.series()[0].SeriesInstanceUID.encode()
    path.write_bytes(
        content.replace(uid, b"Secret^Person".ljust(len(uid), b"x"))
    )
    code = (
        "import logging, sys, pathlib; logging.basicConfig(level=logging.DEBUG); "
        "from medseg.io import find_series; "
        "print(len(find_series(pathlib.Path(sys.argv[1]))[0]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
    )
    assert answer.stdout.strip() == "2"
    assert "Secret" not in answer.stderr


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_flipped_bytes_never_raise_anything_foreign(tmp_path_factory, data):
    folder = made.save(
        tmp_path_factory.mktemp("flip"), made.series(made.voxels((3, 3, 2)))
    )
    path = folder / "IM0000"
    content = bytearray(path.read_bytes())
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    find_series(folder)
    with contextlib.suppress(ScanError):
        read_image(folder)


def test_series_are_named_by_their_headers_only_if_asked(tmp_path):
    facts = {
        "StudyDate": "20240101",
        "SeriesNumber": 7,
        "SeriesDescription": "../ä b\nc",
    }
    made.save(tmp_path / "Müller", made.series(**facts))
    (hashed,) = find_scans(tmp_path, 1).scans
    assert hashed.name.startswith("series-")
    (named,) = find_scans(tmp_path, 1, names_from_headers=True).scans
    assert named.name.startswith("ID-4711_20240101_7_")
    assert set("/\n ").isdisjoint(named.name)
    (tmp_path / "scans.csv").write_text(
        "name,scan\nmine,Müller\n,Müller/IM0000\n", "utf-8"
    )
    scans = find_scans(tmp_path / "scans.csv", 1, names_from_headers=True).scans
    assert [scan.name[:7] for scan in scans] == ["mine", "ID-4711"]
