"""Label arrays → numbers: Dice, IoU, HD95, NSD and volumes, per label, in mm and ml.

Where a bundle has regions, these are what is scored, each as one structure made of its labels, and
"label" below means region.

Where a number needs a rule, this is it:

* a label that neither the prediction nor the reference holds has no score: NaN, not counted;
* a label that only one of them holds is a miss, and it counts: Dice, IoU and NSD are 0, HD95 is
  the length of the image's diagonal, and ``missed`` is set;
* the surface of a mask is its voxels with a face neighbour outside the mask, and the outside of
  the image is outside the mask. HD95 and NSD use the same surface distances, between voxel
  centres, so they equal MONAI's ``compute_hausdorff_distance(percentile=95)`` and
  ``compute_surface_dice`` with the spacing in mm;
* an image of one slice has contours instead of surfaces;
* voxels that nobody annotated are background on both sides: what was predicted there changes no
  number, and volumes are those of the annotated part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.labels import LabelSet, Region
from medseg.volume import Array

METRICS = ("dice", "iou", "hd95", "nsd")
"""The metrics of a validation, in the order tables show them."""

VOLUME_ERRORS = ("volume_error_ml", "volume_error_percent")
"""Signed errors: positive where the prediction is too large."""

MEAN = "mean"
"""The label name under which the mean over labels stands."""

TOLERANCE_MM = 1.0
"""Of the NSD, unless another is given."""

# Spacings come from affines stored with few digits: 1 mm may arrive as 1.0000001 mm, and a
# distance of one voxel must still be within a tolerance of 1 mm.
_SLACK_MM = 1e-4

Mask = npt.NDArray[np.bool_]
Box = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class LabelScores:
    """How well one label of one case was segmented.

    Attributes:
        dice: 2 |P ∩ R| / (|P| + |R|), 0 to 1.
        iou: |P ∩ R| / |P ∪ R|, 0 to 1.
        hd95: 95th percentile of the Hausdorff distance, in mm: the larger one of the two directed
            95th percentiles (linear interpolation).
        nsd: Normalised surface Dice, 0 to 1: the share of both surfaces that lies within the
            tolerance of the other one (Nikolov et al. 2018, arXiv:1809.04430), each surface voxel
            counting once.
        volume_error_ml: Predicted minus reference volume.
        volume_error_percent: The same, relative to the reference; NaN if that is empty.
        reference_ml: Volume of the label in the reference.
        predicted_ml: Volume of the label in the prediction.
        missed: Whether exactly one of the two holds the label.
    """

    dice: float
    iou: float
    hd95: float
    nsd: float
    volume_error_ml: float
    volume_error_percent: float
    reference_ml: float
    predicted_ml: float
    missed: bool


ABSENT = LabelScores(
    math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, 0.0, 0.0, missed=False
)
"""The scores of a label that neither the prediction nor the reference holds."""


@dataclass(frozen=True, slots=True)
class CaseScores:
    """How well one case was segmented.

    Attributes:
        labels: Label name → scores, in the order of the label set.
        case: Name of the case.
    """

    labels: Mapping[str, LabelScores]
    case: str = ""

    def __getitem__(self, metric: str) -> dict[str, float]:
        """Return ``label name → value`` of one field of ``LabelScores``."""
        return {name: getattr(scores, metric) for name, scores in self.labels.items()}

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the labels that have one; NaN if none has."""
        return mean_without_nan(list(self["dice"].values()))


