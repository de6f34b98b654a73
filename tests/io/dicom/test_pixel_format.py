"""Stored values lie where HighBit and BitsStored say, whatever else stands in a pixel's bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import uid as uids
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from support import dicom as made

from medseg.errors import ScanError
from medseg.io import read_image
from medseg.io.dicom.headers import read_header
from medseg.io.dicom.pixel_format import PixelFormat

STORED = made.voxels() % 2048
SIGNED = STORED.astype(np.int16) - 1024
OVERLAY = {"OverlayRows": 5, "OverlayBitsAllocated": 16}


def read(folder: Path, words: np.ndarray, **changes) -> np.ndarray:
    saved = made.save(folder, made.series(words, **changes))
    return read_image(saved).array[0]


def overlay_in_bit(bit: int) -> np.ndarray:
    drawn = np.zeros(made.SHAPE, np.uint16)
    drawn[1:4, 2, :] = 1 << bit
    return drawn


@pytest.mark.parametrize("bit", [12, 13, 14, 15])
def test_overlays_in_the_upper_bits_stay_out_of_unsigned_values(tmp_path, bit):
    words = STORED | overlay_in_bit(bit)
    assert np.array_equal(
        read(tmp_path, words, BitsStored=12, HighBit=11), STORED
    )


@pytest.mark.parametrize("is_extended", [True, False])
@pytest.mark.parametrize("bit", [12, 15])
def test_overlays_in_the_upper_bits_stay_out_of_signed_values(
    tmp_path, bit, is_extended
):
    words = SIGNED.view(np.uint16) & (0xFFFF if is_extended else 0x0FFF)
    words = (words ^ overlay_in_bit(bit)).view(np.int16)
    found = read(tmp_path, words, BitsStored=12, HighBit=11)
    assert np.array_equal(found, SIGNED)


def test_bits_that_are_no_part_of_a_value_are_told(tmp_path):
    words = STORED | overlay_in_bit(12)
    folder = made.save(tmp_path, made.series(words, BitsStored=12, HighBit=11))
    (warning,) = read_image(folder).warnings
    assert warning.startswith("12 of 120 pixels hold something in bits")


@pytest.mark.parametrize("is_extended", [True, False])
def test_the_sign_of_a_value_is_no_stray_bit(tmp_path, is_extended):
    words = SIGNED.view(np.uint16) & (0xFFFF if is_extended else 0x0FFF)
    words = words.view(np.int16)
    datasets = made.series(words, BitsStored=12, HighBit=11)
    volume = read_image(made.save(tmp_path, datasets))
    assert np.array_equal(volume.array[0], SIGNED)
    assert volume.warnings == ()


@pytest.mark.parametrize("bits_stored", [8, 12])
def test_values_in_the_upper_bits_are_shifted(tmp_path, bits_stored):
    stored = STORED % (1 << (bits_stored - 1))
    shift = 16 - bits_stored
    unsigned = (stored << shift).astype(np.uint16)
    facts = {"BitsStored": bits_stored, "HighBit": 15}
    assert np.array_equal(read(tmp_path / "a", unsigned, **facts), stored)
    signed = stored.astype(np.int16) - 100
    shifted = signed << shift
    assert np.array_equal(read(tmp_path / "b", shifted, **facts), signed)


@pytest.mark.parametrize(
    "syntax", [uids.RLELossless, uids.JPEGLSLossless, uids.JPEG2000Lossless]
)
def test_compressed_values_are_shifted_too(tmp_path, syntax):
    stored = made.voxels((40, 32, 2)) % 4096
    datasets = made.series((stored << 4).astype(np.uint16))
    for ds in datasets:
        ds.compress(syntax)
        ds.BitsStored, ds.HighBit = 12, 15
    volume = read_image(made.save(tmp_path, datasets))
    assert np.array_equal(volume.array[0], stored)


def test_compressed_overlays_stay_out_too(tmp_path):
    datasets = made.series(STORED | overlay_in_bit(15))
    for ds in datasets:
        ds.compress(uids.RLELossless)
        ds.BitsStored, ds.HighBit = 12, 11
    volume = read_image(made.save(tmp_path, datasets))
    assert np.array_equal(volume.array[0], STORED)


def test_a_high_bit_that_leaves_out_values_is_refused(tmp_path):
    with pytest.raises(
        ScanError, match="HighBit 15 and BitsStored 12 leave out the lowest 4"
    ):
        read(tmp_path, STORED, BitsStored=12, HighBit=15)


@pytest.mark.parametrize(
    ("bits_stored", "high_bit"), [(12, 10), (12, 16), (17, 16), (0, 15)]
)
def test_bits_that_contradict_each_other_are_refused(
    tmp_path, bits_stored, high_bit
):
    with pytest.raises(ScanError, match="contradict each other"):
        read(tmp_path, STORED, BitsStored=bits_stored, HighBit=high_bit)


def find_padding(tmp_path: Path, vr: str | None, value: bytes, **changes):
    """Return the padding that a header states by the bytes of its element."""
    (ds, *_) = made.series(made.voxels((6, 5, 1)), **changes)
    tag = Tag("PixelPaddingValue")
    ds[tag] = RawDataElement(tag, vr, len(value), value, 0, vr is None, True)
    if vr is None:
        ds.file_meta.TransferSyntaxUID = uids.ImplicitVRLittleEndian
    made.save(tmp_path, [ds])
    header = read_header(tmp_path / "IM0000")
    assert header is not None
    (frame,) = header.frames
    return frame.pixel_format.padding


MINUS_2000 = (-2000).to_bytes(2, "little", signed=True)


@pytest.mark.parametrize("vr", ["US", "SS"])
def test_the_pixels_decide_whether_padding_is_signed(tmp_path, vr):
    for representation, expected in ((0, 63536), (1, -2000)):
        folder = tmp_path / str(representation)
        found = find_padding(
            folder, vr, MINUS_2000, PixelRepresentation=representation
        )
        assert found == (expected, expected)


@pytest.mark.parametrize(
    ("representation", "expected"), [(0, 63536), (1, -2000)]
)
def test_padding_without_a_type_is_read(tmp_path, representation, expected):
    datasets = made.series(PixelRepresentation=representation)
    for ds in datasets:
        ds.file_meta.TransferSyntaxUID = uids.ImplicitVRLittleEndian
        ds.add_new(
            "PixelPaddingValue", "SS" if representation else "US", expected
        )
    made.save(tmp_path, datasets)
    header = read_header(tmp_path / "IM0000")
    assert header is not None
    assert header.frames[0].pixel_format.padding == (expected, expected)


@pytest.mark.parametrize(
    ("vr", "value"),
    [("LO", b"MUSTERFRAU"), ("US", b""), ("DS", b"nan ")],
)
def test_padding_that_is_no_number_is_none(tmp_path, vr, value):
    assert find_padding(tmp_path, vr, value) is None


@pytest.mark.parametrize(
    ("value", "limit", "expected"),
    [(100, 50, (50, 100)), (63536, 64000, (-2000, -1536)), (-5, 5, (-5, 5))],
)
def test_a_range_of_padding_is_sorted(tmp_path, value, limit, expected):
    datasets = made.series(PixelRepresentation=1)
    for ds in datasets:
        ds.add_new("PixelPaddingValue", "US" if value > 0 else "SS", value)
        ds.add_new("PixelPaddingRangeLimit", "US", limit)
    made.save(tmp_path, datasets)
    header = read_header(tmp_path / "IM0000")
    assert header is not None
    assert header.frames[0].pixel_format.padding == expected


def test_padding_beyond_the_stored_bits_is_found_in_whole_words():
    words = np.array([[0xF830, 0x0830, 7]], np.uint16)
    pixel_format = PixelFormat(12, 11, is_signed=False, padding=(63536, 63536))
    values = pixel_format.extract(words)
    assert values.tolist() == [[0x830, 0x830, 7]]
    found = pixel_format.find_padding(words, values)
    assert found is not None
    assert found.tolist() == [[True, False, False]]


def test_a_broken_element_for_padding_keeps_nobody_from_the_pixels(tmp_path):
    datasets = made.series()
    for ds in datasets:
        ds.add_new("PixelPaddingValue", "US", 4711)
    folder = made.save(tmp_path, datasets)
    for file in folder.iterdir():
        # (0028,0120) of three bytes, which is no number.
        head = b"\x28\x00\x20\x01US"
        value = (4711).to_bytes(2, "little")
        made.forged(
            file,
            head + b"\x02\x00" + value,
            head + b"\x03\x00" + value + b"\x00",
        )
    assert np.array_equal(read_image(folder).array[0], made.voxels())


@pytest.mark.parametrize("order", ["<", ">"])
def test_stray_bits_are_found_in_any_order_of_bytes(order):
    pixel_format = PixelFormat(12, 11, is_signed=True)
    words = np.array([-1, 5, 0x1005, 0x0FFF], np.int16).astype(f"{order}i2")
    values = pixel_format.extract(words)
    assert values.tolist() == [-1, 5, 5, -1]
    found = pixel_format.find_stray_bits(words, values)
    assert found is not None
    assert found.tolist() == [False, False, True, False]
