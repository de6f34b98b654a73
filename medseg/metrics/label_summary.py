"""A label map with what several ask of it: where its labels lie, and how many voxels they have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medseg.metrics.confusion import Counts
from medseg.metrics.label_boxes import Box, find_box_of_labels, move_into
from medseg.volume import Array

_WHOLE = "bui"
"""Kinds of numpy's types that hold whole numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelSummary:
    """A label map, where its labels lie in it, and how many voxels they have.

    Attributes:
        labels: Label indices ``(i, j, k)``.
        voxels: How many voxels each index has, background included, ``(classes,)``.
        boxes: Index → a box that holds all of its voxels, of the labels that are there.
    """

    labels: Array
    voxels: Counts
    boxes: Mapping[int, Box]


def summarise_labels(labels: Array, classes: int) -> LabelSummary:
    """Go through a label map once, for all who ask where its labels lie and how large they are.

    Args:
        labels: Label indices ``(i, j, k)``, whole numbers of any type; those that are no label's
            are passed over.
        classes: Labels and background.

    Raises:
        ValueError: If they are no whole numbers, or not in three dimensions.
    """
    import cc3d

    if labels.dtype.kind not in _WHOLE or labels.ndim != 3:
        raise ValueError(
            "label indices are whole numbers in three dimensions; got "
            f"{labels.dtype} of shape {labels.shape}"
        )
    voxels = np.zeros(classes, np.int64)
    boxes: dict[int, Box] = {}
    # Most of a scan is background.
    outer = find_box_of_labels(labels)
    if outer is not None:
        # A label map lies in memory with i fastest, and this goes along the last axis.
        indices = _select_indices(labels[outer], classes)
        found = cc3d.statistics(_fill_up(indices).T)
        counts = found["voxel_counts"][:classes]
        voxels[: len(counts)] = counts
        for index in np.flatnonzero(counts[1:]) + 1:
            k, j, i = found["bounding_boxes"][index]
            boxes[int(index)] = move_into((i, j, k), outer)
    voxels[0] = labels.size - voxels[1:].sum()
    return LabelSummary(labels, voxels, boxes)


def _select_indices(labels: Array, classes: int) -> Array:
    """Return labels as cc3d takes them, which ends the process where bytes are in foreign order."""
    is_native = labels.dtype.isnative and labels.dtype.kind != "b"
    if is_native and labels.min() >= 0 and labels.max() < classes:
        return labels
    is_known = (labels >= 0) & (labels < classes)
    indices = np.where(is_known, labels, 0)
    return indices.astype(np.min_scalar_type(classes), order="K")


def _fill_up(labels: Array) -> Array:
    """Return a label map with more voxels than its highest index, as cc3d wants it."""
    highest = int(labels.max())
    if highest < labels.size:
        return labels
    lines = highest // labels[0].size + 1
    return np.pad(labels, [(0, lines), (0, 0), (0, 0)])
