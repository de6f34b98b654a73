"""What a scan may be in Python, as types: importing them imports no reader."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import IO, Any, TypeAlias

from medseg.volume import Array, Volume

Image: TypeAlias = Any
"""An image, a tensor or a data set of another library; these libraries state no types."""

VolumeLike: TypeAlias = (
    Volume
    | str
    | os.PathLike[str]
    | bytes
    | IO[bytes]
    | Array
    | Image
    | Sequence[Any]
    | Mapping[str, Any]
)
"""What ``as_volume`` makes a volume of.

A path; bytes or an open binary file; an array or tensor with its spacing or affine; an image of
MONAI, nibabel or SimpleITK; a pydicom data set or those of one series; or several of these, one
per channel.
"""

SeriesChoice: TypeAlias = int | str | None
"""A series' number in the list that an error gives, from 1, or its Series Instance UID."""
