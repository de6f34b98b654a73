"""Opening DICOM files that strangers wrote: what is one, and how much of it is taken in.

A deflated file of 2 MB can inflate to gigabytes, so it is inflated here, up to a limit, before
pydicom sees it. Elements that were not asked for are never parsed.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from medseg.errors import ScanError

# pydicom's warnings quote header values, and a damaged file may have a name where a UID belongs.
warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\b")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

PYDICOM_ERRORS = (
    InvalidDicomError,
    BytesLengthException,
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

MAX_HEADER_BYTES = 64 << 20
"""Most that a deflated header is inflated to; an enhanced CT of 1000 frames needs about 2 MB."""

_PREAMBLE = 128
# Without a preamble a file begins with group 2 (its file meta) or group 8, little endian.
_BARE_STARTS = (b"\x02\x00", b"\x08\x00")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


def has_dicom_suffix(path: Path) -> bool:
    """Tell whether a file's name says DICOM."""
    return path.suffix.lower() in DICOM_SUFFIXES


def has_dicom_prefix(path: Path) -> bool:
    """Tell whether a regular file has DICM behind its preamble."""
    return _head(path)[_PREAMBLE:] == b"DICM"


def may_be_dicom(path: Path) -> bool:
    """Tell quickly whether a file could be DICOM, with or without a preamble."""
    head = _head(path)
    return head[_PREAMBLE:] == b"DICM" or head[:2] in _BARE_STARTS


def read_elements(path: Path, tags: Sequence[str]) -> FileDataset:
    """Read the named elements that stand before the pixels.

    Raises:
        One of ``MALFORMED``; ``ScanError`` for a deflated file without a preamble.
    """
    deflated = _is_deflated(path)
    source = inflate(path, MAX_HEADER_BYTES, cut=True) if deflated else path
    ds = pydicom.dcmread(source, stop_before_pixels=True, force=True, specific_tags=list(tags))
    if deflated:
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return ds


def inflate(path: Path, most_bytes: int, *, cut: bool = False) -> io.BytesIO:
    """Return a deflated file as a plain one in memory.

    Args:
        path: The file; its transfer syntax is known to be the deflated one.
        most_bytes: How far it may inflate.
        cut: Whether what is more is left out, rather than refused.

    Raises:
        One of ``MALFORMED``; ``ScanError`` if it inflates to more.
    """
    meta, start = _file_meta(path)
    inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    with path.open("rb") as file:
        file.seek(start)
        content = inflate.decompress(file.read(), most_bytes)
    if inflate.unconsumed_tail and not cut:
        raise ScanError(
            f"{path.name}: deflated, and inflates to more than the {most_bytes:,} bytes its "
            "header accounts for"
        )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plain = io.BytesIO()
    plain.write(b"\0" * _PREAMBLE + b"DICM")
    write_file_meta_info(plain, FileMetaDataset(meta), enforce_standard=False)
    plain.write(content)
    plain.seek(0)
    return plain


def _head(path: Path) -> bytes:
    # Pipes and devices are never opened: reading one could wait for ever.
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(_PREAMBLE + 4)


def _is_deflated(path: Path) -> bool:
    if has_dicom_prefix(path):
        meta, _ = _file_meta(path)
        return bool(meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)
    with path.open("rb") as file:
        if file.read(2) == _BARE_STARTS[0]:
            file.seek(0)
            # File meta without a preamble is rare enough to be looked through whole.
            if DeflatedExplicitVRLittleEndian.encode() in file.read():
                raise ScanError("deflated and without a preamble, which is not read")
    return False


def _file_meta(path: Path) -> tuple[Dataset, int]:
    """Return the file meta elements and where they end; the length they state may lie."""
    with path.open("rb") as file:
        file.seek(_PREAMBLE + 4)
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
        return meta, file.tell()
