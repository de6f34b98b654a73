"""Which connected component of a label is the largest, and label maps without the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from medseg.volume import Array

Box = tuple[slice, slice, slice]

_CORNERS_TOUCH: Literal[26] = 26
"""Voxels that share a corner belong to one component, as for MONAI."""


def find_box_of_labels(labels: Array) -> Box | None:
    """Return the smallest box ``(i, j, k)`` of all that is not 0; ``None`` if nothing is."""
    sides = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        held = np.flatnonzero(labels.any(axis=others))
        if not len(held):
            return None
        sides.append(slice(int(held[0]), int(held[-1]) + 1))
    i, j, k = sides
    return i, j, k


def find_boxes(labels: Array, indices: Sequence[int]) -> dict[int, Box]:
    """Return the smallest box around each of some labels, of those that are there.

    Args:
        labels: Label indices ``(i, j, k)``.
        indices: The labels to look for.
    """
    from scipy.ndimage import find_objects

    outer = find_box_of_labels(labels)
    if outer is None:
        return {}
    found = find_objects(labels[outer])
    boxes = {}
    for index in indices:
        inner = found[index - 1] if index <= len(found) else None
        if inner is not None:
            i, j, k = map(_move_into, inner, outer)
            boxes[index] = (i, j, k)
    return boxes


def keep_largest_components(labels: Array, indices: Sequence[int]) -> Array:
    """Return the labels with only the largest connected component of some of them.

    Args:
        labels: Label indices ``(i, j, k)``.
        indices: The labels of which smaller components become background.
    """
    kept = np.array(labels, order="F")
    for index, box in find_boxes(labels, indices).items():
        mask = np.ascontiguousarray(labels[box] == index)
        is_smaller = _find_smaller_components(mask)
        if is_smaller is not None:
            kept[box][is_smaller] = 0
    return kept


def _move_into(inner: slice, outer: slice) -> slice:
    """Return where a part of a part lies in the whole."""
    return slice(outer.start + inner.start, outer.start + inner.stop)


def _find_smaller_components(
    mask: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_] | None:
    """Return all of a mask but its largest component; ``None`` if it has one component.

    Of components of one size the same is kept as by MONAI: both number them in the order in
    which a voxel of each comes first, and sort these numbers in the same way.
    """
    import cc3d

    components: Array = cc3d.connected_components(
        mask, connectivity=_CORNERS_TOUCH, binary_image=True
    )
    if components.max() == 1:
        return None
    sizes = np.bincount(components.reshape(-1))
    sizes[0] = 0  # the background
    largest = np.argsort(sizes)[-1]
    is_smaller: npt.NDArray[np.bool_] = mask & (components != largest)
    return is_smaller
