"""Frames → intensities. Plain pixels are read here, compressed ones in a separate process.

Stored values are used as they are: MONOCHROME1 is not inverted. Each frame has its own rescale
slope and intercept.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import FileDataset
from pydicom.pixels import get_decoder
from pydicom.uid import UID, ImplicitVRLittleEndian

from medseg._support.gzip import EXPANSION
from medseg._support.platform.processes import watch_limits
from medseg.errors import ScanError
from medseg.io.dicom.files import (
    MAX_HEADER_BYTES,
    PYDICOM_ERRORS,
    attach_source,
    inflate,
    quote_error,
)
from medseg.io.dicom.frames import Frame, Frames
from medseg.io.dicom.pixel_format import Mask, Pixels

Intensities = npt.NDArray[np.float64]

MAX_FRAME_PIXELS = 16384 * 16384
"""Largest compressed frame decoded; its true size is known only after memory was taken."""

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
FORMAT_KEYWORDS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
"""Elements that say what pixels are like."""

_PIXEL_KEYWORDS = (
    *FORMAT_KEYWORDS,
    "PlanarConfiguration",
    *_PIXELS,
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)
_WHOLE_WORDS = {"raw": True, "correct_unused_bits": False}
_DECODER = Path(__file__).with_name("decoder.py")
# Address space, most of it never used: libraries and their thread stacks.
_BASE_MEMORY = 4 << 30
_MEMORY_PER_BYTE = 16
_BASE_SECONDS = 60
_PIXELS_PER_SECOND = 1_000_000
_PADDING_BYTES = 1
"""Values in DICOM have even lengths."""
_BYTES_PER_PIXEL = 2


def refuse_truncated(frames: Frames) -> None:
    """Refuse headers that promise more pixels than their file has bytes, before taking memory.

    Raises:
        ScanError: Its source is the first such file.
    """
    for frame in frames:
        if frame.storage == "encoded":
            continue
        available = frame.file.stat().st_size
        if frame.storage == "deflated":
            available *= EXPANSION
        if available < frame.file_bytes:
            raise ScanError(
                f"the file is truncated or its header is wrong: {frame.file_bytes:,} bytes of "
                f"pixels are declared, the file has {available:,}",
                source=frame.file,
            )


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """The pixels of one frame, shape ``(rows, columns)``.

    Attributes:
        intensities: The stored values, rescaled.
        is_padding: Which pixels are padding, or ``None`` where none is.
        stray_pixels: How many hold something in bits that are no part of the value.
    """

    intensities: Intensities
    is_padding: Mask | None
    stray_pixels: int


def read_intensities(frames: Frames) -> Iterator[Intensities]:
    """Give each frame's intensities, shape ``(rows, columns)``, in the order of ``frames``.

    Raises:
        ScanError: As ``read_planes``.
    """
    for plane in read_planes(frames):
        yield plane.intensities


def read_planes(frames: Frames) -> Iterator[Plane]:
    """Give each frame's pixels, in the order of ``frames``.

    Raises:
        ScanError: If a file is truncated, its pixels cannot be decoded, or its header contradicts
            them; its source is the file.
    """
    encoded = [frame for frame in frames if frame.storage == "encoded"]
    decoded = _decode(encoded)
    for _, group in groupby(frames, key=_get_file):
        file_frames = list(group)
        file_pixels = _iterate_pixels(file_frames, decoded)
        for frame, pixels in zip(file_frames, file_pixels, strict=True):
            _require_size(frame, pixels)
            yield _make_plane(frame, pixels)


def _make_plane(frame: Frame, words: Pixels) -> Plane:
    pixel_format = frame.pixel_format
    with attach_source(frame.file):
        values = pixel_format.extract(words)
    is_padding = pixel_format.find_padding(words, values)
    is_stray = pixel_format.find_stray_bits(words, values)
    if is_padding is not None:
        if is_stray is not None:
            is_stray &= ~is_padding
        if not pixel_format.holds_padding:
            values = np.where(is_padding, words, values)
    stray_pixels = 0 if is_stray is None else int(np.count_nonzero(is_stray))
    intensities = values * frame.slope + frame.intercept
    return Plane(intensities, is_padding, stray_pixels)


def _iterate_pixels(
    frames: Frames, decoded: Iterator[Pixels]
) -> Iterator[Pixels]:
    """Give the words of frames of one file, the next ones of ``decoded`` if encoded."""
    first = frames[0]
    if first.storage == "encoded":
        yield from islice(decoded, len(frames))
        return
    stored = _read_stored(first)
    for frame in frames:
        yield stored[frame.index]


def open_pixels(
    frame: Frame, keywords: Sequence[str]
) -> tuple[FileDataset, UID]:
    """Open the file of a frame that is not compressed, its pixels included.

    Returns:
        The elements asked for, and the transfer syntax.

    Raises:
        One of ``PYDICOM_ERRORS``.
    """
    file: Any = frame.file
    if frame.storage == "deflated":
        max_bytes = MAX_HEADER_BYTES + frame.file_bytes
        file = inflate(frame.file, max_bytes)
    tags = list(keywords)
    ds = pydicom.dcmread(file, force=True, specific_tags=tags)
    syntax = ds.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    return ds, syntax


def _get_file(frame: Frame) -> Path:
    return frame.file


def _require_size(frame: Frame, pixels: Pixels) -> None:
    expected = (frame.rows, frame.columns)
    if pixels.shape == expected:
        return
    rows, columns = pixels.shape[:2]
    raise ScanError(
        f"the image is {columns}×{rows} pixels, its header says {frame.columns}×{frame.rows}",
        source=frame.file,
    )


def _read_stored(frame: Frame) -> Pixels:
    """Return all frames of an uncompressed file, shape ``(frames, rows, columns)``."""
    try:
        ds, syntax = open_pixels(frame, _PIXEL_KEYWORDS)
        refuse_excess(frame, frame.file_bytes, _get_pixel_bytes(ds))
        decoder = get_decoder(syntax)
        pixels: Pixels
        pixels, _ = decoder.as_array(ds, **_WHOLE_WORDS)
    except PYDICOM_ERRORS as error:
        raise ScanError(
            "the pixels cannot be read; the file is truncated or holds no pixels",
            source=frame.file,
            detail=quote_error(error),
        ) from error
    if pixels.ndim == 3:
        return pixels
    return pixels[None]


def _get_pixel_bytes(ds: FileDataset) -> bytes:
    values = [ds.get(keyword) or b"" for keyword in _PIXELS]
    longest: bytes = max(values, key=len)
    return longest


def refuse_excess(frame: Frame, expected: int, stored: bytes) -> None:
    """Refuse pixels that go on after the last row: rows or columns are wrong, and all is sheared.

    What is less than a row, of a bit a pixel, fills up some unit of the disk; older writers fill
    up with more zeros (PS3.5, 8.1.1), of which a row's worth is let pass.

    Args:
        frame: Any frame of the file.
        expected: Bytes that all frames take by the header.
        stored: The file's pixels, uncompressed.
    """
    excess = len(stored) - expected
    fewest_row_bytes = frame.columns // 8
    if excess <= max(_PADDING_BYTES, fewest_row_bytes):
        return
    row_bytes = frame.columns * _BYTES_PER_PIXEL
    is_filled_up = excess <= row_bytes and not any(stored[expected:])
    if not is_filled_up:
        raise ScanError(
            f"the file holds {excess:,} more bytes of pixels than its header accounts for; the "
            "header's rows, columns or number of frames are wrong",
            source=frame.file,
        )


def _decode(frames: Frames) -> Iterator[Pixels]:
    """Give the stored values of compressed frames, in order, from the decoding process."""
    if not frames:
        return
    largest = max(frame.pixels for frame in frames)
    if largest > MAX_FRAME_PIXELS:
        raise ScanError(
            f"the header says {largest:,} pixels in one compressed frame; at most "
            f"{MAX_FRAME_PIXELS:,} are decoded",
            source=frames[0].file,
        )
    with _start_decoder(frames) as answers:
        for frame in frames:
            yield _receive(answers, frame)


@contextlib.contextmanager
def _start_decoder(frames: Frames) -> Iterator[BinaryIO]:
    # One BLAS thread: each would reserve address space, which is what is limited.
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    request = _make_request(frames)
    text = json.dumps(request)
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-P", str(_DECODER)],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    limits = request["memory"], request["seconds"]
    with process, watch_limits(process, *limits):
        try:
            yield cast(BinaryIO, process.stdout)
        finally:
            process.kill()


def _make_request(frames: Frames) -> dict[str, Any]:
    largest = max(frame.file_bytes for frame in frames)
    pixels = sum(frame.pixels for frame in frames)
    memory = _BASE_MEMORY + _MEMORY_PER_BYTE * largest
    seconds = _BASE_SECONDS + pixels // _PIXELS_PER_SECOND
    files = []
    for file, group in groupby(frames, key=_get_file):
        indices = [frame.index for frame in group]
        files.append([str(file), indices])
    return {
        "memory": memory,
        "seconds": seconds,
        "keywords": _PIXEL_KEYWORDS,
        "files": files,
    }


def _receive(answers: BinaryIO, frame: Frame) -> Pixels:
    """Return one frame's stored values, or raise what the decoding process says."""
    line = answers.readline(1000)
    if not line.endswith(b"\n"):
        raise _make_decoding_error(frame, "the decoder crashed")
    head = json.loads(line)
    if head.get("undecodable"):
        raise ScanError(
            f"no installed decoder reads the transfer syntax {head['undecodable']}; convert the "
            "series to an uncompressed one, as dcmdjpeg of dcmtk does, or install a decoder "
            "(pylibjpeg-libjpeg reads 12-bit JPEG)",
            source=frame.file,
        )
    if "error" in head:
        raise _make_decoding_error(frame, head["error"])
    dtype = np.dtype(head["dtype"])
    shape = tuple(head["shape"])
    is_numeric = dtype.kind in "iuf"
    if shape != (frame.rows, frame.columns) or not is_numeric:
        raise ScanError(
            f"the compressed image does not have the {frame.columns}×{frame.rows} pixels that its "
            "header declares",
            source=frame.file,
        )
    size = math.prod(shape) * dtype.itemsize
    content = answers.read(size)
    if len(content) < size:
        raise _make_decoding_error(frame, "the decoder stopped early")
    stored = np.frombuffer(content, dtype)
    return stored.reshape(shape)


def _make_decoding_error(frame: Frame, detail: str) -> ScanError:
    return ScanError(
        "the compressed pixels cannot be decoded; the file is damaged or truncated",
        source=frame.file,
        detail=detail,
    )
