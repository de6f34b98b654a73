"""Bytes, open files and DICOM data sets → volumes, by the very readers that read them on disk.

They are written to a private temporary folder under numbers, read, and removed before anything is
returned, whatever happens. What kind bytes are is told by the first of them, never by a name.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.dataset import Dataset

from medseg.errors import MedsegError, OutputError, ScanError
from medseg.io.dicom.files import PREFIX_END, starts_like_dicom
from medseg.io.dicom.in_memory import keep_headers, write_dataset
from medseg.volume import Volume

MAX_BYTES = 16 << 30
"""Most bytes of one image that are taken: as many as its largest volume has in four bytes each."""

TEMPORARY = "medseg-"
"""How the names of temporary folders begin; what they hold is called by numbers."""

_HEAD = 4096
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_PACKED = (
    b"PK\x03\x04",
    b"BZh",
    b"\xfd7zXZ",
    b"7z\xbc\xaf",
    b"\x28\xb5\x2f\xfd",
)
_STARTS = {
    b"NRRD000": ".nrrd",
    b"\x89PNG\r\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"II+\0": ".tif",
    b"MM\0+": ".tif",
    b"BM": ".bmp",
}
_META_IMAGE = re.compile(rb"\s*(ObjectType|Comment|NDims|ObjectSubType)\s*=")
_ALLOWED = "NIfTI, NRRD, MHA, MGH, PNG, TIFF, JPEG, BMP and DICOM are read"


def is_content(image: object) -> bool:
    """Tell whether an image is bytes, an open file or a DICOM data set."""
    if isinstance(image, bytes | bytearray | memoryview | Dataset):
        return True
    return callable(getattr(image, "read", None))


@contextlib.contextmanager
def stored_contents(contents: Sequence[Any]) -> Iterator[list[Path]]:
    """Give files that hold what was given, each of the name its kind has, until the block ends.

    Errors raised inside name what was given by its number instead of the file.

    Args:
        contents: Bytes, open files, or DICOM data sets.

    Raises:
        ScanError: If one is of no known kind, empty, or too large.
    """
    with tempfile.TemporaryDirectory(prefix=TEMPORARY) as name:
        folder = Path(name)
        with _naming_by_number(folder, len(contents)):
            files = []
            for number, content in enumerate(contents, start=1):
                files.append(_store(content, folder / f"{number:06d}"))
            yield files


def detach(volume: Volume) -> Volume:
    """Return a volume that was read from stored contents as one that needs their files no more."""
    return keep_headers(replace(volume, source=""))


@contextlib.contextmanager
def _naming_by_number(folder: Path, count: int) -> Iterator[None]:
    try:
        yield
    except MedsegError as error:
        source = Path(error.source or folder)
        # Files of other images, such as another channel, keep their names.
        if source == folder:
            error.source = "the scan in memory"
        elif source.parent == folder:
            number = int(source.name.partition(".")[0])
            error.source = f"item {number} of {count}"
        raise


def _store(content: Any, stem: Path) -> Path:
    if isinstance(content, Dataset):
        file = stem.with_suffix(".dcm")
        write_dataset(content, file)
        return file
    stream = _open(content)
    head = _read_head(stream)
    try:
        suffix = _find_suffix(head)
    except ScanError as error:
        error.source = str(stem)
        raise
    file = stem.with_suffix(suffix)
    _copy(head, stream, file)
    return file


def _open(content: Any) -> BinaryIO:
    if isinstance(content, bytes | bytearray | memoryview):
        return BytesIO(content)
    stream: BinaryIO = content
    return stream


def _read_head(stream: BinaryIO) -> bytes:
    """Read the first bytes; sockets and unbuffered files give fewer at a time than asked for."""
    head = _read(stream, _HEAD)
    chunk = head
    while chunk and len(head) < _HEAD:
        chunk = _read(stream, _HEAD - len(head))
        head += chunk
    return head


def _read(stream: BinaryIO, size: int) -> bytes:
    try:
        content: object = stream.read(size)
    except (OSError, ValueError) as error:
        raise ScanError(
            "the open file cannot be read; open it for reading, in binary mode",
            detail=str(error),
        ) from error
    if isinstance(content, bytes):
        return content
    if hasattr(content, "close"):
        content.close()  # a coroutine, which would complain of never being awaited
    raise ScanError(
        f"an open file gives bytes when it is read, this one gave {type(content).__name__}; open "
        "it in binary mode, and give the file of an asynchronous upload (upload.file)"
    )


def _copy(head: bytes, stream: BinaryIO, file: Path) -> None:
    """Write what was read and what follows to a file, but no more than the limit."""
    size = 0
    chunk = head
    try:
        with file.open("xb") as target:
            while chunk:
                size += len(chunk)
                _refuse_too_many(size, file)
                target.write(chunk)
                chunk = _read(stream, _CHUNK)
    except OSError as error:
        raise OutputError(
            "the folder for temporary files (TMPDIR) takes no more; free some space, or name "
            "another one",
            detail=error.strerror,
        ) from error


def _refuse_too_many(size: int, file: Path) -> None:
    if size > MAX_BYTES:
        raise ScanError(
            f"the image has more than {MAX_BYTES:,} bytes, which is all that are taken",
            source=file,
        )


def _find_suffix(head: bytes) -> str:
    """Return the ending that files with this beginning have.

    Raises:
        ScanError: If no format begins so.
    """
    if not head:
        raise ScanError(
            "there are no bytes; an open file that was read before has to be rewound (seek(0))"
        )
    # Its preamble may hold anything, such as the beginning of a TIFF.
    if starts_like_dicom(head[:PREFIX_END]):
        return ".dcm"
    if head.startswith(_GZIP):
        return f"{_find_voxel_suffix(_inflate(head))}.gz".replace(
            ".mgh.gz", ".mgz"
        )
    for start, suffix in _STARTS.items():
        if head.startswith(start):
            return suffix
    if _META_IMAGE.match(head):
        return ".mha"
    if head.startswith(_PACKED):
        raise ScanError(f"the bytes are packed; unpack them first: {_ALLOWED}")
    return _find_voxel_suffix(head)


def _inflate(head: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        return inflater.decompress(head, _HEAD)
    except zlib.error as error:
        raise ScanError(
            "the bytes are gzipped and damaged", detail=str(error)
        ) from error


def _find_voxel_suffix(head: bytes) -> str:
    """Return the ending of a format that may be gzipped: NIfTI's or MGH's."""
    is_nifti = head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"
    if is_nifti:
        return ".nii"
    if head[:4] == b"\0\0\0\1":
        return ".mgh"
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        raise ScanError(
            "the bytes are the header of a NIfTI pair, whose voxels lie in another file; give the "
            "path of the pair, or save it as .nii"
        )
    raise ScanError(f"the bytes are no known kind of image; {_ALLOWED}")
