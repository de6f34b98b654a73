"""What is measured of a label map, a reference or a result, to tell whether they are alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medseg.metrics.components import (
    count_component_voxels,
    number_components,
)
from medseg.metrics.label_summary import LabelSummary
from medseg.volume import Array

LEAST_SHARE = 0.05
"""Share of a label that a connected component holds if it counts as a piece."""

_SPECK = 0.1
"""Share of a label's cross-section that may touch the border as a speck."""


def count_pieces(found: LabelSummary) -> dict[int, int]:
    """Count the connected components of each label that hold a share of it worth counting.

    Args:
        found: The label map; neighbours touch at faces, edges or corners.

    Returns:
        Index → pieces, of the labels that are there.
    """
    pieces = {}
    for index, box in found.boxes.items():
        mask = found.labels[box] == index
        components, count = number_components(mask)
        pieces[index] = count
        if count > 1:
            sizes = count_component_voxels(components, mask)[1:]
            least = LEAST_SHARE * sizes.sum()
            pieces[index] = int(np.count_nonzero(sizes >= least))
    return pieces


def find_cut_labels(found: LabelSummary) -> frozenset[int]:
    """Find the labels of a label map that touch the border of the image by more than a speck."""
    voxels = found.voxels
    touching = np.zeros(len(voxels))
    for face in list_faces(found.labels):
        counts = np.bincount(face.ravel(), minlength=len(voxels))
        touching += counts[: len(voxels)]
    # The cross-section of a ball grows as its volume to two thirds.
    specks = _SPECK * np.power(voxels, 2 / 3)
    cut = np.flatnonzero(touching > specks)
    return frozenset(cut.tolist()) - {0}


def list_faces(labels: Array) -> Iterator[Array]:
    """Yield the faces of an image, along axes of more than one voxel."""
    for axis, size in enumerate(labels.shape):
        if size < 2:
            continue
        along = np.moveaxis(labels, axis, 0)
        # Not by `take`, which copies the whole image first unless k is its fastest axis.
        yield along[0]
        yield along[-1]
