"""A label map as a viewer sends it → label indices on the scan's own grid, exactly.

Viewers crop a label to what is painted, turn axes around, and number segments in their own order.
What cannot be placed voxel on voxel is refused, not resampled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import GeometryError, ScanError
from medseg.io import read_labels
from medseg.io.dicom.seg_reader import read_dicom_seg
from medseg.io.dicom.volume import is_dicom
from medseg.labels import LabelSet
from medseg.volume import Array, Volume

_NEARLY = 0.02
"""Voxels by which a grid may be off: viewers store few digits."""


def read_submitted(
    file: Path, like: Volume, label_set: LabelSet, said: Sequence[Mapping[str, Any]] = ()
) -> Array:
    """Read a submitted label map.

    Args:
        file: NIfTI, NRRD (also Slicer's ``.seg.nrrd``), MHA or DICOM SEG.
        like: The scan it belongs to.
        label_set: The bundle's labels.
        said: What the client says of its segments: ``name`` and ``idx``, the value that stands
            for it. Without it, values are label indices.

    Returns:
        Label indices, shape ``(i, j, k)`` of the scan.

    Raises:
        ScanError: If the file cannot be read, or holds a segment that the bundle does not know.
        GeometryError: If its voxels are not the scan's.
    """
    if is_dicom(file):
        found = read_dicom_seg(file, like)
        names = {number: str(name) for number, name in dict(found.header).items()}
    else:
        found = read_labels(file)
        names = dict(_named(said))
    if len(found.array) != 1:
        raise ScanError("overlapping segments, or colours, were sent; one label per voxel is kept")
    return _indices(onto_grid(found, like), names, label_set)


def onto_grid(label: Volume, like: Volume) -> Array:
    """Place a label map voxel on voxel into the grid of a scan.

    Args:
        label: One channel; its grid may be a part of the scan's, with axes turned around.
        like: The scan.

    Raises:
        GeometryError: If its voxels do not coincide with the scan's.
    """
    values: Array = label.array[0]
    if label.shape == like.shape and like.on_same_grid(label):
        return values
    step = np.linalg.solve(like.affine, label.affine)
    turn, start = np.rint(step[:3, :3]), np.rint(step[:3, 3])
    off = np.abs(step[:3, :3] - turn) @ np.array(label.shape) + np.abs(step[:3, 3] - start)
    if off.max() > _NEARLY or abs(round(float(np.linalg.det(turn)))) != 1:
        raise GeometryError(
            f"the label's voxels are not the scan's (they lie {off.max():.2f} voxels beside them); "
            "export the label on the scan's own grid: in 3D Slicer, with the scan as source volume"
        )
    there = np.argwhere(values)
    places = there @ turn.T.astype(int) + start.astype(int)
    if ((places < 0) | (places >= like.shape)).any():
        raise GeometryError("parts of the label lie outside the scan; is it another scan's?")
    placed = np.zeros(like.shape, values.dtype, order="F")
    placed[tuple(places.T)] = values[tuple(there.T)]
    return placed


def _named(said: Sequence[Mapping[str, Any]]) -> Iterable[tuple[int, str]]:
    for number, segment in enumerate(said, start=1):
        value = segment.get("idx", segment.get("id", number))
        if isinstance(value, int) and isinstance(segment.get("name"), str):
            yield value, segment["name"]


def _indices(values: Array, names: Mapping[int, str], label_set: LabelSet) -> Array:
    wanted = {label.name.lower(): label.index for label in label_set}
    known = {0: 0} | {
        value: wanted[name.lower()] for value, name in names.items() if name.lower() in wanted
    }
    if not names:
        known |= {label.index: label.index for label in label_set}
    there = np.unique(values).tolist()
    unknown = [str(names.get(value, value)) for value in there if value not in known]
    if unknown:
        raise ScanError(
            f"the label holds segments the bundle does not know: {', '.join(unknown[:6])}; it "
            f"knows {', '.join(label_set.names)}"
        )
    kind = np.uint8 if label_set.classes <= 256 else np.uint16
    table = np.zeros(max(there) + 1, kind)
    for value in there:
        table[value] = known[value]
    return np.asfortranarray(table[values])
