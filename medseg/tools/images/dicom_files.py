"""Opening DICOM files that strangers wrote: what is one, and how much of it is taken in.

A deflated file of 2 MB can inflate to gigabytes, so it is inflated here, up to a limit, before
pydicom sees it. Elements that were not asked for are never parsed.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import pydicom
import pydicom.filewriter
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from medseg.tools.images.gzipped import EXPANSION
from medseg.words.errors import ScanError

MALFORMED = (
    InvalidDicomError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    EOFError,
    OverflowError,
    NotImplementedError,
    RecursionError,
    MemoryError,
    OSError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on broken or hostile files, while opening and while giving out values."""

HEADER_BYTES = 64 << 20
"""Most that a deflated header is inflated to; an enhanced CT of 1000 frames needs about 2 MB."""

_PREAMBLE = 128
# Without a preamble a file begins with group 2 (its file meta) or group 8, little endian.
_BARE_STARTS = (b"\x02\x00", b"\x08\x00")
_USUAL_SUFFIXES = (".dcm", ".dicom", ".ima")


def claims_dicom(path: Path) -> bool:
    """Tell whether a file says that it is DICOM, by its first bytes or else by its name."""
    return has_magic(path) or path.suffix.lower() in _USUAL_SUFFIXES


def has_magic(path: Path) -> bool:
    """Tell whether a regular file has DICM behind its preamble."""
    return _head(path)[_PREAMBLE:] == b"DICM"


def may_be_dicom(path: Path) -> bool:
    """Tell quickly whether a file could be DICOM, with or without a preamble."""
    head = _head(path)
    return head[_PREAMBLE:] == b"DICM" or head[:2] in _BARE_STARTS


def open_header(path: Path, tags: Sequence[str]) -> FileDataset:
    """Read the named elements that stand before the pixels.

    Raises:
        One of ``MALFORMED``; ``ScanError`` for a deflated file that inflates without end.
    """
    source = _inflated(path, HEADER_BYTES, whole=False) or path
    return pydicom.dcmread(source, stop_before_pixels=True, force=True, specific_tags=list(tags))


def open_pixels(path: Path, tags: Sequence[str], most_bytes: int) -> FileDataset:
    """Read the named elements, pixels among them.

    Args:
        path: The file.
        tags: Keywords of the elements.
        most_bytes: What the pixels may need, by the header; a deflated file that holds more
            than this and a header is refused.

    Raises:
        One of ``MALFORMED``; ``ScanError`` for a deflated file that is larger.
    """
    source = _inflated(path, most_bytes + HEADER_BYTES, whole=True) or path
    return pydicom.dcmread(source, force=True, specific_tags=list(tags))


def most_bytes_in(path: Path) -> int:
    """Return how many bytes the file could possibly hold, without inflating it."""
    size = path.stat().st_size
    if not has_magic(path):
        return size
    deflated = read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    return size * EXPANSION if deflated else size


def _head(path: Path) -> bytes:
    # Pipes and devices are never opened: reading one could wait for ever.
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(_PREAMBLE + 4)


def _inflated(path: Path, most_bytes: int, *, whole: bool) -> io.BytesIO | None:
    """Return a deflated file as a plain one in memory, ``None`` for all others."""
    if not has_magic(path):
        _refuse_bare_deflated(path)
        return None
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return None
    start = _PREAMBLE + 4 + 12 + int(meta.FileMetaInformationGroupLength)
    inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    with path.open("rb") as file:
        file.seek(start)
        content = inflate.decompress(file.read(), most_bytes)
    if whole and inflate.unconsumed_tail:
        raise ScanError(
            f"{path.name}: deflated, and inflates to more than the {most_bytes:,} bytes its "
            "header accounts for"
        )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plain = io.BytesIO()
    plain.write(b"\0" * _PREAMBLE + b"DICM")
    pydicom.filewriter.write_file_meta_info(plain, meta, enforce_standard=False)
    plain.write(content)
    plain.seek(0)
    return plain


def _refuse_bare_deflated(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(2) != _BARE_STARTS[0]:
            return
        file.seek(0)
        # File meta without a preamble in front of it is rare enough to be looked through whole.
        if DeflatedExplicitVRLittleEndian.encode() in file.read():
            raise ScanError(f"{path.name}: deflated and without a preamble; not read")
