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
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels import get_decoder
from pydicom.uid import ImplicitVRLittleEndian

from medseg.errors import ScanError
from medseg.io.dicom.files import MAX_HEADER_BYTES, PYDICOM_ERRORS, inflate
from medseg.io.dicom.frames import Frame
from medseg.io.gzip import EXPANSION

Pixels = npt.NDArray[Any]

MAX_FRAME_PIXELS = 16384 * 16384
"""Largest compressed frame decoded; its true size is known only after memory was taken."""

_TAGS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
_DECODER = Path(__file__).with_name("decoder.py")
_BASE_MEMORY = 4 << 30  # address space, most of it never used: libraries and their thread stacks
_MEMORY_PER_BYTE = 16
_BASE_SECONDS = 60
_PIXELS_PER_SECOND = 1_000_000


def refuse_truncated(frames: Sequence[Frame]) -> None:
    """Refuse headers that promise more pixels than their file has bytes, before taking memory.

    Raises:
        ScanError: It names the first such file.
    """
    for frame in frames:
        there = frame.file.stat().st_size * (EXPANSION if frame.storage == "deflated" else 1)
        if frame.storage != "encoded" and there < frame.file_bytes:
            raise ScanError(
                f"{frame.file.name}: truncated or wrong; its header promises "
                f"{frame.file_bytes:,} bytes of pixels, the file has {there:,}"
            )


def read_intensities(frames: Sequence[Frame]) -> Iterator[npt.NDArray[np.float64]]:
    """Give each frame's intensities, shape ``(rows, columns)``, in the order of ``frames``.

    Raises:
        ScanError: If a file is truncated or its pixels cannot be decoded; it names the file.
    """
    encoded = [frame for frame in frames if frame.storage == "encoded"]
    decoded = _decoded(encoded) if encoded else iter(())
    for file, group in groupby(frames, key=lambda frame: frame.file):
        same_file = list(group)
        stored = None if same_file[0].storage == "encoded" else _stored(same_file[0])
        for frame in same_file:
            pixels = next(decoded) if stored is None else stored[frame.number]
            if pixels.shape != (frame.rows, frame.columns):
                raise ScanError(
                    f"{file.name}: holds {pixels.shape[1]}×{pixels.shape[0]} pixels, its header "
                    f"says {frame.columns}×{frame.rows}"
                )
            yield pixels * frame.slope + frame.intercept


def _stored(frame: Frame) -> Pixels:
    """Return all frames of an uncompressed file, shape ``(frames, rows, columns)``."""
    try:
        packed = frame.storage == "deflated"
        source = inflate(frame.file, MAX_HEADER_BYTES + frame.file_bytes) if packed else frame.file
        ds = pydicom.dcmread(source, force=True, specific_tags=list(_TAGS))
        syntax = ds.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
        pixels: Pixels = get_decoder(syntax).as_array(ds, raw=True)[0]
    except PYDICOM_ERRORS as error:
        raise ScanError(
            f"{frame.file.name}: its pixels cannot be read ({type(error).__name__}); the file is "
            "truncated or holds no pixels"
        ) from error
    return pixels if pixels.ndim == 3 else pixels[None]


def _decoded(frames: Sequence[Frame]) -> Iterator[Pixels]:
    """Give the stored values of compressed frames, in order, from the decoding process."""
    largest = max(frame.rows * frame.columns for frame in frames)
    if largest > MAX_FRAME_PIXELS:
        raise ScanError(
            f"{frames[0].file.name}: the header says {largest:,} pixels in one compressed frame; "
            f"at most {MAX_FRAME_PIXELS:,} are decoded"
        )
    with _decoder(frames) as answers:
        for frame in frames:
            yield _answer(answers, frame)


@contextlib.contextmanager
def _decoder(frames: Sequence[Frame]) -> Iterator[BinaryIO]:
    # One BLAS thread: each would reserve address space, which is what is limited.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as question:
        question.write(json.dumps(_request(frames)).encode())
        question.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-P", str(_DECODER)],
            stdin=question,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    with process:
        try:
            yield cast(BinaryIO, process.stdout)
        finally:
            process.kill()


def _request(frames: Sequence[Frame]) -> dict[str, Any]:
    largest = max(frame.file_bytes for frame in frames)
    pixels = sum(frame.rows * frame.columns for frame in frames)
    files = groupby(frames, key=lambda frame: frame.file)
    return {
        "memory": _BASE_MEMORY + _MEMORY_PER_BYTE * largest,
        "seconds": _BASE_SECONDS + pixels // _PIXELS_PER_SECOND,
        "tags": _TAGS,
        "files": [[str(file), [frame.number for frame in group]] for file, group in files],
    }


def _answer(answers: BinaryIO, frame: Frame) -> Pixels:
    line = answers.readline(1000)
    head = json.loads(line) if line.endswith(b"\n") else {"error": "the decoder crashed"}
    if "error" in head:
        raise ScanError(
            f"{frame.file.name}: its compressed pixels cannot be decoded ({head['error']}); the "
            "file is damaged or truncated"
        )
    dtype, shape = np.dtype(head["dtype"]), tuple(head["shape"])
    if shape != (frame.rows, frame.columns) or dtype.kind not in "iuf":
        raise ScanError(
            f"{frame.file.name}: its compressed pixels are not the {frame.columns}×{frame.rows} "
            "numbers its header promises"
        )
    content = answers.read(math.prod(shape) * dtype.itemsize)
    if len(content) < math.prod(shape) * dtype.itemsize:
        raise ScanError(f"{frame.file.name}: decoding its compressed pixels ended too early")
    return np.frombuffer(content, dtype).reshape(shape)
