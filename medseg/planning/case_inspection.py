"""Measures one case of a data set: its sizes, its intensities, its labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.datasets.cases import Case, Scan
from medseg.datasets.intensity_checks import refuse_constant
from medseg.datasets.label_encoding import (
    describe_label_warnings,
    encode_mask,
)
from medseg.datasets.label_recognition import (
    FEWEST_GREYS,
    refuse_grey_values,
)
from medseg.datasets.mask_codes import pack
from medseg.datasets.measures import measure_case
from medseg.errors import ScanError
from medseg.io import read_image, stack_channels
from medseg.labels import LabelSet
from medseg.planning.fingerprint import (
    QUANTILES,
    CaseFingerprint,
    ChannelStatistics,
    LabelStatistics,
)
from medseg.volume import Array, Volume

MAX_LABEL_VALUES = 1000
"""A file with more different values is not a label map."""

_MAX_LISTED_VALUE = 65535
_MAX_SAMPLES = 1_000_000
"""Voxels sampled per channel: a quantile needs no more."""


def inspect_case(
    case: Case, ignore: int | None = None, labels: LabelSet | None = None
) -> CaseFingerprint:
    """Open a case and measure it.

    Args:
        case: The case.
        ignore: The value of unlabelled voxels (the ignore label), which is not a label.
        labels: How label files show labels, where not each value is one.

    Raises:
        ScanError: If it cannot be read, it shows nothing, or image and label map do not lie on
            one grid.
    """
    image = _read_channels(case.scan)
    refuse_constant(image)
    label = case.read_label(image)
    if labels is None:
        measured = _measure_values(label, ignore)
    else:
        measured = _measure_encoded(label, labels)
    foreground = measured.indices > 0
    channels = [
        _measure_channel(image, channel, foreground)
        for channel in range(len(image.array))
    ]
    right, anterior, superior = _find_anatomical_axes(image)
    shape, spacing = image.shape, image.spacing
    return CaseFingerprint(
        shape=(shape[right], shape[anterior], shape[superior]),
        spacing=(spacing[right], spacing[anterior], spacing[superior]),
        channels=tuple(channels),
        labels=measured.labels,
        nonzero_share=_compute_nonzero_share(image, foreground),
        measures=measure_case(image, measured.indices),
        warnings=(*image.warnings, *measured.warnings),
    )


class _MeasuredLabels(NamedTuple):
    """Values or indices, 0 where nothing is labelled, ``(i, j, k)``; each label; what was odd."""

    indices: Array
    labels: tuple[LabelStatistics, ...]
    warnings: tuple[str, ...]


def _measure_values(label: Volume, ignore: int | None) -> _MeasuredLabels:
    """Measure each value as a label of its own."""
    values = _get_label_values(label)
    if ignore is not None:
        unlabelled = values == ignore
        values = np.where(unlabelled, 0, values).astype(values.dtype)
    statistics = tuple(_measure_labels(values))
    warnings = describe_label_warnings(label)
    return _MeasuredLabels(values, statistics, warnings)


def _measure_encoded(label: Volume, labels: LabelSet) -> _MeasuredLabels:
    """Measure the labels that values or colours mean."""
    encoded = encode_mask(label, labels)
    indices = encoded.indices
    if labels.ignore_index is not None:
        indices[indices == labels.ignore_index] = 0
    statistics = []
    for measured in _measure_labels(indices):
        meant = labels[measured.value - 1]
        key = pack(meant.colour) if labels.colour_coded else meant.value
        statistics.append(replace(measured, value=key))
    return _MeasuredLabels(indices, tuple(statistics), encoded.warnings)


def _read_channels(scan: Scan) -> Volume:
    channels = []
    for files in scan.parts:
        channel = read_image(files, volume=scan.volume)
        channels.append(channel)
    return stack_channels(channels)


def _find_anatomical_axes(image: Volume) -> list[int]:
    """Return the voxel axes that run along right, anterior and superior."""
    orientation = nib.orientations.io_orientation(image.affine)
    anatomical_axes = orientation[:, 0].astype(int)  # of each voxel axis
    voxel_axes: list[int] = np.argsort(anatomical_axes).tolist()
    return voxel_axes


def _get_label_values(label: Volume) -> Array:
    """Return the voxels of a label map, shape ``(i, j, k)``."""
    first: Array
    first, *others = label.array
    if any((first != other).any() for other in others):
        raise ScanError(
            "the label map is in colours, and nothing says what each means; if it is no "
            "photograph, name them with --labels, such as road=128,64,128"
        )
    return first


def _measure_channel(
    image: Volume, channel: int, foreground: npt.NDArray[np.bool_]
) -> ChannelStatistics:
    quantiles: list[float] = []
    if image.padding:
        foreground = foreground & ~image.padding.get_channel(channel)
    labelled = _sample(image.array[channel][foreground])
    if labelled.size:
        quantiles = np.quantile(labelled, QUANTILES).tolist()
    shown = image.get_shown(channel)
    sample = _sample(shown)
    return ChannelStatistics(
        minimum=float(shown.min()),
        maximum=float(shown.max()),
        percentile_99_5=float(np.quantile(sample, 0.995)),
        foreground=tuple(round(value, 6) for value in quantiles),
    )


def _sample(voxels: Array) -> Array:
    """Return every nth voxel of many."""
    step = max(1, voxels.size // _MAX_SAMPLES)
    return voxels[::step]


def _measure_labels(labels: Array) -> Iterator[LabelStatistics]:
    """Count the voxels and the connected components of each label."""
    values = np.unique(labels).tolist()
    if len(values) > MAX_LABEL_VALUES:
        raise ScanError(
            f"the label map holds {len(values)} different values; at most {MAX_LABEL_VALUES} are "
            "labels, more are intensities"
        )
    if len(values) >= FEWEST_GREYS:
        refuse_grey_values(labels)
    # SciPy's list of bounding boxes is as long as the largest value: too long for large values.
    boxes = None
    if values[-1] <= _MAX_LISTED_VALUE:
        boxes = ndimage.find_objects(labels)
    corners_touch = np.ones((3, 3, 3))
    for value in values:
        if value <= 0:
            continue
        part = labels if boxes is None else labels[boxes[value - 1]]
        mask = part == value
        _, components = ndimage.label(mask, structure=corners_touch)
        yield LabelStatistics(value, int(mask.sum()), int(components))


def _compute_nonzero_share(
    image: Volume, foreground: npt.NDArray[np.bool_]
) -> float:
    """Return the share of the image in the bounding box of what is not zero."""
    if image.array.min() < 0:
        return 1.0
    is_above: npt.NDArray[np.bool_] = image.array > 0
    if image.padding:
        is_above &= ~image.padding.get_mask()
    nonzero: npt.NDArray[np.bool_] = np.any(is_above, axis=0)
    box = _find_bounding_box(nonzero)
    if box is None:
        return 1.0
    labels_outside = foreground.sum() - foreground[box].sum()
    if labels_outside:
        return 1.0
    return float(nonzero[box].size / nonzero.size)


def _find_bounding_box(mask: npt.NDArray[np.bool_]) -> Any:
    """Return the slices of the smallest box around a mask; ``None`` if it is empty."""
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    return boxes[0] if boxes else None
