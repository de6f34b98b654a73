"""Opening DICOM files from unknown sources: which files are DICOM, and how much of them is read.

A deflated file of 2 MB can inflate to gigabytes, so it is inflated here, up to a limit, before
pydicom sees it. Elements that were not asked for are never parsed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from medseg._support.files import refuse_special
from medseg.errors import MedsegError, ScanError

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

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_PREAMBLE_BYTES = 128
_PREFIX = b"DICM"
PREFIX_END = _PREAMBLE_BYTES + len(_PREFIX)
# Without a preamble a file begins with group 2 (its file meta) or group 8, little endian.
_FILE_META_GROUP = b"\x02\x00"
_BARE_STARTS = (_FILE_META_GROUP, b"\x08\x00")
_LONGEST_QUOTE = 200
_LARGEST_STUB = 1024


def has_dicom_suffix(path: Path) -> bool:
    """Tell whether a file's name says DICOM."""
    return path.suffix.lower() in DICOM_SUFFIXES


def has_dicom_prefix(path: Path) -> bool:
    """Tell whether a regular file has DICM behind its preamble."""
    start = _read_start(path)
    return start[_PREAMBLE_BYTES:] == _PREFIX


def may_be_dicom(path: Path) -> bool:
    """Tell quickly whether a file could be DICOM, with or without a preamble."""
    return starts_like_dicom(_read_start(path))


def starts_like_dicom(start: bytes) -> bool:
    """Tell whether the first ``PREFIX_END`` bytes could be those of a DICOM file."""
    if start[_PREAMBLE_BYTES:] == _PREFIX:
        return True
    return start[:2] in _BARE_STARTS


def is_stub(path: Path) -> bool:
    """Tell whether a small file has DICM behind its preamble and no DICOM element behind that.

    A slice that was cut off has the first elements of its file meta.
    """
    if path.stat().st_size > _LARGEST_STUB or not has_dicom_prefix(path):
        return False
    content = path.read_bytes()
    start = _PREAMBLE_BYTES + len(_PREFIX)
    return not content.startswith(_FILE_META_GROUP, start)


def read_elements(path: Path, keywords: Sequence[str]) -> FileDataset:
    """Read the named elements that stand before the pixels.

    Args:
        path: The file.
        keywords: Keywords of DICOM's data dictionary.

    Raises:
        One of ``PYDICOM_ERRORS``; ``ScanError`` for a deflated file without a preamble, and for
            a device, a pipe or a socket.
    """
    refuse_special(path)
    if not _is_deflated(path):
        return _read_before_pixels(path, keywords)
    inflated = inflate(path, MAX_HEADER_BYTES, cut=True)
    ds = _read_before_pixels(inflated, keywords)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return ds


def _read_before_pixels(
    file: Path | io.BytesIO, keywords: Sequence[str]
) -> FileDataset:
    tags = list(keywords)
    return pydicom.dcmread(
        file, stop_before_pixels=True, force=True, specific_tags=tags
    )


def inflate(path: Path, max_bytes: int, *, cut: bool = False) -> io.BytesIO:
    """Return a deflated file as a plain one in memory.

    Args:
        path: The file; its transfer syntax is known to be the deflated one.
        max_bytes: How far it may inflate.
        cut: Whether what is more is left out, rather than refused.

    Raises:
        One of ``PYDICOM_ERRORS``; ``ScanError`` if it inflates to more.
    """
    meta, start = _read_file_meta(path)
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    with path.open("rb") as file:
        file.seek(start)
        deflated = file.read()
    content = inflater.decompress(deflated, max_bytes)
    if inflater.unconsumed_tail and not cut:
        raise ScanError(
            f"the deflated file inflates to more than {max_bytes:,} bytes, which is all that its "
            "header accounts for",
            source=path,
        )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    preamble = b"\0" * _PREAMBLE_BYTES
    plain = io.BytesIO()
    plain.write(preamble)
    plain.write(_PREFIX)
    write_file_meta_info(plain, FileMetaDataset(meta), enforce_standard=False)
    plain.write(content)
    plain.seek(0)
    return plain


@contextlib.contextmanager
def attach_source(path: Path) -> Iterator[None]:
    """Name the file or folder in errors raised inside, where they name none yet."""
    try:
        yield
    except MedsegError as error:
        if error.source is None:
            error.source = str(path)
        raise


def quote_error(error: Exception) -> str:
    """Return what a library said, for an error's ``detail``: it may quote the header."""
    kind = type(error).__name__
    quote = f"{kind}: {error}"
    return quote[:_LONGEST_QUOTE]


def _read_start(path: Path) -> bytes:
    # Pipes and devices are never opened: reading one could wait for ever.
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(PREFIX_END)


def _is_deflated(path: Path) -> bool:
    if has_dicom_prefix(path):
        meta, _ = _read_file_meta(path)
        syntax = meta.get("TransferSyntaxUID")
        return bool(syntax == DeflatedExplicitVRLittleEndian)
    with path.open("rb") as file:
        if file.read(2) != _FILE_META_GROUP:
            return False
        file.seek(0)
        # File meta without a preamble is rare enough to be searched whole.
        content = file.read()
    if DeflatedExplicitVRLittleEndian.encode() in content:
        raise ScanError(
            "the file is deflated and has no preamble, which is not supported",
            source=path,
        )
    return False


def _read_file_meta(path: Path) -> tuple[Dataset, int]:
    """Return the file meta elements and where they end; the length they state may lie."""
    with path.open("rb") as file:
        file.seek(PREFIX_END)
        meta = read_dataset(file, False, True, stop_when=_is_behind_file_meta)
        return meta, file.tell()


def _is_behind_file_meta(
    tag: pydicom.tag.BaseTag, _vr: str | None, _length: int
) -> bool:
    return bool(tag.group != 2)
