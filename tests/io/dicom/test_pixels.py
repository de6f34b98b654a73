"""Stored values become intensities; forged and broken ones a plain refusal."""

from __future__ import annotations

import struct

import numpy as np
import pydicom
import pytest
from pydicom import uid as uids
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames
from support import dicom as made
from support.dicom import encoded

from medseg.errors import ScanError
from medseg.io import read_image


def test_each_slice_is_rescaled_by_its_own_values(tmp_path):
    datasets = made.series()
    for k, ds in enumerate(datasets):
        ds.RescaleSlope, ds.RescaleIntercept = 0.5 * (k + 1), -1000 + k
    volume = read_image(made.save(tmp_path, datasets))
    slopes = 0.5 * np.arange(1, 5)
    expected = made.voxels() * slopes - 1000 + np.arange(4)
    assert np.array_equal(volume.array[0], expected.astype(np.float32))


def test_monochrome1_is_not_inverted(tmp_path):
    volume = read_image(
        made.save(
            tmp_path, made.series(PhotometricInterpretation="MONOCHROME1")
        )
    )
    assert np.array_equal(volume.array[0], made.voxels())


def test_signed_pixels_and_unused_bits(tmp_path):
    stored = made.voxels() % 2048
    # An old overlay in the upper four bits.
    dirty = (stored | 0xF000).astype(np.uint16)
    volume = read_image(
        made.save(tmp_path / "a", made.series(dirty, BitsStored=12, HighBit=11))
    )
    assert np.array_equal(volume.array[0], stored)
    signed = made.voxels().astype(np.int16) - 2000
    volume = read_image(made.save(tmp_path / "b", made.series(signed)))
    assert np.array_equal(volume.array[0], signed)


@pytest.mark.parametrize(
    ("excess", "is_read"),
    [(bytes(8), True), (bytes(40), False), (b"1" * 8, False)],
)
def test_zeros_behind_the_last_row_fill_up_a_file(tmp_path, excess, is_read):
    datasets = made.series()
    for ds in datasets:
        assert ds.Columns * 2 >= 8
        ds.PixelData += excess
    folder = made.save(tmp_path, datasets)
    if is_read:
        assert np.array_equal(read_image(folder).array[0], made.voxels())
        return
    with pytest.raises(ScanError, match="more bytes of pixels than its header"):
        read_image(folder)


def test_a_file_that_an_older_writer_filled_up_is_read():
    padded = read_image(get_testdata_file("MR_small_padded.dcm"))
    plain = read_image(get_testdata_file("MR_small.dcm"))
    assert np.array_equal(padded.array, plain.array)


def test_rle_is_decoded(tmp_path):
    datasets = made.series()
    for ds in datasets:
        ds.compress(uids.RLELossless)
    assert np.array_equal(
        read_image(made.save(tmp_path, datasets)).array[0], made.voxels()
    )


@pytest.mark.parametrize("size", [{"Rows": 4}, {"Columns": 5}])
def test_rle_of_more_pixels_than_the_header_says_is_refused(tmp_path, size):
    shown = made.series()
    for ds in shown:
        ds.compress(uids.RLELossless, generate_instance_uid=False)
        for keyword, value in size.items():
            setattr(ds, keyword, value)
    with pytest.raises(ScanError, match="cannot be decoded"):
        read_image(made.save(tmp_path, shown))


def test_compressed_frames_of_one_file_come_back_in_order(tmp_path):
    ds = made.enhanced(order=[2, 0, 3, 1])
    ds.compress(uids.JPEGLSLossless)
    volume = read_image(made.save(tmp_path, [ds]))
    numbers = np.arange(4)
    assert np.array_equal(
        volume.array[0], made.voxels() * (numbers + 1.0) - numbers
    )


@pytest.mark.parametrize(
    "syntax", [uids.RLELossless, uids.JPEG2000Lossless, uids.JPEGLosslessSV1]
)
def test_compressed_rubbish_is_refused(tmp_path, syntax):
    rubbish = [
        bytes(np.random.default_rng(k).integers(0, 256, 200, np.uint8))
        for k in range(4)
    ]
    with pytest.raises(ScanError, match="IM000"):
        read_image(made.save(tmp_path, encoded(syntax, rubbish)))


def test_forged_rle_dimensions_do_not_end_this_process(tmp_path):
    header = struct.pack("<16I", 2, 64, 0xFFFFFFF0, *[0] * 13)
    datasets = encoded(
        uids.RLELossless,
        [header + b"\x81\x00" * 40] * 4,
        Rows=16000,
        Columns=16000,
    )
    with pytest.raises(ScanError, match="cannot be decoded"):
        read_image(made.save(tmp_path, datasets))


def test_a_huge_claim_in_a_small_compressed_file_is_refused_unopened(tmp_path):
    datasets = encoded(
        uids.JPEG2000Lossless, [b"\0" * 50] * 4, Rows=65535, Columns=65535
    )
    with pytest.raises(
        ScanError, match=r"voxels|pixels in one compressed frame"
    ):
        read_image(made.save(tmp_path, datasets))


JPEG_12 = uids.JPEGExtended12Bit


def jpeg_of_12_bits() -> bytes:
    """The codestream of pydicom's own sample."""
    sample = get_testdata_file("JPEG-lossy.dcm", download=False)
    ds = pydicom.dcmread(str(sample))
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    return frame


def test_a_missing_decoder_is_named_and_not_the_file_blamed(tmp_path):
    frames = [jpeg_of_12_bits()] * 4
    size = {"Rows": 1024, "Columns": 256, "BitsStored": 12, "HighBit": 11}
    folder = made.save(tmp_path, encoded(JPEG_12, frames, **size))
    with pytest.raises(
        ScanError,
        match=r"no installed decoder reads .* JPEG Extended .*convert the series",
    ) as raised:
        read_image(folder)
    assert "damaged" not in raised.value.message
    assert raised.value.source is not None
    assert raised.value.source.endswith("IM0000")


def test_a_transfer_syntax_of_films_has_no_decoder(tmp_path):
    datasets = encoded(uids.MPEG2MPML, [b"\0" * 50] * 4)
    with pytest.raises(ScanError, match=r"no installed decoder reads .* MPEG2"):
        read_image(made.save(tmp_path, datasets))


@pytest.mark.parametrize("syntax", [uids.JPEG2000Lossless, JPEG_12])
def test_a_damaged_file_is_still_called_damaged(tmp_path, syntax):
    datasets = encoded(syntax, [b"\xff\xd8 rubbish" * 9] * 4)
    for ds in datasets:
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    with pytest.raises(ScanError, match="damaged or truncated"):
        read_image(made.save(tmp_path, datasets))


def test_a_batch_goes_on_after_a_missing_decoder(tmp_path):
    bad = encoded(JPEG_12, [jpeg_of_12_bits()] * 4, BitsStored=12, HighBit=11)
    good = made.series(name="good")
    for ds in good:
        ds.compress(uids.RLELossless)
    for folder, datasets in (("a", bad), ("b", good)):
        made.save(tmp_path / folder, datasets)
    with pytest.raises(ScanError):
        read_image(tmp_path / "a")
    assert read_image(tmp_path / "b").shape == made.SHAPE
