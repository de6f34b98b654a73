"""Zip archives of weights: looked at before anything in them is opened.

``torch.save`` writes plain records, one behind the other. A file that is built otherwise is damaged
or forged: packed records that swell, records that lie over each other, millions of them.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from medseg.errors import CheckpointError

_MOST_RECORDS = 100_000
_MOST_DIRECTORY_BYTES = 32 << 20
"""Largest table of contents that is read; that of a real checkpoint has some hundred kilobytes."""

_PACKED_OR_LOCKED = "holds packed or encrypted records, which torch does not write; it is forged"
_FOLDER = 0x10
_ENCRYPTED = 0x1
_END = b"PK\x05\x06"
_END_BYTES = 22
_LONGEST_COMMENT = 1 << 16
_UNKNOWN_SIZE = 0xFFFFFFFF


def check_archive(file: Path) -> None:
    """Make sure that a file is a zip archive as ``torch.save`` writes it, whole and undamaged.

    Raises:
        CheckpointError: If it is not, or cannot be read.
    """
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            _check_records(archive, file)
            damaged = archive.testzip()
    except (
        OSError,
        ValueError,
        NotImplementedError,
        EOFError,
        RuntimeError,
        OverflowError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise CheckpointError(
            "is no whole archive of weights as torch.save writes it; restore it from a copy",
            source=file,
            detail=str(error),
        ) from error
    if damaged is not None:
        raise CheckpointError(
            "a checksum is wrong, so the file is damaged; restore it from a copy",
            source=file,
            detail=damaged,
        )


def read_record(file: Path, name: str, most_bytes: int) -> bytes:
    """Return one record of a checked archive, such as ``data.pkl``, in whichever folder it lies.

    Raises:
        CheckpointError: If there is none, there are several, or it is larger than ``most_bytes``.
    """
    with zipfile.ZipFile(file) as archive:
        found = [
            record
            for record in archive.infolist()
            if record.filename.rpartition("/")[2].lower() == name
        ]
        if len(found) != 1:
            raise CheckpointError(
                f"an archive of weights has one {name}, this has {len(found)}",
                source=file,
            )
        if found[0].file_size > most_bytes:
            raise CheckpointError(
                f"its {name} is larger than {most_bytes >> 20} MB; real ones are far smaller",
                source=file,
            )
        return archive.read(found[0])


def _check_directory(file: Path) -> None:
    """Refuse a table of contents too large to be read, before it is read."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, size - _END_BYTES - _LONGEST_COMMENT))
        tail = stream.read()
    start = tail.rfind(_END)
    if start < 0 or len(tail) - start < _END_BYTES:
        raise ValueError("there is no end of an archive")
    (directory_bytes,) = struct.unpack_from("<L", tail, start + 12)
    if directory_bytes == _UNKNOWN_SIZE or directory_bytes > min(
        size, _MOST_DIRECTORY_BYTES
    ):
        raise ValueError("the table of contents is too large")


def _check_records(archive: zipfile.ZipFile, file: Path) -> None:
    records = sorted(archive.infolist(), key=lambda item: item.header_offset)
    if not 0 < len(records) <= _MOST_RECORDS:
        raise ValueError(f"it has {len(records)} records")
    # Torch looks records up whatever the case of their names.
    if len({record.filename.lower() for record in records}) < len(records):
        raise ValueError("two records have one name")
    end = 0
    for record in records:
        is_plain = record.compress_type == zipfile.ZIP_STORED
        is_plain &= record.compress_size == record.file_size
        is_plain &= not record.flag_bits & _ENCRYPTED
        # Torch reads uninitialised memory where a record is marked as a folder.
        is_plain &= not record.external_attr & _FOLDER
        if not is_plain:
            raise CheckpointError(_PACKED_OR_LOCKED, source=file)
        if record.header_offset < end:
            raise ValueError("records lie over each other")
        end = record.header_offset + record.file_size
    if end > file.stat().st_size:
        raise ValueError("records reach beyond its end")
