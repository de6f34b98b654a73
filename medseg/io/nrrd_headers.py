"""Headers of NRRD files (``.nrrd``, ``.nhdr``) → where voxels lie, on disk and in the patient.

Source: the NRRD format definition (teem.sourceforge.net/nrrd/format.html).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from medseg.errors import GeometryError, ScanError
from medseg.io.itk_headers import (
    NO_ORIGIN,
    UNSAID,
    Fields,
    Layout,
    find_beside,
    make_dtype,
    read_line,
)
from medseg.volume import Affine

DETACHED_SUFFIX = ".nhdr"
"""Of a header whose voxels lie in another file."""

_NO_LENGTHS = {"", "???", "none", "s", "ms"}
_FILE_FIELDS = ("data file", "datafile")
_NRRD_TYPES = {
    "signed char": "i1",
    "int8": "i1",
    "int8_t": "i1",
    "uchar": "u1",
    "unsigned char": "u1",
    "uint8": "u1",
    "uint8_t": "u1",
    "short": "i2",
    "short int": "i2",
    "signed short": "i2",
    "signed short int": "i2",
    "int16": "i2",
    "int16_t": "i2",
    "ushort": "u2",
    "unsigned short": "u2",
    "unsigned short int": "u2",
    "uint16": "u2",
    "uint16_t": "u2",
    "int": "i4",
    "signed int": "i4",
    "int32": "i4",
    "int32_t": "i4",
    "uint": "u4",
    "unsigned int": "u4",
    "uint32": "u4",
    "uint32_t": "u4",
    "longlong": "i8",
    "long long": "i8",
    "long long int": "i8",
    "int64": "i8",
    "int64_t": "i8",
    "ulonglong": "u8",
    "unsigned long long": "u8",
    "unsigned long long int": "u8",
    "uint64": "u8",
    "uint64_t": "u8",
    "float": "f4",
    "double": "f8",
}
_LPS_SIGNS = (-1.0, -1.0, 1.0)
_SPACES = {
    **dict.fromkeys(("left-posterior-superior", "lps"), _LPS_SIGNS),
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
}
"""NRRD's spaces, and the signs that turn their axes into right, anterior, superior."""


def read_nrrd(path: Path, file: BinaryIO) -> Layout:
    """Read a header.

    Args:
        path: The file, for errors; its ending tells whether the voxels lie in another.
        file: The same, open at its start.

    Raises:
        ScanError: If it is no NRRD header, is broken, or leads to voxels elsewhere.
        GeometryError: If its axes or lengths are not those of a grid.
    """
    if not re.match(r"NRRD000[1-5]\s*$", read_line(file, path)):
        raise ScanError(
            "not a NRRD file: it does not begin with NRRD", source=path
        )
    fields = _read_fields(path, file)
    shape = fields.integers("sizes")
    dimension = fields.integers("dimension")[0]
    if len(shape) != dimension or len(shape) not in (3, 4):
        raise ScanError(
            f"{len(shape)} axes; three are needed, or four with the channels",
            source=path,
        )
    affine, channel_axis, warnings = _read_geometry(fields, len(shape))
    encoding = fields.text("encoding")
    if encoding not in ("raw", "gzip", "gz"):
        raise ScanError(
            "its voxels are encoded in a way that is not read; save it as raw or gzip",
            source=path,
            detail=encoding[:20],
        )
    dtype = _read_dtype(fields)
    size = math.prod(shape) * dtype.itemsize
    voxels, offset = _find_voxels(fields, file.tell(), size)
    return Layout(
        file=voxels,
        offset=offset,
        packed=encoding != "raw",
        dtype=dtype,
        shape=shape,
        channel_axis=channel_axis,
        affine=affine,
        warnings=warnings,
    )


def _read_fields(path: Path, file: BinaryIO) -> Fields:
    """Read the lines up to the empty one that ends the header."""
    fields = Fields(path)
    while line := read_line(file, path).strip():
        name, separator, value = line.partition(":")
        is_comment = line.startswith("#")
        # ``key:=value`` may name the patient.
        is_key_value_pair = value.startswith("=")
        if separator and not is_comment and not is_key_value_pair:
            key = name.strip().lower()
            text = value.strip()
            fields.texts[key] = text if key in _FILE_FIELDS else text.lower()
    return fields


