"""Words of pixel data → stored values, and which of them are padding.

Sources: DICOM PS3.5 8.1.1 (Bits Allocated, Bits Stored, High Bit), PS3.3 C.7.5.1.1.2 (Pixel
Padding Value: a stored value that no pixel of the image itself has).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import ScanError
from medseg.io.dicom.files import PYDICOM_ERRORS

Pixels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

PIXEL_FORMAT_KEYWORDS = (
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "FloatPixelPaddingValue",
    "FloatPixelPaddingRangeLimit",
    "DoubleFloatPixelPaddingValue",
    "DoubleFloatPixelPaddingRangeLimit",
)
"""The elements that a pixel format is read from."""

_PADDING_BYTES = 2
_PADDING_VALUES = 1 << (8 * _PADDING_BYTES)
_SMALLEST_SLOPE = float(np.finfo(np.float32).tiny)
_LARGEST_INTENSITY = float(np.finfo(np.float32).max)
_FLOAT_KINDS = ("Float", "DoubleFloat")

_Limits = tuple[float, float]


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """Where a value lies in the word of its pixel, and which values are padding.

    Attributes:
        bits_stored: How many bits of a word are the value.
        high_bit: The highest of them, from 0.
        is_signed: Whether that one is the sign.
        padding: The lowest and the highest value that stand for no pixel, or ``None``.
    """

    bits_stored: int
    high_bit: int
    is_signed: bool
    padding: _Limits | None = None

    @property
    def low_bit(self) -> int:
        """The lowest bit of the value, from 0."""
        return self.high_bit + 1 - self.bits_stored

    def extract(self, words: Pixels) -> Pixels:
        """Return the values that words hold; bits that are no part of them are left out.

        Raises:
            ScanError: If bits below the value hold something: then the header may be wrong.
        """
        if words.dtype.kind == "f":
            return words
        below = (1 << self.low_bit) - 1
        if below and (words & below).any():
            raise ScanError(
                f"HighBit {self.high_bit} and BitsStored {self.bits_stored} leave out the lowest "
                f"{self.low_bit} bits of each pixel, but something stands in them, so the header "
                "or the pixels are wrong; export the series again"
            )
        above = 8 * words.itemsize - 1 - self.high_bit
        if not above and not below:
            return words
        # Up to the word's own sign bit, and down again: that extends the sign of the value.
        values: Pixels = (words << above) >> (above + self.low_bit)
        return values

    @property
    def holds_padding(self) -> bool:
        """Whether padding fits into the value's bits; else it stands in whole words."""
        if self.padding is None:
            return True
        low, high = self.padding
        lowest = -(1 << (self.bits_stored - 1)) if self.is_signed else 0
        count = 1 << self.bits_stored
        return lowest <= low and high < lowest + count

    def find_padding(self, words: Pixels, values: Pixels) -> Mask | None:
        """Return which pixels are padding, or ``None`` where none is."""
        if self.padding is None:
            return None
        low, high = self.padding
        searched = values if self.holds_padding else words
        is_above = searched >= low
        is_below = searched <= high
        is_padding: Mask = is_above & is_below
        return is_padding if is_padding.any() else None

    def find_stray_bits(self, words: Pixels, values: Pixels) -> Mask | None:
        """Return in which words bits above the value hold something, or ``None``.

        Copies of the sign are no such thing.
        """
        if words.dtype.kind == "f" or self.high_bit + 1 == 8 * words.itemsize:
            return None
        first_above = self.high_bit + 1
        # The order of bytes stays.
        unsigned_type = words.dtype.str.replace("i", "u")
        unsigned = words.view(unsigned_type)
        above = unsigned >> first_above
        if not above.any():
            return None
        is_stray: Mask = above != 0
        if self.is_signed:
            is_negative = values < 0
            has_sign = words >> first_above == -1
            is_extended = is_negative & has_sign
            is_stray &= ~is_extended
        return is_stray if is_stray.any() else None

    def require_scaling(self, slope: float, intercept: float) -> None:
        """Make sure that a slope and an intercept make intensities of the values.

        Raises:
            ScanError: If all would be the same, or some too large for any number.
        """
        # Intensities are float32, where smaller slopes are 0, too.
        if abs(slope) < _SMALLEST_SLOPE:
            raise ScanError(
                f"RescaleSlope is {slope:g}, which would make every intensity the same"
            )
        largest = abs(slope) * 2.0**self.bits_stored + abs(intercept)
        if largest > _LARGEST_INTENSITY:
            raise ScanError(
                f"RescaleSlope {slope:g} and RescaleIntercept {intercept:g} make intensities "
                "that are too large to be any; the header is damaged"
            )


