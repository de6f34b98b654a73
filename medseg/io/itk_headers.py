"""Text headers of NRRD and MetaImage files → where the voxels lie, on disk and in the patient.

Read here and not by ITK, because a forged header makes ITK crash the process, and because its
readers follow a header to any file it names. Fields that are not about the voxels are not looked
at: they may name the patient.

Sources: the NRRD format definition (teem.sourceforge.net/nrrd/format.html) and the MetaIO
documentation (itk.org/Wiki/MetaIO/Documentation).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from medseg.errors import GeometryError, ScanError
from medseg.io.voxels import LARGEST_MM, check_size
from medseg.volume import Affine

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LONGEST_HEADER = 1 << 16
_MOST_CHANNELS = 1000

_NRRD_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
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
_SPACES = {
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1.0, -1.0, 1.0)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
}
"""NRRD's spaces, and the signs that turn their axes into right, anterior, superior."""
_UNSAID = "the file does not say how its axes lie in the patient; LPS is assumed"


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """How a file stores its voxels.

    Attributes:
        file: Where they lie: the file itself, or the one beside a ``.mhd``.
        offset: At which byte they begin.
        packed: Whether they are compressed (zlib or gzip).
        dtype: Number type, byte order included.
        shape: Sizes of the stored axes, the fastest first.
        channel_axis: Which of them is the channels, or ``None``.
        affine: Voxel → RAS mm.
        warnings: What is doubtful.
    """

    file: Path
    offset: int
    packed: bool
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    channel_axis: int | None
    affine: Affine
    warnings: tuple[str, ...] = ()


def read_layout(path: Path) -> Layout:
    """Read the header of a ``.nrrd``, ``.mha`` or ``.mhd`` file.

    Raises:
        ScanError: If it is not such a file, is broken, or leads to voxels elsewhere.
        GeometryError: If its axes or spacing are not numbers.
    """
    read = _nrrd if path.name.lower().endswith(".nrrd") else _meta
    with path.open("rb") as file:
        layout = read(path, file)
    if layout.channel_axis is not None and layout.shape[layout.channel_axis] > _MOST_CHANNELS:
        raise ScanError(f"{path.name}: more than {_MOST_CHANNELS} channels")
    check_size(layout.shape, path.name)
    return layout


def _nrrd(path: Path, file: BinaryIO) -> Layout:
    if not re.match(r"NRRD000[1-5]\s*$", _line(file, path.name)):
        raise ScanError(f"{path.name}: not a NRRD file; it does not begin with NRRD")
    fields: dict[str, str] = {}
    while line := _line(file, path.name).strip():
        name, found, value = line.partition(":")
        if found and not line.startswith("#") and not value.startswith("="):
            fields[name.strip().lower()] = value.strip().lower()
    _refuse_elsewhere(fields, path.name)
    shape = _integers(fields, "sizes", path.name)
    if len(shape) != _integers(fields, "dimension", path.name)[0] or len(shape) not in (3, 4):
        raise ScanError(f"{path.name}: {len(shape)} axes; three are needed, or four with channels")
    affine, channel_axis, warnings = _nrrd_place(fields, len(shape), path.name)
    encoding = fields.get("encoding", "")
    if encoding not in ("raw", "gzip", "gz"):
        raise ScanError(f"{path.name}: encoding '{encoding[:20]}'; raw and gzip are read")
    kind = next((code for code, names in _NRRD_TYPES.items() if fields.get("type") in names), None)
    dtype = _dtype(kind, fields.get("endian") == "big", path.name)
    if dtype.itemsize > 1 and fields.get("endian") not in ("little", "big"):
        raise ScanError(f"{path.name}: does not say the byte order (endian) of its voxels")
    packed = encoding != "raw"
    return Layout(path, file.tell(), packed, dtype, shape, channel_axis, affine, warnings)


def _refuse_elsewhere(fields: Mapping[str, str], name: str) -> None:
    if {"data file", "datafile"} & set(fields):
        raise ScanError(f"{name}: its voxels lie in another file; save both as one .nrrd")
    if {"line skip", "lineskip", "byte skip", "byteskip"} & set(fields):
        raise ScanError(f"{name}: skips bytes before its voxels; save it again without")


