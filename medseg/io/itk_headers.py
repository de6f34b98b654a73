"""What the text headers of NRRD and MetaImage files have in common.

Read here and not by ITK, because a forged header makes ITK crash the process, and because its
readers follow a header to any file it names. Fields that are not about the voxels are not looked
at: they may name the patient.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from medseg.errors import GeometryError, ScanError
from medseg.io.voxels import LARGEST_MM
from medseg.volume import Affine

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LONGEST_HEADER = 1 << 20  # a hundred segments of 3D Slicer take 1 << 16

_MM_PER_UNIT = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "?", "???", ""), 1.0),
    **dict.fromkeys(("um", "µm", "micron", "microns", "micrometer"), 1e-3),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), 10.0),
    **dict.fromkeys(("m", "meter", "meters"), 1000.0),
}
"""What headers call a unit of length → mm; one that is not stated is mm."""

UNSAID = (
    "the file does not state how its axes lie in the patient; LPS is assumed"
)
NO_ORIGIN = (
    "the file states no origin, so where it lies in the patient is a guess"
)
_UNIT_LENGTH = 1e-2
_INTEGERS = re.compile(r"[0-9]{1,9}( +[0-9]{1,9}){0,9}")


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """How a file stores its voxels.

    Attributes:
        file: Where they lie: the file itself, or the one beside a ``.mhd`` or ``.nhdr``.
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


class Fields:
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

    def to_mm(
        self, affine: Affine, unit: str
    ) -> tuple[Affine, tuple[str, ...]]:
        """Return an affine in mm, and what to say of it.

        Args:
            affine: In the header's unit of length.
            unit: What the header calls that, in lower case.

        Raises:
            GeometryError: If it is no known unit.
        """
        if unit not in _MM_PER_UNIT:
            raise GeometryError(
                "the header gives lengths in a unit that is not known; state them in mm",
                source=self.path,
                detail=unit[:20],
            )
        factor = _MM_PER_UNIT[unit]
        if factor == 1:
            return affine, ()
        scaled = affine.copy()
        scaled[:3] *= factor
        said = f"the header gives lengths in {unit}; they were converted to mm"
        return scaled, (said,)


def describe_lengths(directions: Affine) -> tuple[str, ...]:
    """Say that the columns of a 3×3 matrix are no unit vectors, if they are not."""
    lengths = np.linalg.norm(directions, axis=0)
    if np.allclose(lengths, 1, atol=_UNIT_LENGTH):
        return ()
    return (
        "the directions of the axes are not of length 1, which makes voxels larger or smaller than "
        "the size that is stated",
    )


def find_beside(path: Path, stated: str) -> Path:
    """Return the file beside a header that it names as that of its voxels.

    Raises:
        ScanError: If there is none, or the header leads to another folder.
    """
    beside = path.parent / stated
    # teem writes ./name.
    is_plain_name = str(Path(stated)) == Path(stated).name
    if not is_plain_name or not beside.is_file():
        raise ScanError(
            "its voxels must lie in one file in the same folder; save it as .mha or .nrrd",
            source=path,
        )
    return beside


def read_line(file: BinaryIO, path: Path) -> str:
    """Return the next line of a header.

    Raises:
        ScanError: If there are too many.
    """
    if file.tell() > _LONGEST_HEADER:
        raise ScanError(
            f"its header does not end within {_LONGEST_HEADER:,} bytes",
            source=path,
        )
    return file.readline(_LONGEST_HEADER).decode("latin-1")


def make_dtype(
    code: str | None, is_big_endian: bool, path: Path
) -> np.dtype[Any]:
    """Return the number type of a NumPy code without its byte order.

    Raises:
        ScanError: If there is no code for it.
    """
    if code is None:
        raise ScanError(
            "its number type is not read; save it as integers or floats of 8 to 64 bits",
            source=path,
        )
    byte_order = ">" if is_big_endian else "<"
    return np.dtype(byte_order + code)
