"""What 3D Slicer's ``.seg.nrrd`` files say of their segments: name, value and layer of each.

Slicer numbers segments anew in every file, so that the value 1 is the liver in one case and the
kidney in the next: only the name says which is which. Segments that overlap lie in layers of their
own, which the file holds as channels.

Source: Slicer's ``vtkMRMLSegmentationStorageNode``, whose defaults for what older files do not
state are kept: the value 1, and a layer for each segment.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg._support.files import refuse_special
from medseg.errors import ScanError

ENDING = ".nrrd"
"""Of a file that may hold segments; Slicer calls them ``.seg.nrrd``, people do not always."""

_LONGEST_HEADER = 1 << 22
_MAGIC = b"NRRD000"
_SEGMENT_KEY = re.compile(r"Segment(\d{1,5})_(ID|Name|LabelValue|Layer)")

_Fields = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a file.

    Attributes:
        name: As a person called it.
        value: In the voxels of its layer.
        layer: The channel that holds it.
    """

    name: str
    value: int
    layer: int = 0


def read_segments(path: Path) -> tuple[Segment, ...]:
    """Read from a file's header which segments it holds; no voxel is read.

    Args:
        path: Any file.

    Returns:
        The segments in the file's order; none where it is no NRRD file that names some.

    Raises:
        ScanError: If the file cannot be read, or two segments have one value in one layer.
    """
    if not path.name.lower().endswith(ENDING):
        return ()
    try:
        fields_of = _read_fields(path)
    except OSError as error:
        raise ScanError(
            "the file cannot be read", source=path, detail=error.strerror
        ) from error
    segments = []
    for number in sorted(fields_of):
        segments.append(_make_segment(number, fields_of[number], path))
    places = {(segment.layer, segment.value) for segment in segments}
    if len(places) < len(segments):
        raise ScanError(
            "its header gives two segments one value in one layer, so nobody can tell them apart; "
            "save the segmentation again",
            source=path,
        )
    return tuple(segments)


def _read_fields(path: Path) -> Mapping[int, _Fields]:
    """Return what the header says of each segment, by the segment's number."""
    fields_of: dict[int, dict[str, str]] = defaultdict(dict)
    for line in _read_header(path):
        key, separator, value = line.partition(":=")
        match = _SEGMENT_KEY.fullmatch(key.strip())
        if separator and match:
            number, field = match.groups()
            fields = fields_of[int(number)]
            fields[field] = value.strip()
    return fields_of


def _read_header(path: Path) -> Iterator[str]:
    """Yield the lines of a NRRD file's header; none of another file."""
    refuse_special(path)
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return
        while file.tell() < _LONGEST_HEADER:
            line = file.readline(_LONGEST_HEADER)
            text = line.decode("utf-8", errors="replace")
            if not text.strip():
                return
            yield text


def _make_segment(number: int, fields: _Fields, path: Path) -> Segment:
    value = fields.get("LabelValue", "1")
    layer = fields.get("Layer", str(number))
    name = fields.get("Name")
    if not name:
        name = fields.get("ID", f"Segment_{number}")
    return Segment(
        name=name,
        value=_parse_number(value, path),
        layer=_parse_number(layer, path),
    )


def _parse_number(text: str, path: Path) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ScanError(
            "value and layer of each segment must be whole numbers; its header states another one",
            source=path,
            detail=text[:20],
        )
    return int(text)