def parse_pixel_format(ds: Any, bits_allocated: int) -> PixelFormat:
    """Read the pixel format of a header.

    Args:
        ds: The header.
        bits_allocated: Bits of a word.

    Raises:
        ScanError: If the bits stated do not lie in a word.
    """
    bits_stored = _get_number(ds, "BitsStored", bits_allocated)
    high_bit = _get_number(ds, "HighBit", bits_stored - 1)
    is_signed = _get_number(ds, "PixelRepresentation", 0) == 1
    padding = _parse_padding(ds, is_signed)
    return _make_format(
        bits_allocated, bits_stored, high_bit, is_signed, padding
    )


@lru_cache(maxsize=256)
def _make_format(
    bits_allocated: int,
    bits_stored: int,
    high_bit: int,
    is_signed: bool,
    padding: _Limits | None,
) -> PixelFormat:
    """Return a format; the frames of a series share it."""
    if not 0 < bits_stored <= high_bit + 1 <= bits_allocated:
        raise ScanError(
            f"BitsAllocated {bits_allocated}, BitsStored {bits_stored} and HighBit {high_bit} "
            "contradict each other, so the pixels cannot be read"
        )
    return PixelFormat(bits_stored, high_bit, is_signed, padding)


def _parse_padding(ds: Any, is_signed: bool) -> _Limits | None:
    """Return the lowest and the highest value that stand for no pixel, in stored values."""
    for kind in _FLOAT_KINDS:
        value = _get_value(ds, f"{kind}PixelPaddingValue")
        limit = _get_value(ds, f"{kind}PixelPaddingRangeLimit")
        if value is not None:
            return _sort_limits(_parse_float(value), _parse_float(limit))
    value = _get_value(ds, "PixelPaddingValue")
    limit = _get_value(ds, "PixelPaddingRangeLimit")
    return _sort_limits(
        _parse_padding_word(value, is_signed),
        _parse_padding_word(limit, is_signed),
    )


def _get_value(ds: Any, keyword: str) -> Any:
    # A broken element that nobody needs to read the pixels must not keep anybody from it.
    try:
        return ds.get(keyword)
    except PYDICOM_ERRORS:
        return None


def _sort_limits(value: float | None, limit: float | None) -> _Limits | None:
    if value is None:
        return None
    if limit is None:
        return value, value
    return min(value, limit), max(value, limit)


def _parse_padding_word(value: Any, is_signed: bool) -> int | None:
    """Return a stored value of two bytes, whichever sign the element's own type gives it.

    The standard makes it signed where the pixels are, but writers mix that up: 63536 stands for
    -2000 among signed pixels, and -2000 for 63536 among unsigned ones.
    """
    # Without a type in the file pydicom may leave the bytes as they are.
    if isinstance(value, bytes):
        word = value[:_PADDING_BYTES]
        number = int.from_bytes(word, "little") if word else None
    else:
        number = _parse_integer(value)
    if number is None:
        return None
    word_value = number % _PADDING_VALUES
    if is_signed and word_value >= _PADDING_VALUES // 2:
        return word_value - _PADDING_VALUES
    return word_value


def _parse_integer(value: Any) -> int | None:
    number = _parse_float(value)
    if number is None or not np.isfinite(number):
        return None
    return int(number)


def _parse_float(value: Any) -> float | None:
    """Return a number, the first of several; ``None`` for what is none: writers put text there."""
    is_list = isinstance(value, list | tuple)
    first = value[0] if is_list and value else value
    try:
        return float(first)
    except (TypeError, ValueError):
        return None


def _get_number(ds: Any, keyword: str, default: int) -> int:
    value = ds.get(keyword)
    if value is None or value == "":
        return default
    return int(value)
