"""Which connected component of a label is the largest, and label maps without the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from medseg.metrics.label_boxes import find_boxes
from medseg.volume import Array

_CORNERS_TOUCH: Literal[26] = 26
"""Voxels that share a corner belong to one component, as for MONAI."""


def keep_largest_components(labels: Array, indices: Sequence[int]) -> Array:
    """Return the labels with only the largest connected component of some of them.

    Args:
        labels: Label indices ``(i, j, k)``.
        indices: The labels of which smaller components become background.
    """
    kept = np.array(labels, order="F")
    for index, box in find_boxes(labels, indices).items():
        # In the order in which MONAI goes through it.
        mask = np.ascontiguousarray(labels[box] == index)
        is_smaller = _find_smaller_components(mask)
        if is_smaller is not None:
            kept[box][is_smaller] = 0
    return kept


def _find_smaller_components(
    mask: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_] | None:
    """Return all of a mask but its largest component; ``None`` if it has one component.

    Of components of one size the same is kept as by MONAI: both number them in the order in
    which a voxel of each comes first, and sort these numbers in the same way.
    """
    import cc3d

    components, count = cc3d.connected_components(
        mask,
        connectivity=_CORNERS_TOUCH,
        binary_image=True,
        return_N=True,
    )
    if count == 1:
        return None
    sizes = np.bincount(components[mask])
    largest = np.argsort(sizes)[-1]
    is_smaller: npt.NDArray[np.bool_] = mask & (components != largest)
    return is_smaller
