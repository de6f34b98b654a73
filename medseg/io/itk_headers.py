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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from medseg.errors import GeometryError, ScanError
from medseg.io.voxels import LARGEST_MM, check_size
from medseg.volume import Affine

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LONGEST_HEADER = 1 << 20  # a hundred segments of 3D Slicer take 1 << 16
_MOST_CHANNELS = 1000

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
_LPS_SIGNS = (-1.0, -1.0, 1.0)
_SPACES = {
    **dict.fromkeys(("left-posterior-superior", "lps"), _LPS_SIGNS),
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
}
"""NRRD's spaces, and the signs that turn their axes into right, anterior, superior."""
_UNSAID = (
    "the file does not state how its axes lie in the patient; LPS is assumed"
)
_INTEGERS = re.compile(r"[0-9]{1,9}( +[0-9]{1,9}){0,9}")


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

    @property
    def channels(self) -> int:
        """How many channels each voxel has."""
        if self.channel_axis is None:
            return 1
        return self.shape[self.channel_axis]


def read_layout(path: Path) -> Layout:
    """Read the header of a ``.nrrd``, ``.mha`` or ``.mhd`` file.

    Raises:
        ScanError: If it is not such a file, is broken, or leads to voxels elsewhere.
        GeometryError: If its axes or spacing are not numbers.
    """
    is_nrrd = path.name.lower().endswith(".nrrd")
    read_header = _read_nrrd if is_nrrd else _read_meta
    with path.open("rb") as file:
        layout = read_header(path, file)
    if layout.channels > _MOST_CHANNELS:
        raise ScanError(
            f"the header states {layout.channels} channels; at most {_MOST_CHANNELS} are read",
            source=path,
        )
    check_size(layout.shape, path)
    return layout


