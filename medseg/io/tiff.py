"""TIFF files of grey levels that Pillow cannot read, or reads wrongly: as they are stored.

Pillow reads grey of up to 8 bits and colours. Of deeper grey it opens some, and in others loses
signs or swaps bytes without a word; and it turns what its header calls turned, some of it wrongly.
tifffile reads these.

Source: TIFF Revision 6.0 (Adobe, 1992) and its Technical Note 2.
"""

from __future__ import annotations

import logging
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from tifffile import TiffFile, TiffPage

from medseg.errors import ScanError
from medseg.io.voxels import check_size

Pixels = npt.NDArray[Any]

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1
_UNCOMPRESSED = 1
_DEFLATE = (8, 32946)
_NO_PREDICTOR, _DIFFERENCES = 1, 2
_PHOTOMETRIC = 262
_ORIENTATION = 274
_UNSIGNED = 1
_UNSTATED = 0
_KINDS = {
    _UNSIGNED: "unsigned integers",
    2: "signed integers",
    3: "floats",
}
_REMEDY = "save it uncompressed or with Deflate, as integers or floats"
# Beyond these Pillow's own decoders lose signs, or do not swap bytes.
_PILLOW_READS = ("<u2", ">u2", "<i2", "<i4", "<f4")
# What tifffile raises on broken or hostile files; its own error is a ValueError.
_BROKEN = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(OSError, EOFError, ArithmeticError, RuntimeError, MemoryError),
    *(struct.error, zlib.error),
)


def is_tiff(path: Path) -> bool:
    """Tell by its first bytes whether a file is TIFF."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def read_grey(path: Path, *, inverted: bool) -> tuple[Pixels, bool] | None:
    """Read grey of more than 8 bits, with signs, floating, or marked as turned.

    Args:
        path: A TIFF file.
        inverted: Whether levels are turned around where 0 is white, rather than kept as stored.
            Only unsigned integers have a black to be counted from.

    Returns:
        Pixels of shape ``(rows, columns)``, and whether the header calls them turned, which they
        are not here; ``None`` where Pillow reads the file.

    Raises:
        ScanError: If it is broken, has pages, or is stored in a way that is not read.
    """
    # It says where a file is broken, and names it; errors do so here.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    with path.open("rb") as file:
        page = _open_page(file, path)
        if page is None:
            return None
        if _PHOTOMETRIC not in page.tags:
            raise ScanError(
                "the TIFF does not state whether 0 is black (PhotometricInterpretation is "
                "missing); save it again from the original",
                source=path,
            )
        is_turned = page.tags.valueof(_ORIENTATION, default=1) != 1
        if _has_unstated_channel(page):
            raise _unread(page, path)
        is_left_to_pillow = not _is_grey(page) or _is_shallow(page)
        if is_left_to_pillow and not is_turned:
            return None
        pixels = _read_page(page, file, path, inverted)
    return None if pixels is None else (pixels, is_turned)


def _open_page(file: BinaryIO, path: Path) -> TiffPage | None:
    """Return the only page, or ``None`` where tifffile does not understand the header."""
    try:
        tiff = TiffFile(file)
        page = tiff.pages.first
        pages = _count_pages(tiff, page)
    except _BROKEN:
        return None
    if pages > 1:
        raise ScanError(
            f"{pages} pages; one picture per file is read, so save the pages as single files (or "
            "as a .nii.gz if they are slices)",
            source=path,
        )
    return page


def _read_page(
    page: TiffPage, file: BinaryIO, path: Path, inverted: bool
) -> Pixels | None:
    """Return the pixels of a page, or ``None`` where Pillow decodes them exactly."""
    is_white_zero = page.photometric == _WHITE_IS_ZERO
    if not _can_decode(page):
        stored = f"{page.parent.byteorder}{np.dtype(page.dtype).str[1:]}"
        if stored in _PILLOW_READS and not is_white_zero:
            return None
        raise _unread(page, path)
    try:
        pixels = _decode(page, file, path)
    except _BROKEN as error:
        raise ScanError(
            "the TIFF file is damaged",
            source=path,
            detail=str(error) or type(error).__name__,
        ) from error
    is_unsigned = page.sampleformat == _UNSIGNED
    if is_white_zero and inverted and is_unsigned:
        return np.iinfo(pixels.dtype).max - pixels
    return pixels


def _decode(page: TiffPage, file: BinaryIO, path: Path) -> Pixels:
    """Return the pixels as stored, shape ``(rows, columns)``; sizes are checked first."""
    size = (page.imagelength, page.imagewidth)
    check_size((*size, 1), path)
    _check_segments(page, file, path)
    pixels: Pixels = page.asarray()
    return pixels.reshape(size)


def describe_unread(path: Path) -> str:
    """Say of a TIFF file that Pillow does not open what it holds; nothing if it is broken."""
    try:
        with TiffFile(path) as tiff:
            held = _describe(tiff.pages.first)
    except _BROKEN:
        return ""
    return (
        f"a TIFF of {held}, which is not read; {_REMEDY}, grey or RGB of 8 bits"
    )


def _unread(page: TiffPage, path: Path) -> ScanError:
    return ScanError(
        f"a TIFF of {_describe(page)}, which is not read; {_REMEDY}",
        source=path,
    )


def _has_unstated_channel(page: TiffPage) -> bool:
    """Tell whether a second channel lies behind grey that is no alpha: Pillow would drop it."""
    is_level = page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    has_more = page.samplesperpixel > 1
    return is_level and has_more and _UNSTATED in (page.extrasamples or (0,))


def _is_grey(page: TiffPage) -> bool:
    is_level = page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    return is_level and page.samplesperpixel == 1


def _is_shallow(page: TiffPage) -> bool:
    return page.bitspersample <= 8 and page.sampleformat == _UNSIGNED


def _can_decode(page: TiffPage) -> bool:
    """Tell whether tifffile decodes grey by itself, without a package of codecs."""
    dtype = page.dtype
    is_number = dtype is not None and dtype.kind in "iuf"
    has_codec = page.compression in (_UNCOMPRESSED, *_DEFLATE)
    has_predictor = page.predictor in (_NO_PREDICTOR, _DIFFERENCES)
    return is_number and has_codec and has_predictor and _is_grey(page)


def _count_pages(tiff: TiffFile, page: TiffPage) -> int:
    """Count pictures; ImageJ stores many behind the only one that it lists."""
    pages = len(tiff.pages) * page.imagedepth
    if tiff.is_imagej:
        stated = (tiff.imagej_metadata or {}).get("images", 1)
        pages = max(pages, int(stated))
    return pages


def _describe(page: TiffPage) -> str:
    """Say how a page's pixels are stored."""
    kind = _KINDS.get(page.sampleformat, "numbers of another kind")
    channels = page.samplesperpixel
    text = f"{page.bitspersample}-bit {kind}"
    if channels > 1:
        text = f"{channels} channels of {text}"
    if page.compression != _UNCOMPRESSED:
        name = getattr(page.compression, "name", page.compression)
        text += f", compressed with {name}"
    if page.predictor != _NO_PREDICTOR:
        text += f" and predictor {int(page.predictor)}"
    orientation = page.tags.valueof(_ORIENTATION, default=1)
    if orientation != 1:
        text += f", marked as turned (Orientation {orientation})"
    return text


