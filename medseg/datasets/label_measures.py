"""What is measured of a label map, a reference or a result, to tell whether they are alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from medseg.metrics.label_boxes import find_boxes
from medseg.volume import Array

LEAST_SHARE = 0.05
"""Share of a label that a connected component holds if it counts as a piece."""

_SPECK = 0.1
"""Share of a label's cross-section that may touch the border as a speck."""

_CORNERS_TOUCH: Literal[26] = 26


def count_pieces(labels: Array, most: int) -> dict[int, int]:
    """Count the connected components of each label that hold a share of it worth counting.

    Args:
        labels: Label indices ``(i, j, k)``; neighbours touch at faces, edges or corners.
        most: The highest index; others are passed over.

    Returns:
        Index → pieces, of the labels that are there.
    """
    import cc3d

    pieces = {}
    for index, box in find_boxes(labels, range(1, most + 1)).items():
        mask = labels[box] == index
        components, count = cc3d.connected_components(
            mask,
            connectivity=_CORNERS_TOUCH,
            binary_image=True,
            return_N=True,
        )
        pieces[index] = count
        if count > 1:
            sizes = np.bincount(components[mask])[1:]
            least = LEAST_SHARE * sizes.sum()
            pieces[index] = int(np.count_nonzero(sizes >= least))
    return pieces


def find_cut_labels(labels: Array, voxels: Array) -> frozenset[int]:
    """Find the labels that touch the border of the image by more than a speck.

    Args:
        labels: Label indices ``(i, j, k)``.
        voxels: How many voxels each index has, ``(classes,)``.
    """
    touching = np.zeros(len(voxels))
    for face in list_faces(labels):
        counts = np.bincount(face.ravel(), minlength=len(voxels))
        touching += counts[: len(voxels)]
    # The cross-section of a ball grows as its volume to two thirds.
    specks = _SPECK * np.power(voxels, 2 / 3)
    found = np.flatnonzero(touching > specks)
    return frozenset(found.tolist()) - {0}


def list_faces(labels: Array) -> Iterator[Array]:
    """Yield the faces of an image, along axes of more than one voxel."""
    for axis, size in enumerate(labels.shape):
        if size < 2:
            continue
        along = np.moveaxis(labels, axis, 0)
        # Not by `take`, which copies the whole image first unless k is its fastest axis.
        yield along[0]
        yield along[-1]