def score_case(
    prediction: Any,
    reference: Any,
    labels: LabelSet,
    spacing: tuple[float, float, float],
    tolerance_mm: float = TOLERANCE_MM,
    *,
    case: str = "",
    voxel_ml: float | None = None,
) -> CaseScores:
    """Compare a predicted label array with the reference.

    Args:
        prediction: Label indices, shape ``(i, j, k)``; a NumPy array or a torch tensor.
        reference: Label indices on the same grid, same shape; ``labels.ignore_index`` where nobody
            annotated.
        labels: The labels, or their regions, to score; voxels with other values count as
            background.
        spacing: Distance between neighbouring voxels along i, j and k, in mm.
        tolerance_mm: How far apart surfaces may lie and still count as equal in the NSD.
        case: Name of the case.
        voxel_ml: Volume of a voxel in ml; the product of the spacing unless given. A sheared
            grid (tilted gantry) needs it; its distances are measured as on a straight grid.

    Returns:
        Scores of every label, also of those that neither array holds.

    Raises:
        ValueError: If the shapes differ or are not 3D, an array holds fractions, a spacing is not
            positive or the tolerance is negative.
    """
    predicted, expected = _indices(prediction), _indices(reference)
    _check(predicted.shape, expected.shape, spacing, tolerance_mm)
    predicted, expected = clear_ignored(predicted, expected, labels)
    if voxel_ml is None:
        voxel_ml = math.prod(spacing) / 1000.0
    axes = _extended_axes(expected.shape)
    predicted, expected = predicted.squeeze(_others(axes)), expected.squeeze(_others(axes))
    sizes = tuple(spacing[axis] for axis in axes)
    penalty = math.hypot(*(n * size for n, size in zip(expected.shape, sizes, strict=True)))
    scores = {}
    boxes = _boxes(predicted, expected, len(labels))
    for region in labels.regions:
        box = reduce(_union, (boxes[index - 1] for index in region.labels))
        if box is None:
            scores[region.name] = ABSENT
        else:
            scores[region.name] = _score_label(
                extract_region(predicted[box], region),
                extract_region(expected[box], region),
                spacing=sizes,
                tolerance_mm=tolerance_mm,
                penalty_mm=penalty,
                voxel_ml=voxel_ml,
            )
    return CaseScores(scores, case)


def score_dice(prediction: Any, reference: Any, labels: LabelSet) -> dict[str, float]:
    """Return label name → Dice as ``score_case`` has it, without what takes long.

    Args:
        prediction: Label indices, shape ``(i, j, k)``; a NumPy array or a torch tensor.
        reference: Label indices on the same grid, same shape; ``labels.ignore_index`` where nobody
            annotated.
        labels: The labels, or their regions, to score; voxels with other values count as
            background.

    Returns:
        0 to 1; NaN for a label that neither array holds.

    Raises:
        ValueError: If the shapes differ or are not 3D, or an array holds fractions.
    """
    predicted, expected = _indices(prediction), _indices(reference)
    _check(predicted.shape, expected.shape, (1.0, 1.0, 1.0), 0.0)
    predicted, expected = clear_ignored(predicted, expected, labels)
    predicted, expected = (
        np.where((array > 0) & (array <= len(labels)), array, 0) for array in (predicted, expected)
    )
    return dice_from_confusion(count_confusion(predicted, expected, labels.classes), labels)


def dice_from_confusion(pairs: npt.NDArray[np.int64], labels: LabelSet) -> dict[str, float]:
    """Return label name → Dice, from how often each pair of values occurs.

    Args:
        pairs: Voxels with each index on one side and each on the other, ``(classes, classes)``.
        labels: The labels, or their regions, to score.

    Returns:
        0 to 1; NaN for a label that neither side holds.
    """
    found = {}
    for region in labels.regions:
        held = list(region.labels)
        sizes = int(pairs[held].sum()) + int(pairs[:, held].sum())
        common = int(pairs[np.ix_(held, held)].sum())
        found[region.name] = 2 * common / sizes if sizes else math.nan
    return found


def count_voxels(labels: Array, classes: int) -> npt.NDArray[np.int64]:
    """Count how often each label index, background included, occurs in ``(i, j, k)``."""
    counts = np.zeros(classes, np.int64)
    # Slice by slice: numpy counts in 8-byte copies of what it is given.
    for k in range(labels.shape[2]):
        counts += np.bincount(labels[..., k].ravel(order="K"), minlength=classes)
    return counts


def extract_region(array: Array, region: Region) -> Mask:
    """Return where label indices, of any shape, are of a region."""
    mask: Mask = array == region.labels[0]
    for index in region.labels[1:]:
        mask |= array == index
    return mask


def clear_ignored(prediction: Array, reference: Array, labels: LabelSet) -> tuple[Array, Array]:
    """Return both sides with background where nobody annotated the reference.

    Args:
        prediction: Label indices.
        reference: The same on the same grid; ``labels.ignore_index`` where nobody annotated.
        labels: The labels.
    """
    if labels.ignore_index is None:
        return prediction, reference
    known = reference != labels.ignore_index
    return prediction * known, reference * known


