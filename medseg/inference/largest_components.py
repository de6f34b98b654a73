"""Which connected component of a label is the largest, and label maps without the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg.metrics.components import (
    count_component_voxels,
    number_components,
)
from medseg.metrics.confusion import Mask
from medseg.metrics.label_boxes import find_box_of_labels, move_into
from medseg.metrics.label_summary import LabelSummary


def keep_largest_components(
    found: LabelSummary, indices: Sequence[int]
) -> LabelSummary:
    """Return a label map with only the largest connected component of some of its labels.

    Args:
        found: The label map, which is not changed; returned where nothing is to be removed.
        indices: The labels of which smaller components become background.
    """
    kept = found.labels
    voxels = found.voxels.copy()
    boxes = dict(found.boxes)
    for index in indices:
        box = found.boxes.get(index)
        if box is None:
            continue
        mask = kept[box] == index
        largest = _find_largest_component(mask)
        if largest is None:
            continue
        if kept is found.labels:
            kept = kept.copy(order="F")
        np.copyto(kept[box], 0, where=mask & ~largest)
        left = np.count_nonzero(largest)
        voxels[0] += voxels[index] - left
        voxels[index] = left
        inner = find_box_of_labels(largest)
        if inner is not None:
            boxes[index] = move_into(inner, box)
    return LabelSummary(kept, voxels, boxes)


def _find_largest_component(mask: Mask) -> Mask | None:
    """Return the largest component of a mask; ``None`` if it has but one.

    Of components of one size the same is returned as by MONAI: both number them in the order in
    which a voxel of each comes first, and sort these numbers in the same way.
    """
    components, count = number_components(mask)
    if count == 1:
        return None
    sizes = count_component_voxels(components, mask)
    if np.count_nonzero(sizes == sizes.max()) > 1:
        # MONAI numbers them along the last axis, which takes longer: a mask lies along the first.
        components, _ = number_components(np.ascontiguousarray(mask))
        sizes = count_component_voxels(components, mask)
    largest: Mask = components == np.argsort(sizes)[-1]
    return largest
