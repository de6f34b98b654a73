"""Voxel counts: of labels, of pairs of labels, and the Dice that follows from pairs."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from medseg.labels import LabelSet, Region
from medseg.metrics.label_boxes import find_box_of_labels
from medseg.volume import Array

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


def extract_region(labels: Array, region: Region) -> Mask:
    """Return where label indices, of any shape, belong to a region."""
    mask: Mask = labels == region.labels[0]
    for index in region.labels[1:]:
        mask |= labels == index
    return mask


def clear_ignored(
    prediction: Array, reference: Array, labels: LabelSet
) -> tuple[Array, Array]:
    """Return both sides with background where the reference has the ignore index.

    Args:
        prediction: Label indices.
        reference: Label indices on the same grid.
        labels: The labels; both sides are returned as they are if there is no ignore index.
    """
    if labels.ignore_index is None:
        return prediction, reference
    known = reference != labels.ignore_index
    return prediction * known, reference * known


def count_voxels(labels: Array, classes: int) -> Counts:
    """Count how often each label index, background included, occurs in ``(i, j, k)``."""
    counts = np.zeros(classes, np.int64)
    box = find_box_of_labels(labels)
    if box is not None:
        counts += _count_by_slice(labels[box], classes)
    # Most of a scan is background, and need not be counted.
    counts[0] += labels.size - counts.sum()
    return counts


def _count_by_slice(labels: Array, classes: int) -> Counts:
    counts = np.zeros(classes, np.int64)
    # numpy counts in 8-byte copies of what it is given.
    for k in range(labels.shape[2]):
        voxels = labels[..., k].ravel(order="K")
        counts += np.bincount(voxels, minlength=classes)
    return counts


def count_confusion(rows: Array, columns: Array, classes: int) -> Counts:
    """Count how often each pair of label indices occurs in two label maps ``(i, j, k)``.

    Args:
        rows: Label indices below ``classes``.
        columns: Label indices below ``classes``, on the same grid.
        classes: Labels and background.

    Returns:
        The confusion matrix ``(classes, classes)``: voxels with the row's index in ``rows`` and
        the column's in ``columns``.
    """
    counts = np.zeros(classes * classes, np.int64)
    # A few slices at a time: numpy counts in 8-byte copies of what it is given.
    slice_size = rows[..., 0].size
    slices = max(1, len(counts) // slice_size)
    for k in range(0, rows.shape[2], slices):
        slab = slice(k, k + slices)
        row = rows[..., slab].astype(np.int64)
        pairs = row * classes + columns[..., slab]
        voxels = pairs.ravel(order="K")
        counts += np.bincount(voxels, minlength=len(counts))
    return counts.reshape(classes, classes)


def dice_from_confusion(
    confusion: Counts, labels: LabelSet
) -> dict[str, float]:
    """Return label name → Dice of the two label maps of a confusion matrix.

    Args:
        confusion: Voxels with each index on one side and each on the other, ``(classes, classes)``.
        labels: The labels, or their regions, to score.

    Returns:
        0 to 1; NaN for a label that neither side holds.
    """
    dice = {}
    for region in labels.regions:
        indices = list(region.labels)
        in_rows = int(confusion[indices].sum())
        in_columns = int(confusion[:, indices].sum())
        common = int(confusion[np.ix_(indices, indices)].sum())
        total = in_rows + in_columns
        dice[region.name] = 2 * common / total if total else math.nan
    return dice
