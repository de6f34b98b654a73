"""What is measured of a label map, a reference or a result, to tell whether they are alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medseg.volume import Array

LEAST_SHARE = 0.05
"""Share of a label that a connected component holds if it counts as a piece."""

_SPECK = 0.1
"""Share of a label's cross-section that may touch the border as a speck."""

_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)


def count_pieces(labels: Array, most: int) -> dict[int, int]:
    """Count the connected components of each label that hold a share of it worth counting.

    Args:
        labels: Label indices ``(i, j, k)``; neighbours touch at faces, edges or corners.
        most: The highest index; others are passed over.

    Returns:
        Index → pieces, of the labels that are there.
    """
    from scipy.ndimage import find_objects, label

    pieces = {}
    for index, box in enumerate(find_objects(labels, most), start=1):
        if box is None:
            continue
        components, _ = label(labels[box] == index, _NEIGHBOURS)
        sizes = np.bincount(components.ravel())[1:]
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
        for end in (0, -1):
            yield labels.take(end, axis)
