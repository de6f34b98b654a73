"""Headers of MetaImage files (``.mha``, ``.mhd``) → where voxels lie, on disk and in the patient.

Source: the MetaIO documentation (itk.org/Wiki/MetaIO/Documentation).
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from medseg.errors import GeometryError, ScanError
from medseg.io.itk_headers import (
    LPS_TO_RAS,
    NO_ORIGIN,
    UNSAID,
    Fields,
    Layout,
    describe_lengths,
    find_beside,
    make_dtype,
    read_line,
)
from medseg.volume import Affine

DETACHED_SUFFIX = ".mhd"
"""Of a header whose voxels may lie in another file."""

_MATRIX_FIELDS = ("transformmatrix", "rotation", "orientation")
_ORIGIN_FIELDS = ("offset", "origin", "position")
_IDENTITY = "1 0 0 0 1 0 0 0 1"
_FROM_AXIS = {
    "r": (1, 0, 0),
    "l": (-1, 0, 0),
    "a": (0, 1, 0),
    "p": (0, -1, 0),
    "i": (0, 0, 1),
    "s": (0, 0, -1),
}
"""Where an axis begins by ``AnatomicalOrientation`` → its direction in LPS."""
_META_TYPES = {
    "met_char": "i1",
    "met_uchar": "u1",
    "met_short": "i2",
    "met_ushort": "u2",
    "met_int": "i4",
    "met_uint": "u4",
    "met_long_long": "i8",
    "met_ulong_long": "u8",
    "met_float": "f4",
    "met_double": "f8",
}


def read_meta(path: Path, file: BinaryIO) -> Layout:
    """Read a header.

    Args:
        path: The file, for errors; its ending tells whether the voxels may lie in another.
        file: The same, open at its start.

    Raises:
        ScanError: If it is no MetaImage header, is broken, or leads to voxels elsewhere.
        GeometryError: If its axes or lengths are not those of a grid, or contradict each other.
    """
    fields = _read_fields(path, file)
    has_binary_voxels = fields.flag("binarydata", default=True)
    if fields.text("headersize", "0") != "0" or not has_binary_voxels:
        raise ScanError(
            "its voxels are text, or the header skips bytes; save it again as plain .mha",
            source=path,
        )
    dimensions = fields.integers("ndims")
    if dimensions != (3,):
        raise ScanError(
            f"{dimensions[0]} axes; volumes of three are read", source=path
        )
    shape = fields.integers("dimsize")
    if len(shape) != 3:
        raise ScanError(
            f"DimSize has {len(shape)} numbers; three are needed", source=path
        )
    channels = fields.integers("elementnumberofchannels", "1")[0]
    is_big = fields.flag("binarydatabyteordermsb") or fields.flag(
        "elementbyteordermsb"
    )
    code = _META_TYPES.get(fields.text("elementtype").lower())
    voxels, offset = _find_voxels(
        path, fields.text("elementdatafile"), file.tell()
    )
    has_channels = channels != 1
    affine, warnings = _read_geometry(fields)
    return Layout(
        file=voxels,
        offset=offset,
        packed=fields.flag("compresseddata"),
        dtype=make_dtype(code, is_big, path),
        shape=(channels, *shape) if has_channels else shape,
        channel_axis=0 if has_channels else None,
        affine=affine,
        warnings=warnings,
    )


def _read_fields(path: Path, file: BinaryIO) -> Fields:
    """Read the lines up to that of ElementDataFile, which is the last."""
    fields = Fields(path)
    while "elementdatafile" not in fields:
        line = read_line(file, path)
        if not line:
            raise ScanError(
                "not a MetaImage: no ElementDataFile in its header", source=path
            )
        name, _, value = line.partition("=")
        fields.texts[name.strip().lower()] = value.strip()
    return fields


def _find_voxels(
    path: Path, stated: str, end_of_header: int
) -> tuple[Path, int]:
    """Return the file that holds the voxels and where in it they begin."""
    if stated.upper() == "LOCAL":
        return path, end_of_header
    if path.suffix.lower() != DETACHED_SUFFIX:
        raise ScanError(
            "the header names another file for its voxels, which must lie in the same folder; "
            "call it .mhd, or save both as one .mha",
            source=path,
        )
    return find_beside(path, stated), 0


def _read_geometry(fields: Fields) -> tuple[Affine, tuple[str, ...]]:
    """Return the RAS affine in mm, and doubts."""
    if "elementspacing" not in fields:
        raise GeometryError(
            "the header does not state the size of its voxels (ElementSpacing)",
            source=fields.path,
        )
    spacing = np.array(fields.numbers(fields.text("elementspacing"), 3))
    if not (spacing > 0).all():
        raise GeometryError(
            f"an ElementSpacing of {spacing.tolist()} mm; each must be above 0",
            source=fields.path,
        )
    matrix = fields.first_of(*_MATRIX_FIELDS, default=_IDENTITY)
    origin = fields.first_of(*_ORIGIN_FIELDS, default="0 0 0")
    # Each row of the matrix is the direction of one axis.
    directions = np.array(fields.numbers(matrix, 9)).reshape(3, 3).T
    doubts = (
        *_compare_with_orientation(directions, fields),
        *describe_lengths(directions),
    )
    has_origin = any(name in fields for name in _ORIGIN_FIELDS)
    if not has_origin and UNSAID not in doubts:
        doubts = (*doubts, NO_ORIGIN)
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = fields.numbers(origin, 3)
    unit = fields.text("distanceunits").lower()
    in_mm, unit_doubts = fields.to_mm(affine, unit)
    return LPS_TO_RAS @ in_mm, (*doubts, *unit_doubts)


def _compare_with_orientation(
    directions: Affine, fields: Fields
) -> tuple[str, ...]:
    """Compare the axes with ``AnatomicalOrientation``, which names where each begins.

    Args:
        directions: 3×3 in LPS, one column per axis.
        fields: The header's.

    Returns:
        What is doubtful.

    Raises:
        GeometryError: If the orientation is another than that of axes which are not stated, or
            stated as those that programs write when they have lost them.
    """
    is_stated = any(name in fields for name in _MATRIX_FIELDS)
    orientation = fields.text("anatomicalorientation").lower()
    known = [_FROM_AXIS[name] for name in orientation if name in _FROM_AXIS]
    named = np.array(known).T
    is_said = len(orientation) == named.size / 3 == 3
    if not is_said or not np.linalg.det(named):
        return () if is_stated else (UNSAID,)
    agreement = np.sum(named * directions, axis=0)
    if (agreement > 0).all():
        return ()
    doubt = (
        f"AnatomicalOrientation is {orientation.upper()}, and the axes run otherwise by the "
        "TransformMatrix"
    )
    is_identity = np.array_equal(directions, np.eye(3))
    # Some name where each axis ends.
    is_opposite = (agreement < 0).all()
    if is_identity and not is_opposite:
        raise GeometryError(
            f"{doubt}, which is missing or the identity and may have been lost; write the file "
            "again from the original, or correct one of the two in its header",
            source=fields.path,
        )
    return (f"{doubt}, which is used",)
