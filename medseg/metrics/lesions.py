"""Lesions found, missed and made up: connected pieces of a label, counted one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.labels import LabelSet
from medseg.metrics.metrics import clear_ignored, extract_region
from medseg.volume import Array

DETECTION_OVERLAP = 0.1
"""Share of a lesion's voxels that a prediction must cover to have found it."""

_TOUCHING = np.ones((3, 3, 3), bool)


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

    @property
    def sensitivity(self) -> float:
        """Share of the lesions that were found; NaN where there are none."""
        return self.found / self.there if self.there else float("nan")

    @property
    def precision(self) -> float:
        """Share of the predicted lesions that are real; NaN where there are none."""
        return 1 - self.false / self.predicted if self.predicted else float("nan")


def count_lesions(prediction: Array, reference: Array, labels: LabelSet) -> dict[str, LesionCounts]:
    """Count each label's lesions; voxels that share a corner are of one lesion.

    Args:
        prediction: Label indices ``(i, j, k)``.
        reference: The same on the same grid. Where nobody annotated it nothing is counted.
        labels: The labels; where they form regions, these are what is counted.

    Returns:
        Label name → counts.
    """
    prediction, reference = clear_ignored(prediction, reference, labels)
    return {
        region.name: _count(extract_region(prediction, region), extract_region(reference, region))
        for region in labels.regions
    }


def pool_lesions(counts: Iterable[Mapping[str, LesionCounts]]) -> dict[str, LesionCounts]:
    """Add up the counts of many cases."""
    sums: dict[str, list[int]] = {}
    for case in counts:
        for name, one in case.items():
            here = sums.setdefault(name, [0, 0, 0, 0])
            for place, count in enumerate((one.there, one.found, one.predicted, one.false)):
                here[place] += count
    return {name: LesionCounts(*four) for name, four in sums.items()}


def _count(prediction: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]) -> LesionCounts:
    real, there = ndimage.label(reference, structure=_TOUCHING)
    made, predicted = ndimage.label(prediction, structure=_TOUCHING)
    sizes = np.bincount(real.ravel(), minlength=there + 1)[1:]
    covered = np.bincount(real[prediction].ravel(), minlength=there + 1)[1:]
    hits = np.bincount(made[reference].ravel(), minlength=predicted + 1)[1:]
    return LesionCounts(
        there=int(there),
        found=int((covered >= DETECTION_OVERLAP * sizes).sum()),
        predicted=int(predicted),
        false=int((hits == 0).sum()),
    )
