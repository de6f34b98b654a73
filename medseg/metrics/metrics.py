"""Scores of a label map against a reference: Dice, IoU, HD95, NSD and volumes, per label.

Distances are in mm and volumes in ml. Where a bundle has regions, these are what is scored, each
as one structure made of its labels, and "label" below means region.

Where a number needs a rule, this is it:

* a label that neither the prediction nor the reference holds has no score: NaN, not counted;
* a label that only one of them holds is a miss, and it counts: Dice, IoU and NSD are 0, HD95 is
  the length of the image's diagonal, and ``missed`` is set;
* the surface of a mask is its voxels with a face neighbour outside the mask, and the outside of
  the image is outside the mask. HD95 and NSD use the same surface distances, between voxel
  centres, so they equal MONAI's ``compute_hausdorff_distance(percentile=95)`` and
  ``compute_surface_dice`` with the spacing in mm;
* an image of one slice has contours instead of surfaces;
* voxels with the ignore index are background on both sides: what was predicted there changes no
  number, and volumes are those of the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg._support.optional_packages import import_monai
from medseg.labels import LabelSet
from medseg.metrics.confusion import (
    Mask,
    clear_ignored,
    count_confusion,
    dice_from_confusion,
    extract_region,
)
from medseg.volume import Array

METRICS = ("dice", "iou", "hd95", "nsd")
"""The metrics of a validation, in the order tables show them."""

VOLUME_ERRORS = ("volume_error_ml", "volume_error_percent")
"""Signed errors: positive where the prediction is too large."""

MEAN = "mean"
"""The label name under which the mean over labels stands."""

TOLERANCE_MM = 1.0
"""Tolerance of the NSD, unless another is given."""

# Spacings come from affines stored with few digits: 1 mm may arrive as 1.0000001 mm, and a
# distance of one voxel must still be within a tolerance of 1 mm.
_SLACK_MM = 1e-4

Box = tuple[slice, ...]
Distances = npt.NDArray[np.float32]


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
    dice=math.nan,
    iou=math.nan,
    hd95=math.nan,
    nsd=math.nan,
    volume_error_ml=math.nan,
    volume_error_percent=math.nan,
    reference_ml=0.0,
    predicted_ml=0.0,
    missed=False,
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
        return {
            name: getattr(scores, metric)
            for name, scores in self.labels.items()
        }

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the labels that have one; NaN if none has."""
        return mean_without_nan(list(self["dice"].values()))


@dataclass(frozen=True, slots=True)
class _Scale:
    """What turns voxels into mm and ml.

    Attributes:
        spacing: Of the axes that are scored, in mm.
        tolerance_mm: Of the NSD.
        penalty_mm: The HD95 of a label that only one side holds.
        voxel_ml: Volume of a voxel.
    """

    spacing: tuple[float, ...]
    tolerance_mm: float
    penalty_mm: float
    voxel_ml: float


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
        reference: Label indices on the same grid, same shape; ``labels.ignore_index`` where a
            voxel must not count.
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

    Examples:
        >>> import numpy as np
        >>> from medseg.labels import Label, LabelSet
        >>> labels = LabelSet([Label(1, "liver", 1, (255, 0, 0))])
        >>> reference = np.zeros((8, 8, 8), int)
        >>> reference[2:6, 2:6, 2:6] = 1
        >>> scores = score_case(np.roll(reference, 1, axis=0), reference, labels, (1, 1, 1))
        >>> scores["dice"], scores["hd95"]
        ({'liver': 0.75}, {'liver': 1.0})
    """
    predicted, expected = _as_indices(prediction), _as_indices(reference)
    _check_shapes(predicted.shape, expected.shape)
    _check_lengths(spacing, tolerance_mm)
    predicted, expected = clear_ignored(predicted, expected, labels)
    if voxel_ml is None:
        voxel_ml = math.prod(spacing) / 1000.0
    axes = _extended_axes(expected.shape)
    flat_axes = tuple({0, 1, 2} - set(axes))
    predicted = predicted.squeeze(flat_axes)
    expected = expected.squeeze(flat_axes)
    extended_spacing = tuple(spacing[axis] for axis in axes)
    scale = _Scale(
        spacing=extended_spacing,
        tolerance_mm=tolerance_mm,
        penalty_mm=_diagonal(expected.shape, extended_spacing),
        voxel_ml=voxel_ml,
    )
    boxes = _find_boxes(predicted, expected, len(labels))
    scores = {}
    for region in labels.regions:
        box = _join_boxes([boxes[index - 1] for index in region.labels])
        if box is None:
            scores[region.name] = ABSENT
            continue
        predicted_mask = extract_region(predicted[box], region)
        expected_mask = extract_region(expected[box], region)
        scores[region.name] = _score_label(predicted_mask, expected_mask, scale)
    return CaseScores(scores, case)


def score_dice(
    prediction: Any, reference: Any, labels: LabelSet
) -> dict[str, float]:
    """Return label name → Dice as ``score_case`` computes it, without the slow surface distances.

    Args:
        prediction: Label indices, shape ``(i, j, k)``; a NumPy array or a torch tensor.
        reference: Label indices on the same grid, same shape; ``labels.ignore_index`` where a
            voxel must not count.
        labels: The labels, or their regions, to score; voxels with other values count as
            background.

    Returns:
        0 to 1; NaN for a label that neither array holds.

    Raises:
        ValueError: If the shapes differ or are not 3D, or an array holds fractions.
    """
    predicted, expected = _as_indices(prediction), _as_indices(reference)
    _check_shapes(predicted.shape, expected.shape)
    predicted, expected = clear_ignored(predicted, expected, labels)
    confusion = count_confusion(
        _clear_others(predicted, labels),
        _clear_others(expected, labels),
        labels.classes,
    )
    return dice_from_confusion(confusion, labels)


def mean_without_nan(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if none is."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return math.nan
    return math.fsum(known) / len(known)


def _as_indices(labels: Any) -> Array:
    import_monai()
    from monai.utils import convert_to_numpy

    array = np.asarray(convert_to_numpy(labels))
    if array.dtype.kind in "iu":
        return array
    whole = array.astype(np.int32)
    if not np.array_equal(whole, array):
        raise ValueError(
            "label indices must be whole numbers; take the argmax of probabilities"
        )
    return whole


def _clear_others(array: Array, labels: LabelSet) -> Array:
    """Return indices with background where they are of no label."""
    is_label = (array > 0) & (array <= len(labels))
    return np.where(is_label, array, 0)


def _check_shapes(
    predicted: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    if len(predicted) != 3 or predicted != expected:
        raise ValueError(
            "prediction and reference must have one shape (i, j, k), "
            f"got {predicted} and {expected}"
        )


def _check_lengths(
    spacing: tuple[float, float, float], tolerance_mm: float
) -> None:
    if len(spacing) != 3 or not all(0 < size < math.inf for size in spacing):
        raise ValueError(
            f"spacing must be three positive numbers in mm, got {spacing}"
        )
    if not 0 <= tolerance_mm < math.inf:
        raise ValueError(f"tolerance_mm must be 0 or more, got {tolerance_mm}")


def _extended_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes along which there is more than one voxel; at least one axis."""
    axes = tuple(axis for axis, size in enumerate(shape) if size > 1)
    return axes or (0,)


