"""A label map as a viewer sends it → label indices on the scan's own grid, exactly.

Viewers crop a label to what is painted, turn axes around, and number segments in their own order.
What cannot be placed voxel on voxel is refused, not resampled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.datasets.label_encoding import describe_label_warnings, encode_mask
from medseg.datasets.named_segments import join_segments
from medseg.datasets.placement import place_on_grid
from medseg.dicom_labels.seg_reader import read_dicom_seg
from medseg.errors import ScanError
from medseg.io import read_labels
from medseg.io.dicom.volume import is_dicom
from medseg.io.seg_nrrd import read_segments
from medseg.io.voxels import limit_voxels
from medseg.labels import LabelSet
from medseg.layouts.label_names import find_known
from medseg.names import is_picture
from medseg.volume import Array, Volume

_MAX_LISTED = 6
_MOST_TIMES_THE_SCAN = 4
_MARGIN_VOXELS = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class UploadedLabel:
    """A label map that a viewer sent.

    Attributes:
        indices: Label indices, shape ``(i, j, k)`` of the scan.
        warnings: What the reader of its file noticed.
    """

    indices: Array
    warnings: tuple[str, ...]


def read_label_upload(
    file: Path,
    like: Volume,
    label_set: LabelSet,
    segments: Sequence[Mapping[str, Any]] = (),
) -> UploadedLabel:
    """Read an uploaded label map.

    Args:
        file: NIfTI, NRRD (also Slicer's ``.seg.nrrd``), MHA or DICOM SEG; of a picture also one in
            the labels' colours.
        like: The scan it belongs to.
        label_set: The bundle's labels.
        segments: What the client says of its segments: ``name`` and ``idx``, the value that
            stands for it. What a ``.seg.nrrd`` or a SEG says itself comes first; where nothing
            says it, values are label indices.

    Raises:
        ScanError: If the file cannot be read, or holds a segment that the bundle does not know.
        GeometryError: If its voxels are not the scan's.
    """
    named = read_segments(file)
    if named:
        indices = {label.name: label.index for label in label_set}
        with limit_voxels(_count_allowed(like)):
            label = join_segments(file, named, indices, "remove them")
        names: Mapping[int, str] = {}
    elif is_dicom(file):
        label = read_dicom_seg(file, like)
        names = {number: str(name) for number, name in label.header.items()}
    else:
        with limit_voxels(_count_allowed(like)):
            label = read_labels(file)
        names = name_values(segments)
    if len(label.array) == 3 and is_picture(file):
        encoded = encode_mask(label, label_set)
        label = label.with_array(encoded.indices[None])
        indices_sent = place_on_grid(label, like)
        placed = to_label_indices(indices_sent, {}, label_set)
        return UploadedLabel(placed, encoded.warnings)
    if len(label.array) != 1:
        raise ScanError(
            "overlapping segments, or colours, were sent; send one label per voxel"
        )
    values = place_on_grid(label, like)
    placed = to_label_indices(values, names, label_set)
    return UploadedLabel(placed, describe_label_warnings(label))


def _count_allowed(scan: Volume) -> int:
    """Return how many voxels a label of a scan may have: viewers rarely add to the scan's."""
    return _MOST_TIMES_THE_SCAN * math.prod(scan.shape) + _MARGIN_VOXELS


def select_segments(segments: object) -> list[Mapping[str, Any]]:
    """Return what a client says of its segments, without what is malformed."""
    if not isinstance(segments, list):
        return []
    return [segment for segment in segments if isinstance(segment, Mapping)]


def name_values(segments: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Return value → name of the segments that a client describes.

    Clients write a segment's value as ``idx`` or ``id``, or leave it out where segments are
    numbered from 1 in their order.
    """
    names = {}
    for number, segment in enumerate(segments, start=1):
        name = segment.get("name")
        value = number
        for key in ("id", "idx"):
            value = segment.get(key, value)
        if isinstance(value, int) and isinstance(name, str):
            names[value] = name
    return names


def to_label_indices(
    values: Array, names: Mapping[int, str], label_set: LabelSet
) -> Array:
    """Replace a label map's own values by the bundle's label indices.

    Args:
        values: Shape ``(i, j, k)``; 0 is background.
        names: Value → name of its segment. Without any, values are label indices already.
        label_set: The bundle's labels; capitals, hyphens and the like do not count.

    Raises:
        ScanError: If a value stands for no label of the bundle.
    """
    indices = _map_values(names, label_set)
    present = np.unique(values).tolist()
    unknown = [value for value in present if value not in indices]
    if unknown:
        _refuse_unknown(unknown, names, label_set)
    largest = present[-1]
    dtype = np.uint8 if label_set.classes <= 256 else np.uint16
    table = np.zeros(largest + 1, dtype)
    for value in present:
        table[value] = indices[value]
    labels = table[values]
    return np.asfortranarray(labels)


def _refuse_unknown(
    values: Sequence[int], names: Mapping[int, str], label_set: LabelSet
) -> None:
    listed = values[:_MAX_LISTED]
    text = ", ".join(map(str, listed))
    known = ", ".join(label_set.names)
    raise ScanError(
        f"the label has segments that the bundle does not know, with values {text}; rename or "
        f"remove them: the bundle knows {known}",
        detail=", ".join(names.get(value, "") for value in listed),
    )


def _map_values(
    names: Mapping[int, str], label_set: LabelSet
) -> dict[int, int]:
    """Return value → label index, of the values that stand for a label."""
    if not names:
        return {index: index for index in range(label_set.classes)}
    by_name = {label.name: label.index for label in label_set}
    known = find_known(names.values(), by_name)
    indices = {0: 0}
    for value, name in names.items():
        if name in known:
            indices[value] = known[name]
    return indices