def _indices(labels: Any) -> Array:
    from monai.utils import convert_to_numpy

    array = np.asarray(convert_to_numpy(labels))
    if array.dtype.kind in "iu":
        return array
    whole = array.astype(np.int32)
    if not np.array_equal(whole, array):
        raise ValueError("label indices must be whole numbers; take the argmax of probabilities")
    return whole


def count_confusion(one: Array, other: Array, classes: int) -> npt.NDArray[np.int64]:
    """Count how often each pair of label indices occurs in two label maps ``(i, j, k)``.

    Returns:
        Voxels with each index on one side and each on the other, ``(classes, classes)``.
    """
    both = np.zeros(classes * classes, np.int64)
    # A few slices at a time: numpy counts in 8-byte copies of what it is given.
    step = max(1, len(both) // one[..., 0].size)
    for k in range(0, one.shape[2], step):
        pairs = one[..., k : k + step].astype(np.int64) * classes + other[..., k : k + step]
        both += np.bincount(pairs.ravel(order="K"), minlength=len(both))
    return both.reshape(classes, classes)


def _check(
    predicted: tuple[int, ...],
    expected: tuple[int, ...],
    spacing: tuple[float, float, float],
    tolerance_mm: float,
) -> None:
    if len(predicted) != 3 or predicted != expected:
        raise ValueError(
            "prediction and reference must have one shape (i, j, k), "
            f"got {predicted} and {expected}"
        )
    if len(spacing) != 3 or not all(0 < size < math.inf for size in spacing):
        raise ValueError(f"spacing must be three positive numbers in mm, got {spacing}")
    if not 0 <= tolerance_mm < math.inf:
        raise ValueError(f"tolerance_mm must be 0 or more, got {tolerance_mm}")


def _extended_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes along which there is more than one voxel; at least one axis."""
    return tuple(axis for axis, size in enumerate(shape) if size > 1) or (0,)


def _others(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple({0, 1, 2} - set(axes))


def _boxes(prediction: Array, reference: Array, count: int) -> list[Box | None]:
    """Return for each label the box around it in both arrays, or None where it is in neither.

    The surface of a mask in its tight box is its surface in the image, because everything
    outside the box is outside the mask.
    """
    from scipy.ndimage import find_objects

    found = zip(
        find_objects(prediction, max_label=count),
        find_objects(reference, max_label=count),
        strict=True,
    )
    return [_union(one, other) for one, other in found]


def _union(one: Box | None, other: Box | None) -> Box | None:
    if one is None or other is None:
        return one or other
    return tuple(
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )


def _score_label(
    prediction: Mask,
    reference: Mask,
    *,
    spacing: tuple[float, ...],
    tolerance_mm: float,
    penalty_mm: float,
    voxel_ml: float,
) -> LabelScores:
    """Score two masks of which at least one is not empty."""
    predicted, expected = int(prediction.sum()), int(reference.sum())
    common = int((prediction & reference).sum())
    missed = predicted == 0 or expected == 0
    if missed:
        hd95, nsd = penalty_mm, 0.0
    else:
        there, back = _surface_distances(prediction, reference, spacing)
        hd95 = max(float(np.percentile(there, 95)), float(np.percentile(back, 95)))
        both = np.concatenate([there, back])
        nsd = float(np.mean(both <= tolerance_mm + _SLACK_MM))
    return LabelScores(
        dice=2 * common / (predicted + expected),
        iou=common / (predicted + expected - common),
        hd95=hd95,
        nsd=nsd,
        volume_error_ml=(predicted - expected) * voxel_ml,
        volume_error_percent=100 * (predicted - expected) / expected if expected else math.nan,
        reference_ml=expected * voxel_ml,
        predicted_ml=predicted * voxel_ml,
        missed=missed,
    )


def _surface_distances(
    prediction: Mask, reference: Mask, spacing: tuple[float, ...]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return, for each surface voxel, the distance in mm to the other surface, both ways."""
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    edges = get_mask_edges(prediction, reference, crop=False)
    there = get_surface_distance(edges[0], edges[1], spacing=spacing)
    back = get_surface_distance(edges[1], edges[0], spacing=spacing)
    return np.asarray(there), np.asarray(back)


def mean_without_nan(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if none is."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
