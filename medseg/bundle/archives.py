"""Zip archives of weights: looked at before anything in them is opened.

``torch.save`` writes plain records, one behind the other. A file that is built otherwise is damaged
or forged: packed records that swell, records that lie over each other, millions of them.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from medseg.errors import CheckpointError

_MOST_RECORDS = 100_000
_MOST_DIRECTORY_BYTES = 32 << 20
"""Largest table of contents that is read; that of a real checkpoint has some hundred kilobytes."""

_PACKED_OR_LOCKED = "holds packed or encrypted records, which torch does not write; it is forged"
_FOLDER = 0x10
_ENCRYPTED = 0x1
_END = struct.Struct("<4s4H2LH")
_END_SIGN = b"PK\x05\x06"
_LOCATOR = struct.Struct("<4sLQL")
_LOCATOR_SIGN = b"PK\x06\x07"
_LARGE_END = struct.Struct("<4sQ2H2L4Q")
_LARGE_END_SIGN = b"PK\x06\x06"
_IN_LARGE_END = 0xFFFFFFFF
"""What stands in the short end for a number that the one of large archives has."""


def check_archive(file: Path) -> None:
    """Make sure that a file is a zip archive as ``torch.save`` writes it, whole and undamaged.

    Raises:
        CheckpointError: If it is not, or cannot be read.
    """
    try:
        check_directory(file)
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


def check_directory(file: Path) -> None:
    """Refuse a table of contents that is too large, or that two programs look for elsewhere.

    Python takes the table that lies right before the archive's end, torch the one at the place that
    the end states: where these differ, what is checked is not what is opened.

    Raises:
        ValueError: If it is so.
        OSError: If the file cannot be read.
        struct.error: If it is too short.
    """
    size = file.stat().st_size
    place = size - _END.size
    with file.open("rb") as stream:
        end = _read_at(stream, _END, place)
        start, length = end[6], end[5]
        if end[0] != _END_SIGN or end[7]:
            raise ValueError("there is no end of an archive")
        locator = _read_at(stream, _LOCATOR, place - _LOCATOR.size)
        if locator[0] == _LOCATOR_SIGN:
            place -= _LOCATOR.size + _LARGE_END.size
            large = _read_at(stream, _LARGE_END, place)
            is_large = large[0] == _LARGE_END_SIGN
            is_same = start in (large[9], _IN_LARGE_END)
            is_same &= length in (large[8], _IN_LARGE_END)
            if locator[2] != place or not (is_large and is_same):
                raise ValueError("its ends contradict each other")
            start, length = large[9], large[8]
    if length > _MOST_DIRECTORY_BYTES:
        raise ValueError("the table of contents is too large")
    if start + length != place:
        raise ValueError("the table of contents does not lie before the end")


def _read_at(
    stream: BinaryIO, layout: struct.Struct, place: int
) -> tuple[Any, ...]:
    """Read numbers of a file; zeros where it does not reach so far."""
    if place < 0:
        return layout.unpack(bytes(layout.size))
    stream.seek(place)
    return layout.unpack(stream.read(layout.size))


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