def _nrrd_place(
    fields: Mapping[str, str], axes: int, name: str
) -> tuple[Affine, int | None, tuple[str, ...]]:
    """Return the RAS affine, which axis is the channels, and doubts."""
    text = fields.get("space directions")
    vectors: list[Sequence[float] | None]
    if text is not None:
        parts = re.findall(r"none|\([^()]*\)", text)
        vectors = [None if part == "none" else _numbers(part[1:-1], 3, name) for part in parts]
    else:
        spacings = fields.get("spacings", "").split()
        steps = [abs(_number(part, name)) for part in spacings]
        placed = [n for n, step in enumerate(steps) if not math.isnan(step)]
        vectors = [None] * len(steps)
        for axis, n in enumerate(placed[:3]):
            vectors[n] = [steps[n] * (axis == here) for here in range(3)]
    spatial = [vector for vector in vectors if vector is not None]
    if len(vectors) != axes or len(spatial) != 3:
        raise GeometryError(
            f"{name}: three axes with a direction in space are needed, the header has "
            f"{len(spatial)} of {axes}"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.array(spatial).T
    affine[:3, 3] = _numbers(fields.get("space origin", "(0,0,0)").strip("()"), 3, name)
    signs = _SPACES.get(fields.get("space", ""))
    doubts = () if signs else (_UNSAID,)
    signs = signs or (-1.0, -1.0, 1.0)
    channel_axis = next((n for n, vector in enumerate(vectors) if vector is None), None)
    return np.diag([*signs, 1.0]) @ affine, channel_axis, doubts


def _meta(path: Path, file: BinaryIO) -> Layout:
    fields: dict[str, str] = {}
    while "elementdatafile" not in fields:
        line = _line(file, path.name)
        if not line:
            raise ScanError(f"{path.name}: not a MetaImage; no ElementDataFile in its header")
        name, _, value = line.partition("=")
        fields[name.strip().lower()] = value.strip()
    if fields.get("headersize", "0") != "0" or not _flag(fields, "binarydata", default=True):
        raise ScanError(f"{path.name}: text voxels or skipped bytes; save it again as plain .mha")
    if _integers(fields, "ndims", path.name) != (3,):
        raise ScanError(f"{path.name}: {fields['ndims'][:20]} axes; volumes of three are read")
    shape = _integers(fields, "dimsize", path.name)
    if len(shape) != 3:
        raise ScanError(f"{path.name}: DimSize has {len(shape)} numbers; three are needed")
    channels = _integers(fields, "elementnumberofchannels", path.name, default=1)[0]
    big = _flag(fields, "binarydatabyteordermsb") or _flag(fields, "elementbyteordermsb")
    dtype = _dtype(_META_TYPES.get(fields.get("elementtype", "").lower()), big, path.name)
    packed = _flag(fields, "compresseddata")
    voxels, offset = _meta_voxels(path, fields["elementdatafile"], file.tell())
    affine = _meta_affine(fields, path.name)
    if channels == 1:
        return Layout(voxels, offset, packed, dtype, shape, None, affine)
    return Layout(voxels, offset, packed, dtype, (channels, *shape), 0, affine)


def _meta_voxels(path: Path, where: str, end_of_header: int) -> tuple[Path, int]:
    if where.upper() == "LOCAL":
        return path, end_of_header
    beside = path.parent / where
    if path.suffix.lower() != ".mhd" or Path(where).name != where or not beside.is_file():
        raise ScanError(
            f"{path.name}: its voxels must lie in one file in the same folder; save it as .mha"
        )
    return beside, 0


def _meta_affine(fields: Mapping[str, str], name: str) -> Affine:
    def first(*names: str, default: str) -> str:
        return next((fields[one] for one in names if one in fields), default)

    matrix = first("transformmatrix", "rotation", "orientation", default="1 0 0 0 1 0 0 0 1")
    spacing = np.array(_numbers(first("elementspacing", default="1 1 1"), 3, name))
    if not (spacing > 0).all():
        raise GeometryError(f"{name}: an ElementSpacing of {spacing.tolist()} mm")
    affine = np.eye(4)
    # Each row of the matrix is the direction of one axis.
    affine[:3, :3] = np.array(_numbers(matrix, 9, name)).reshape(3, 3).T * spacing
    affine[:3, 3] = _numbers(first("offset", "origin", "position", default="0 0 0"), 3, name)
    return LPS_TO_RAS @ affine


def _line(file: BinaryIO, name: str) -> str:
    if file.tell() > _LONGEST_HEADER:
        raise ScanError(f"{name}: its header does not end within {_LONGEST_HEADER:,} bytes")
    return file.readline(_LONGEST_HEADER).decode("latin-1")


def _flag(fields: Mapping[str, str], field: str, *, default: bool = False) -> bool:
    return fields.get(field, str(default)).lower() in ("true", "t", "1")


def _dtype(code: str | None, big: bool, name: str) -> np.dtype[Any]:
    if code is None:
        raise ScanError(f"{name}: its number type is not one of 8 to 64 bits, integer or float")
    return np.dtype(f"{'>' if big else '<'}{code}")


def _integers(
    fields: Mapping[str, str], field: str, name: str, default: int | None = None
) -> tuple[int, ...]:
    text = fields.get(field, "" if default is None else str(default))
    if not re.fullmatch(r"[0-9]{1,9}( +[0-9]{1,9}){0,9}", text):
        raise ScanError(f"{name}: '{field}' in the header is '{text[:40]}', not whole numbers")
    return tuple(int(part) for part in text.split())


def _numbers(text: str, count: int, name: str) -> list[float]:
    parts = [_number(part, name) for part in re.split(r"[,\s]+", text.strip())]
    if len(parts) != count:
        raise GeometryError(f"{name}: {len(parts)} numbers in the header where {count} are needed")
    if any(math.isnan(part) for part in parts):
        raise GeometryError(f"{name}: the header has NaN for a length or a direction")
    return parts


def _number(text: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise GeometryError(f"{name}: '{text[:20]}' in the header is not a number") from None
    if abs(number) > LARGEST_MM:
        raise GeometryError(f"{name}: '{text[:20]}' in the header is no length in mm")
    return number
