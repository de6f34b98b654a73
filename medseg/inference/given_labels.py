"""Labels that are given by whoever calls: whether they are those of a bundle and its scan."""

from __future__ import annotations

import numpy as np

from medseg.errors import GeometryError, ScanError
from medseg.labels import LabelSet
from medseg.volume import Array


def check_labels(
    labels: Array, shape: tuple[int, int, int], most: int
) -> Array:
    """Return labels as unsigned integers once they are certain to be label indices of a scan.

    Args:
        labels: What was given.
        shape: Voxels of the scan.
        most: The highest label index.

    Raises:
        GeometryError: If they do not have the scan's shape.
        ScanError: If they are no integers, or others than 0 to ``most``.
    """
    if labels.shape != shape:
        raise GeometryError(
            f"the labels have shape {labels.shape} and the scan {shape}; both must lie on one grid"
        )
    if labels.dtype.kind not in "bui":
        raise ScanError(
            f"label indices are integers, these labels are {labels.dtype}"
        )
    lowest, highest = labels.min(), labels.max()
    if lowest < 0 or highest > most:
        raise ScanError(
            f"the labels hold values from {lowest} to {highest}; label indices 0 to {most} are "
            "needed"
        )
    return labels.astype(np.uint8 if most < 256 else np.uint16, copy=False)


def find_label_index(label: str | int, label_set: LabelSet) -> int:
    """Return the index of a label that is called by its name or by its index.

    Raises:
        ScanError: If there is none.
    """
    for each in label_set:
        if label == each.name:
            return each.index
        if label == each.index and not isinstance(label, bool):
            return each.index
    names = ", ".join(label_set.names)
    raise ScanError(
        f"there is no such label; this bundle has {names}",
        detail=str(label)[:100],
    )