def _diagonal(shape: tuple[int, ...], spacing: tuple[float, ...]) -> float:
    """Return the length of an image's diagonal, in mm."""
    sides = np.multiply(shape, spacing)
    return math.hypot(*sides.tolist())


def _find_boxes(
    prediction: Array, reference: Array, count: int
) -> list[Box | None]:
    """Return for each label the box around it in both arrays, or None where it is in neither.

    The surface of a mask in its tight box is its surface in the image, because everything
    outside the box is outside the mask.
    """
    predicted = _find_boxes_of_labels(prediction, count)
    expected = _find_boxes_of_labels(reference, count)
    return [_join_boxes(pair) for pair in zip(predicted, expected, strict=True)]


def _find_boxes_of_labels(labels: Array, count: int) -> list[Box | None]:
    """Return for each label up to ``count`` the box around it, or None where it is not there."""
    from scipy.ndimage import find_objects

    # It goes along the last axis, and most label maps lie in memory along the first.
    is_last_fastest = labels.flags.c_contiguous
    in_order = labels if is_last_fastest else labels.T
    boxes: list[Box | None] = find_objects(in_order, max_label=count)
    if is_last_fastest:
        return boxes
    return [None if box is None else box[::-1] for box in boxes]


def _join_boxes(boxes: Sequence[Box | None]) -> Box | None:
    """Return the box around some boxes; ``None`` if there is none."""
    known = [box for box in boxes if box is not None]
    if not known:
        return None
    joined = []
    for slices in zip(*known, strict=True):
        start = min(side.start for side in slices)
        stop = max(side.stop for side in slices)
        joined.append(slice(start, stop))
    return tuple(joined)


def _score_label(
    prediction: Mask, reference: Mask, scale: _Scale
) -> LabelScores:
    """Score two masks of which at least one is not empty."""
    predicted, expected = int(prediction.sum()), int(reference.sum())
    common = int((prediction & reference).sum())
    difference = predicted - expected
    is_missed = predicted == 0 or expected == 0
    hd95, nsd = scale.penalty_mm, 0.0
    if not is_missed:
        hd95, nsd = _score_surfaces(prediction, reference, scale)
    return LabelScores(
        dice=2 * common / (predicted + expected),
        iou=common / (predicted + expected - common),
        hd95=hd95,
        nsd=nsd,
        volume_error_ml=difference * scale.voxel_ml,
        volume_error_percent=100 * difference / expected
        if expected
        else math.nan,
        reference_ml=expected * scale.voxel_ml,
        predicted_ml=predicted * scale.voxel_ml,
        missed=is_missed,
    )


def _score_surfaces(
    prediction: Mask, reference: Mask, scale: _Scale
) -> tuple[float, float]:
    """Return HD95 in mm and NSD of two masks that are not empty."""
    directed = _surface_distances(prediction, reference, scale.spacing)
    hd95 = max(float(np.percentile(distances, 95)) for distances in directed)
    is_close = np.concatenate(directed) <= scale.tolerance_mm + _SLACK_MM
    return hd95, float(np.mean(is_close))


def _surface_distances(
    prediction: Mask, reference: Mask, spacing: tuple[float, ...]
) -> tuple[Distances, Distances]:
    """Return, for each surface voxel, the distance in mm to the other surface, both ways."""
    import_monai()
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    predicted, expected = get_mask_edges(prediction, reference, crop=False)
    there = get_surface_distance(predicted, expected, spacing=spacing)
    back = get_surface_distance(expected, predicted, spacing=spacing)
    return np.asarray(there), np.asarray(back)