def _find_voxels(
    fields: Fields, end_of_header: int, size: int
) -> tuple[Path, int]:
    """Return the file that holds the voxels and where in it they begin."""
    path = fields.path
    stated = fields.first_of(*_FILE_FIELDS, default="")
    is_detached = path.name.lower().endswith(DETACHED_SUFFIX)
    if bool(stated) != is_detached:
        raise ScanError(
            "names no file that holds its voxels; save it as .nrrd"
            if is_detached
            else "its voxels lie in another file; save both as one .nrrd, or call it .nhdr",
            source=path,
        )
    lines = fields.first_of("line skip", "lineskip", default="0")
    skip = fields.first_of("byte skip", "byteskip", default="0")
    if lines != "0" or skip not in (("0", "-1") if is_detached else ("0",)):
        raise ScanError(
            "the header skips bytes before its voxels; save it again without",
            source=path,
        )
    if not is_detached:
        return path, end_of_header
    is_list = stated.upper().startswith("LIST") or "%" in stated
    if is_list:
        raise ScanError(
            "its voxels are spread over several files; save it as one .nrrd",
            source=path,
        )
    beside = find_beside(path, stated)
    # -1: the voxels are the end of their file, whatever stands before them.
    offset = beside.stat().st_size - size if skip == "-1" else 0
    return beside, max(offset, 0)


def _read_dtype(fields: Fields) -> np.dtype[Any]:
    endian = fields.text("endian")
    code = _NRRD_TYPES.get(fields.text("type"))
    dtype = make_dtype(code, endian == "big", fields.path)
    if dtype.itemsize > 1 and endian not in ("little", "big"):
        raise ScanError(
            "the header does not state the byte order (endian) of its voxels",
            source=fields.path,
        )
    return dtype


def _read_geometry(
    fields: Fields, axes: int
) -> tuple[Affine, int | None, tuple[str, ...]]:
    """Return the RAS affine, which axis is the channels, and doubts."""
    has_directions = "space directions" in fields
    if has_directions:
        vectors = _read_space_directions(fields)
    else:
        vectors = _read_spacings(fields)
    spatial = [vector for vector in vectors if vector is not None]
    if len(vectors) != axes or len(spatial) != 3:
        raise GeometryError(
            f"three axes with a direction in space are needed, the header has {len(spatial)} of "
            f"{axes}",
            source=fields.path,
        )
    affine = np.eye(4)
    affine[:3, :3] = np.array(spatial).T
    affine[:3, 3] = _read_origin(fields)
    channel_axis = vectors.index(None) if None in vectors else None
    space = fields.text("space")
    is_said = has_directions and space in _SPACES
    warnings = _find_doubts(fields, is_said)
    signs = _SPACES.get(space, _LPS_SIGNS)
    ras = np.diag([*signs, 1.0]) @ affine
    in_mm, unit_doubts = fields.to_mm(ras, _read_unit(fields))
    return in_mm, channel_axis, (*warnings, *unit_doubts)


def _read_origin(fields: Fields) -> Sequence[float]:
    text = fields.text("space origin", "(0,0,0)")
    # Three bare numbers are of another field, such as the sizes.
    if not re.fullmatch(r"\([^()]*\)", text):
        raise GeometryError(
            "the space origin is no vector in parentheses, so where it lies in the patient is not "
            "certain; write it as (x,y,z)",
            source=fields.path,
        )
    return fields.numbers(text[1:-1], 3)


def _find_doubts(fields: Fields, is_said: bool) -> tuple[str, ...]:
    """Return what is a guess of where the voxels lie."""
    if not is_said:
        return (UNSAID,)
    if "space origin" not in fields:
        return (NO_ORIGIN,)
    return ()


def _read_unit(fields: Fields) -> str:
    """Return what the header calls the unit of its lengths, ``""`` where it says nothing.

    Raises:
        GeometryError: If the axes have several.
    """
    text = fields.first_of("space units", "units", default="")
    units = set(re.findall(r'"([^"]*)"', text)) - _NO_LENGTHS
    if len(units) > 1:
        raise GeometryError(
            "the header gives lengths in several units; state all in mm",
            source=fields.path,
        )
    return units.pop() if units else ""


def _read_space_directions(fields: Fields) -> list[Sequence[float] | None]:
    """Return the step along each axis in mm, ``None`` for the channels."""
    vectors: list[Sequence[float] | None] = []
    for part in re.findall(r"none|\([^()]*\)", fields.text("space directions")):
        vectors.append(
            None if part == "none" else fields.numbers(part[1:-1], 3)
        )
    return vectors


def _read_spacings(fields: Fields) -> list[Sequence[float] | None]:
    """Return the steps of axes that run along x, y and z; an axis with NaN is the channels."""
    vectors: list[Sequence[float] | None] = []
    directions = iter(np.eye(3).tolist())
    for part in fields.text("spacings").split():
        step = abs(fields.number(part))
        direction = None if math.isnan(step) else next(directions, None)
        if direction is None:
            vectors.append(None)
        else:
            vectors.append([step * share for share in direction])
    return vectors