class _Fields:
    """The fields of a header by name, and the file that errors are about."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.texts: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.texts

    def text(self, name: str, default: str = "") -> str:
        """Return a field's text, or the default where the header lacks it."""
        return self.texts.get(name, default)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return whether a field is set to true."""
        return self.text(name, str(default)).lower() in ("true", "t", "1")

    def first_of(self, *names: str, default: str) -> str:
        """Return the text of the first of these fields that the header has."""
        for name in names:
            if name in self.texts:
                return self.texts[name]
        return default

    def integers(self, name: str, default: str = "") -> tuple[int, ...]:
        """Return the whole numbers of a field.

        Raises:
            ScanError: If it holds anything else.
        """
        text = self.text(name, default)
        if not _INTEGERS.fullmatch(text):
            raise ScanError(
                f"'{name}' in the header must be whole numbers",
                source=self.path,
                detail=text[:40],
            )
        return tuple(int(part) for part in text.split())

    def numbers(self, text: str, count: int) -> list[float]:
        """Return the numbers of a text, which are separated by blanks or commas.

        Raises:
            GeometryError: If there are more or fewer than ``count``, or one is no length.
        """
        parts = re.split(r"[,\s]+", text.strip())
        numbers = [self.number(part) for part in parts]
        if len(numbers) != count:
            raise GeometryError(
                f"the header has {len(numbers)} numbers where {count} are needed",
                source=self.path,
            )
        if any(math.isnan(number) for number in numbers):
            raise GeometryError(
                "the header has NaN for a length or direction", source=self.path
            )
        return numbers

    def number(self, text: str) -> float:
        """Return the number that a text states; it may be NaN.

        Raises:
            GeometryError: If it states none, or none that could be a length in mm.
        """
        try:
            number = float(text)
        except ValueError:
            raise GeometryError(
                "a length or direction in the header is not a number",
                source=self.path,
                detail=text[:20],
            ) from None
        if abs(number) > LARGEST_MM:
            raise GeometryError(
                f"a length of {number:g} mm in the header is impossible",
                source=self.path,
            )
        return number


def _read_nrrd(path: Path, file: BinaryIO) -> Layout:
    if not re.match(r"NRRD000[1-5]\s*$", _read_line(file, path)):
        raise ScanError(
            "not a NRRD file: it does not begin with NRRD", source=path
        )
    fields = _read_nrrd_fields(path, file)
    _refuse_voxels_elsewhere(fields)
    shape = fields.integers("sizes")
    dimension = fields.integers("dimension")[0]
    if len(shape) != dimension or len(shape) not in (3, 4):
        raise ScanError(
            f"{len(shape)} axes; three are needed, or four with the channels",
            source=path,
        )
    affine, channel_axis, warnings = _read_nrrd_geometry(fields, len(shape))
    encoding = fields.text("encoding")
    if encoding not in ("raw", "gzip", "gz"):
        raise ScanError(
            "its voxels are encoded in a way that is not read; save it as raw or gzip",
            source=path,
            detail=encoding[:20],
        )
    return Layout(
        file=path,
        offset=file.tell(),
        packed=encoding != "raw",
        dtype=_read_nrrd_dtype(fields),
        shape=shape,
        channel_axis=channel_axis,
        affine=affine,
        warnings=warnings,
    )


def _read_nrrd_fields(path: Path, file: BinaryIO) -> _Fields:
    """Read the lines up to the empty one that ends the header."""
    fields = _Fields(path)
    while line := _read_line(file, path).strip():
        name, separator, value = line.partition(":")
        is_comment = line.startswith("#")
        # ``key:=value`` may name the patient.
        is_key_value_pair = value.startswith("=")
        if separator and not is_comment and not is_key_value_pair:
            fields.texts[name.strip().lower()] = value.strip().lower()
    return fields


def _refuse_voxels_elsewhere(fields: _Fields) -> None:
    if "data file" in fields or "datafile" in fields:
        raise ScanError(
            "its voxels lie in another file; save both as one .nrrd",
            source=fields.path,
        )
    skips = ("line skip", "lineskip", "byte skip", "byteskip")
    if any(name in fields for name in skips):
        raise ScanError(
            "the header skips bytes before its voxels; save it again without",
            source=fields.path,
        )


def _read_nrrd_dtype(fields: _Fields) -> np.dtype[Any]:
    endian = fields.text("endian")
    code = _NRRD_TYPES.get(fields.text("type"))
    dtype = _make_dtype(code, endian == "big", fields.path)
    if dtype.itemsize > 1 and endian not in ("little", "big"):
        raise ScanError(
            "the header does not state the byte order (endian) of its voxels",
            source=fields.path,
        )
    return dtype


def _read_nrrd_geometry(
    fields: _Fields, axes: int
) -> tuple[Affine, int | None, tuple[str, ...]]:
    """Return the RAS affine, which axis is the channels, and doubts."""
    if "space directions" in fields:
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
    origin = fields.text("space origin", "(0,0,0)").strip("()")
    affine[:3, 3] = fields.numbers(origin, 3)
    channel_axis = vectors.index(None) if None in vectors else None
    space = fields.text("space")
    warnings = () if space in _SPACES else (_UNSAID,)
    signs = _SPACES.get(space, _LPS_SIGNS)
    return np.diag([*signs, 1.0]) @ affine, channel_axis, warnings


def _read_space_directions(fields: _Fields) -> list[Sequence[float] | None]:
    """Return the step along each axis in mm, ``None`` for the channels."""
    vectors: list[Sequence[float] | None] = []
    for part in re.findall(r"none|\([^()]*\)", fields.text("space directions")):
        vectors.append(
            None if part == "none" else fields.numbers(part[1:-1], 3)
        )
    return vectors


def _read_spacings(fields: _Fields) -> list[Sequence[float] | None]:
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


def _read_meta(path: Path, file: BinaryIO) -> Layout:
    fields = _read_meta_fields(path, file)
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
    voxels, offset = _find_meta_voxels(
        path, fields.text("elementdatafile"), file.tell()
    )
    has_channels = channels != 1
    return Layout(
        file=voxels,
        offset=offset,
        packed=fields.flag("compresseddata"),
        dtype=_make_dtype(code, is_big, path),
        shape=(channels, *shape) if has_channels else shape,
        channel_axis=0 if has_channels else None,
        affine=_read_meta_affine(fields),
    )


def _read_meta_fields(path: Path, file: BinaryIO) -> _Fields:
    """Read the lines up to that of ElementDataFile, which is the last."""
    fields = _Fields(path)
    while "elementdatafile" not in fields:
        line = _read_line(file, path)
        if not line:
            raise ScanError(
                "not a MetaImage: no ElementDataFile in its header", source=path
            )
        name, _, value = line.partition("=")
        fields.texts[name.strip().lower()] = value.strip()
    return fields


def _find_meta_voxels(
    path: Path, stated: str, end_of_header: int
) -> tuple[Path, int]:
    """Return the file that holds the voxels and where in it they begin."""
    if stated.upper() == "LOCAL":
        return path, end_of_header
    beside = path.parent / stated
    # Nothing that leads to another folder.
    is_plain_name = Path(stated).name == stated
    if (
        path.suffix.lower() != ".mhd"
        or not is_plain_name
        or not beside.is_file()
    ):
        raise ScanError(
            "its voxels must lie in one file in the same folder; save it as .mha",
            source=path,
        )
    return beside, 0


def _read_meta_affine(fields: _Fields) -> Affine:
    spacing = np.array(
        fields.numbers(fields.text("elementspacing", "1 1 1"), 3)
    )
    if not (spacing > 0).all():
        raise GeometryError(
            f"an ElementSpacing of {spacing.tolist()} mm; each must be above 0",
            source=fields.path,
        )
    matrix = fields.first_of(
        "transformmatrix",
        "rotation",
        "orientation",
        default="1 0 0 0 1 0 0 0 1",
    )
    origin = fields.first_of("offset", "origin", "position", default="0 0 0")
    # Each row of the matrix is the direction of one axis.
    directions = np.array(fields.numbers(matrix, 9)).reshape(3, 3).T
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = fields.numbers(origin, 3)
    return LPS_TO_RAS @ affine


def _read_line(file: BinaryIO, path: Path) -> str:
    if file.tell() > _LONGEST_HEADER:
        raise ScanError(
            f"its header does not end within {_LONGEST_HEADER:,} bytes",
            source=path,
        )
    return file.readline(_LONGEST_HEADER).decode("latin-1")


def _make_dtype(
    code: str | None, is_big_endian: bool, path: Path
) -> np.dtype[Any]:
    if code is None:
        raise ScanError(
            "its number type is not read; save it as integers or floats of 8 to 64 bits",
            source=path,
        )
    byte_order = ">" if is_big_endian else "<"
    return np.dtype(byte_order + code)