def _check_segments(page: TiffPage, file: BinaryIO, path: Path) -> None:
    """Refuse strips and tiles that are missing or cut off, or inflate to more than their place.

    tifffile fills what is missing with zeros.
    """
    available = path.stat().st_size
    ends = [0]
    for offset, count in zip(
        page.dataoffsets, page.databytecounts, strict=True
    ):
        ends.append(offset + count if count else available + 1)
    if len(ends) - 1 != math.prod(page.chunked) or max(ends) > available:
        raise ScanError(
            f"truncated: strips of pixels are missing, or lie beyond the {available:,} bytes of "
            "the file; copy or download it again",
            source=path,
        )
    needed = page.imagelength * page.imagewidth * _get_pixel_bytes(page)
    held = sum(_measure_segments(page, file))
    if held < needed:
        raise ScanError(
            f"truncated: the file holds {held:,} of {needed:,} bytes of pixels; copy or download "
            "it again",
            source=path,
        )


def _get_pixel_bytes(page: TiffPage) -> int:
    return np.dtype(page.dtype).itemsize


def _measure_segments(page: TiffPage, file: BinaryIO) -> Iterator[int]:
    """Yield how many bytes each strip or tile holds.

    Raises:
        ValueError: If one inflates to more than its place.
    """
    if page.compression == _UNCOMPRESSED:
        yield from page.databytecounts
        return
    rows, columns = page.rowsperstrip, page.imagewidth
    if page.is_tiled:
        rows, columns = page.tilelength, page.tilewidth
    else:
        rows = min(rows, page.imagelength)
    room = rows * columns * _get_pixel_bytes(page)
    for offset, count in zip(
        page.dataoffsets, page.databytecounts, strict=True
    ):
        file.seek(offset)
        content = file.read(count)
        inflated = zlib.decompressobj().decompress(content, room + 1)
        if len(inflated) > room:
            raise ValueError("a strip inflates to more than its header states")
        yield len(inflated)
