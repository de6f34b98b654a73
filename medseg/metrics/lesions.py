"""Lesions found, missed and falsely predicted: connected components of a label, one by one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medseg.labels import LabelSet
from medseg.metrics.confusion import Mask, clear_ignored, extract_region
from medseg.volume import Array

DETECTION_OVERLAP = 0.1
"""Share of a lesion's voxels that a prediction must cover to have found it."""

_CORNERS_TOUCH = np.ones((3, 3, 3), bool)
"""26-connectivity: voxels that share a corner belong to one component."""


@dataclass(frozen=True, slots=True)
class LesionCounts:
    """The lesions of one label, in one case or in many.

    Attributes:
        there: Lesions in the reference.
        found: Those of which the prediction covers a tenth or more.
        predicted: Lesions in the prediction.
        false: Those that touch none of the reference.
    """

    there: int
    found: int
    predicted: int
    false: int

    def __add__(self, other: LesionCounts) -> LesionCounts:
        return LesionCounts(
            there=self.there + other.there,
            found=self.found + other.found,
            predicted=self.predicted + other.predicted,
            false=self.false + other.false,
        )

    @property
    def sensitivity(self) -> float:
        """Share of the lesions that were found; NaN where there are none."""
        if self.there == 0:
            return math.nan
        return self.found / self.there

    @property
    def precision(self) -> float:
        """Share of the predicted lesions that are real; NaN where there are none."""
        if self.predicted == 0:
            return math.nan
        return 1 - self.false / self.predicted


def count_lesions(
    prediction: Array, reference: Array, labels: LabelSet
) -> dict[str, LesionCounts]:
    """Count each label's lesions; voxels that share a corner belong to one lesion.

    Args:
        prediction: Label indices ``(i, j, k)``.
        reference: Label indices on the same grid. Where they are the ignore index nothing is
            counted.
        labels: The labels; where they form regions, these are what is counted.

    Returns:
        Label name → counts.
    """
    prediction, reference = clear_ignored(prediction, reference, labels)
    counts = {}
    for region in labels.regions:
        predicted = extract_region(prediction, region)
        expected = extract_region(reference, region)
        counts[region.name] = _count_components(predicted, expected)
    return counts


def pool_lesions(
    cases: Iterable[Mapping[str, LesionCounts]],
) -> dict[str, LesionCounts]:
    """Add up the counts of many cases."""
    sums: dict[str, LesionCounts] = {}
    for case in cases:
        for name, counts in case.items():
            sums[name] = sums[name] + counts if name in sums else counts
    return sums


def _count_components(prediction: Mask, reference: Mask) -> LesionCounts:
    expected, there = ndimage.label(reference, structure=_CORNERS_TOUCH)
    predicted, made = ndimage.label(prediction, structure=_CORNERS_TOUCH)
    sizes = _count_voxels_of(expected, there)
    covered = _count_voxels_of(expected[prediction], there)
    hits = _count_voxels_of(predicted[reference], made)
    is_found = covered >= DETECTION_OVERLAP * sizes
    return LesionCounts(
        there=int(there),
        found=int(is_found.sum()),
        predicted=int(made),
        false=int((hits == 0).sum()),
    )


def _count_voxels_of(components: Array, count: int) -> Array:
    """Return the number of voxels of each component; they are numbered from 1."""
    return np.bincount(components.ravel(), minlength=count + 1)[1:]
