"""What is measured of a case to compare it with the others: voxel size, extent, values, volumes.

``check`` and ``train`` measure label indices, ``plan`` the values in the label files; ``outliers``
compares either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from medseg.datasets.intensity_checks import sample_voxels
from medseg.datasets.intensity_measures import measure_intensities
from medseg.datasets.label_measures import count_pieces, list_faces
from medseg.metrics.label_summary import summarise_labels
from medseg.volume import Array, Volume

Sizes = tuple[float, ...]
"""In mm, along right, anterior and superior."""

_QUANTILES = (0.005, 0.995)
_MOST_SAMPLES = 200_000
"""Labelled voxels looked at for their intensities."""
_FEWEST_SAMPLES = 10
"""Fewer say nothing of a label's intensity."""
_MOST_COUNTED = 1 << 16
"""Values below are counted in a table."""


@dataclass(frozen=True, slots=True)
class LabelMeasures:
    """What is measured of one label of a case.

    Attributes:
        label: Its index or value.
        volume_ml: In millilitres.
        is_cut: Whether it touches the border of the image, so that part of it may lie outside.
        medians: Of its intensities in each channel; nothing where it has too few voxels.
        pieces: Its connected components worth counting; 0 where nobody counted.
    """

    label: int
    volume_ml: float
    is_cut: bool
    medians: tuple[float, ...]
    pieces: int = 0


