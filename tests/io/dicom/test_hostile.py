"""Broken, forged and foreign DICOM files: a plain refusal, never a crash, a hang or a guess."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid as uids
from pydicom.encaps import encapsulate
from support import dicom as made

from medseg.errors import GeometryError, ScanError
from medseg.io import find_series, read_image


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ({"ImagePositionPatient": None}, GeometryError, "no ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, GeometryError, "no ImageOrientationPatient"),
        ({"PixelSpacing": None}, GeometryError, "no PixelSpacing"),
        ({"PixelSpacing": [0, 1]}, GeometryError, "pixel spacing"),
        ({"PixelSpacing": [1, -1]}, GeometryError, "pixel spacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, GeometryError, "unit vectors"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]}, GeometryError, "unit vectors"),
        ({"RescaleSlope": 0}, ScanError, "RescaleSlope of 0"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, ScanError, "colours"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, ScanError, "colours"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "MOSAIC"]}, ScanError, "mosaic"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, ScanError, "localizer"),
        ({"SOPClassUID": uids.SecondaryCaptureImageStorage}, ScanError, "Secondary Capture"),
        ({"NumberOfFrames": 2}, GeometryError, "2 frames without a place"),
        ({"PixelData": None}, ScanError, "truncated or holds no pixels"),
        ({"BitsAllocated": 1}, ScanError, "1 bits per pixel"),
        ({"Rows": 0}, ScanError, "no rows or columns"),
        ({"Rows": 60000, "Columns": 60000}, ScanError, "promises"),
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
        tmp_path, made.series(SeriesInstanceUID="../../x", SOPInstanceUID="../../../y")
    )
    (found,), _ = find_series(folder)
    assert found.uid == ""
    assert read_image(found.files).header.sop_uids == ("",) * 4


def test_series_without_a_uid_are_one_per_folder(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        made.save(tmp_path / name, made.series(made.voxels(seed=seed), SeriesInstanceUID=""))
    found, _ = find_series(tmp_path)
    assert [one.files[0].parent.name for one in found] == ["a", "b"]


def forged(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def test_numbers_that_are_none(tmp_path):
    folder = made.save(tmp_path, made.series(NumberOfFrames=1))
    forged(folder / "IM0002", b"IS\x02\x001 ", b"IS\x02\x001A")
    with pytest.raises(ScanError, match="IM0002: a header with broken values"):
        read_image(folder)
    (found,), skipped = find_series(folder)
    assert len(found.files) == 4
    assert skipped == []


def test_a_file_without_a_preamble_is_read(tmp_path):
    folder = made.save(tmp_path, made.series())
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        bare = pydicom.Dataset(ds)
        bare.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert not any(path.read_bytes()[128:132] == b"DICM" for path in folder.iterdir())
    assert np.array_equal(read_image(folder).array[0], made.voxels())


@pytest.mark.parametrize("size", [0, 100, 140, 300, 600, 900, -2, -1])
def test_a_truncated_slice_refuses_the_series_and_is_named(tmp_path, size):
    folder = made.save(tmp_path, made.series())
    broken = folder / "IM0001"
    broken.rename(folder / "IM0001.dcm")
    broken = folder / "IM0001.dcm"
    broken.write_bytes(broken.read_bytes()[:size])
    with pytest.raises(ScanError, match="IM0001"):
        read_image(folder)


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
    assert [(one.file.name, one.reason[:7]) for one in skipped] == [("broken", "damaged")]


def test_foreign_files_are_skipped_and_counted(tmp_path):
    folder = made.save(tmp_path, made.series())
    (folder / "readme.txt").write_text("hello")
    (folder / "empty").touch()
    (folder / "noise").write_bytes(b"\x08\x00" + os.urandom(500))
    os.mkfifo(folder / "pipe")
    volume = read_image(folder)
    assert np.array_equal(volume.array[0], made.voxels())
    assert volume.warnings == ("4 file(s) left out: not DICOM",)


def test_a_folder_without_images_says_so(tmp_path):
    with pytest.raises(ScanError, match="no DICOM image of a volume"):
        read_image(tmp_path)


def meta_bytes(ds: pydicom.FileDataset) -> bytes:
    stream = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(stream, ds.file_meta, enforce_standard=False)
    return stream.getvalue()


def deflate(path: Path, bomb: int = 0) -> None:
    """Store a file deflated, with ``bomb`` more zero bytes in the last element."""
    ds = pydicom.dcmread(path)
    start = 132 + len(meta_bytes(ds))
    plain = path.read_bytes()[start:]
    if bomb:
        plain += struct.pack("<HH2sHI", 0x7FE1, 0x0010, b"OB", 0, bomb) + b"\0" * bomb
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    ds.file_meta.TransferSyntaxUID = uids.DeflatedExplicitVRLittleEndian
    with path.open("wb") as file:
        file.write(b"\0" * 128 + b"DICM")
        file.write(meta_bytes(ds))
        file.write(squeeze.compress(plain) + squeeze.flush())


def test_deflated_files_are_read(tmp_path):
    folder = made.save(tmp_path, made.series())
    for path in folder.iterdir():
        deflate(path)
    assert np.array_equal(read_image(folder).array[0], made.voxels())


def test_a_deflated_bomb_takes_little_memory(tmp_path):
    folder = made.save(tmp_path, made.series())
    deflate(folder / "IM0000", bomb=200 << 20)
    tracemalloc.start()
    (found,), _ = find_series(folder)
    with pytest.raises(ScanError, match="IM0000: deflated, and inflates to more"):
        read_image(found.files)
    assert tracemalloc.get_traced_memory()[1] < 180 << 20
    tracemalloc.stop()


def encoded(syntax: str, frames: list[bytes], **changes) -> list[pydicom.FileDataset]:
    datasets = made.series(**changes)
    for ds, frame in zip(datasets, frames, strict=True):
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([frame])
    return datasets


def test_rle_is_decoded(tmp_path):
    datasets = made.series()
    for ds in datasets:
        ds.compress(uids.RLELossless)
    assert np.array_equal(read_image(made.save(tmp_path, datasets)).array[0], made.voxels())


def test_compressed_frames_of_one_file_come_back_in_order(tmp_path):
    ds = made.enhanced(order=[2, 0, 3, 1])
    ds.compress(uids.JPEGLSLossless)
    volume = read_image(made.save(tmp_path, [ds]))
    numbers = np.arange(4)
    assert np.array_equal(volume.array[0], made.voxels() * (numbers + 1.0) - numbers)


@pytest.mark.parametrize("syntax", [uids.RLELossless, uids.JPEG2000Lossless, uids.JPEGLosslessSV1])
def test_compressed_rubbish_is_refused(tmp_path, syntax):
    rubbish = [bytes(np.random.default_rng(k).integers(0, 256, 200, np.uint8)) for k in range(4)]
    with pytest.raises(ScanError, match="IM000"):
        read_image(made.save(tmp_path, encoded(syntax, rubbish)))


def test_forged_rle_dimensions_do_not_end_this_process(tmp_path):
    header = struct.pack("<16I", 2, 64, 0xFFFFFFF0, *[0] * 13)
    datasets = encoded(uids.RLELossless, [header + b"\x81\x00" * 40] * 4, Rows=16000, Columns=16000)
    with pytest.raises(ScanError, match="cannot be decoded"):
        read_image(made.save(tmp_path, datasets))


def test_a_huge_claim_in_a_small_compressed_file_is_refused_unopened(tmp_path):
    datasets = encoded(uids.JPEG2000Lossless, [b"\0" * 50] * 4, Rows=65535, Columns=65535)
    with pytest.raises(ScanError, match=r"voxels|pixels in one compressed frame"):
        read_image(made.save(tmp_path, datasets))


def test_many_orientations_end_soon(tmp_path):
    datasets = made.series(made.voxels((3, 3, 60)))
    for n, ds in enumerate(datasets):
        angle = n * 0.05
        ds.ImageOrientationPatient = [1, 0, 0, 0, round(np.cos(angle), 9), round(np.sin(angle), 9)]
    folder = made.save(tmp_path, datasets)
    start = time.monotonic()
    with pytest.raises(GeometryError, match="more than 50 orientations"):
        read_image(folder)
    assert len(find_series(folder)[0]) == 1
    assert time.monotonic() - start < 20


def test_what_pydicom_says_about_header_values_stays_inside(tmp_path):
    folder = made.save(tmp_path, made.series())
    path = folder / "IM0001"
    content = path.read_bytes()
    uid = made.series()[0].SeriesInstanceUID.encode()
    path.write_bytes(content.replace(uid, b"Secret^Person".ljust(len(uid), b"x")))
    code = (
        "import logging, sys, pathlib; logging.basicConfig(level=logging.DEBUG); "
        "from medseg.io import find_series; "
        "print(len(find_series(pathlib.Path(sys.argv[1]))[0]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True
    )
    assert answer.stdout.strip() == "2"
    assert "Secret" not in answer.stderr


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_flipped_bytes_never_raise_anything_foreign(tmp_path_factory, data):
    folder = made.save(tmp_path_factory.mktemp("flip"), made.series(made.voxels((3, 3, 2))))
    path = folder / "IM0000"
    content = bytearray(path.read_bytes())
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    find_series(folder)
    with contextlib.suppress(ScanError):
        read_image(folder)