@dataclass(frozen=True, slots=True)
class CaseMeasures:
    """What is measured of a case to compare it with the others.

    Attributes:
        spacing: Voxel size.
        extent: Size of the image.
        ranges: Of each channel, its 0.5 % and its 99.5 % quantile.
        labels: Of each label in the case.
        intensities: Of each channel, as ``measure_intensities`` returns them.
        regions: Regions of the body that its header names.
        is_single_slice: Whether the image has one voxel along an axis.
    """

    spacing: Sizes
    extent: Sizes
    ranges: tuple[tuple[float, float], ...] = ()
    labels: tuple[LabelMeasures, ...] = ()
    intensities: tuple[Mapping[str, float], ...] = ()
    regions: tuple[str, ...] = ()
    is_single_slice: bool = False

    @property
    def present(self) -> frozenset[int]:
        """The labels in the case."""
        return frozenset(each.label for each in self.labels)

    def find_label(self, label: int) -> LabelMeasures | None:
        """Return what is measured of a label; ``None`` if the case does not have it."""
        for each in self.labels:
            if each.label == label:
                return each
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON knows it."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return what ``to_json`` wrote.

        Raises:
            LookupError: If a field is missing.
            TypeError: If one is of another kind.
            ValueError: If one has other parts.
        """
        labels = []
        for fields in content["labels"]:
            medians = tuple(fields["medians"])
            label = LabelMeasures(**{**fields, "medians": medians})
            labels.append(label)
        ranges = []
        for low, high in content["ranges"]:
            ranges.append((low, high))
        return cls(
            spacing=tuple(content["spacing"]),
            extent=tuple(content["extent"]),
            ranges=tuple(ranges),
            labels=tuple(labels),
            intensities=tuple(content.get("intensities", ())),
            regions=tuple(content.get("regions", ())),
            is_single_slice=content.get("is_single_slice", False),
        )


def measure_scan(image: Volume) -> CaseMeasures:
    """Measure a scan that has no labels yet, as far as results are compared by it.

    Args:
        image: Shape ``(channels, i, j, k)``.
    """
    spacing, extent = measure_grid(image)
    intensities = []
    for channel in range(len(image.array)):
        shown = image.get_shown(channel)
        voxels = image.array[channel]
        intensities.append(measure_intensities(shown, voxels))
    return CaseMeasures(
        spacing,
        extent,
        intensities=tuple(intensities),
        regions=image.regions,
        is_single_slice=min(image.shape) == 1,
    )


def measure_training_case(
    image: Volume, labels: Array, classes: int
) -> CaseMeasures:
    """Measure a case that a bundle learns from or is validated on: all that can be measured.

    Args:
        image: Shape ``(channels, i, j, k)``.
        labels: Label indices ``(i, j, k)`` on its grid, 0 for what is not annotated.
        classes: The highest index.
    """
    measures = measure_case(image, labels)
    of_scan = measure_scan(image)
    pieces = count_pieces(summarise_labels(labels, classes + 1))
    counted = []
    for each in measures.labels:
        counted.append(replace(each, pieces=pieces.get(each.label, 0)))
    return replace(of_scan, ranges=measures.ranges, labels=tuple(counted))


def measure_case(image: Volume, labels: Array) -> CaseMeasures:
    """Measure a case.

    Args:
        image: Shape ``(channels, i, j, k)``.
        labels: Label indices or values ``(i, j, k)`` on its grid, 0 for background and for what
            is not annotated.
    """
    spacing, extent = measure_grid(image)
    ranges = []
    for channel in range(len(image.array)):
        shown = image.get_shown(channel)
        ranges.append(_measure_range(shown))
    return CaseMeasures(
        spacing,
        extent,
        tuple(ranges),
        tuple(_measure_labels(image, labels)),
    )


def measure_grid(image: Volume) -> tuple[Sizes, Sizes]:
    """Return voxel size and extent."""
    import nibabel as nib

    orientation = nib.orientations.io_orientation(image.affine)
    # Of each voxel axis, along which axis of the patient it runs.
    patient_axes = orientation[:, 0]
    order = np.argsort(patient_axes)
    spacing = np.take(image.spacing, order)
    shape = np.take(image.shape, order)
    extent = spacing * shape
    return (
        tuple(spacing.tolist()),
        tuple(extent.tolist()),
    )


def _measure_range(channel: Array) -> tuple[float, float]:
    sample = sample_voxels(channel)
    low, high = np.quantile(sample, _QUANTILES)
    if low == high:  # nearly all is background
        low = channel.min()
        high = channel.max()
    return (
        float(low),
        float(high),
    )


def _measure_labels(image: Volume, labels: Array) -> list[LabelMeasures]:
    flat = labels.ravel(order="F")
    positions = np.flatnonzero(flat)
    counts = _count(flat[positions])
    cut = _find_cut(labels)
    step = len(positions) // _MOST_SAMPLES | 1
    sampled = np.unravel_index(
        positions[::step],
        labels.shape,
        order="F",
    )
    values = labels[sampled]
    channels = [channel[sampled] for channel in image.array]
    is_padding = np.zeros(len(values), bool)
    if image.padding:
        for channel in range(len(channels)):
            is_padding |= image.padding.get_channel(channel)[sampled]
    measured = []
    for label, count in counts.items():
        of_label = LabelMeasures(
            label,
            count * image.voxel_ml,
            label in cut,
            _find_medians(channels, (values == label) & ~is_padding),
        )
        measured.append(of_label)
    return measured


def _count(values: Array) -> dict[int, int]:
    """Return value → how many there are; nothing is 0."""
    if not values.size:
        return {}
    if values.max() < _MOST_COUNTED:
        table = np.bincount(values)
        present = np.flatnonzero(table)
        counts = table[present]
    else:
        present, counts = np.unique(values, return_counts=True)
    pairs = zip(
        present.tolist(),
        counts.tolist(),
        strict=True,
    )
    return dict(pairs)


def _find_medians(
    channels: Sequence[Array],
    inside: Array,
) -> tuple[float, ...]:
    """Return the median in each channel of the voxels inside; nothing of too few."""
    if np.count_nonzero(inside) < _FEWEST_SAMPLES:
        return ()
    medians = []
    for channel in channels:
        median = np.median(channel[inside])
        medians.append(float(median))
    return tuple(medians)


def _find_cut(labels: Array) -> frozenset[int]:
    """Return the labels on a face of the image, along axes of more than one voxel."""
    found: set[int] = set()
    for face in list_faces(labels):
        values = np.unique(face)
        found.update(values.tolist())
    return frozenset(found - {0})
