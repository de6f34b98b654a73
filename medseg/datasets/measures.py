"""What is measured of a case to compare it with the others: voxel size, extent, values, volumes.

``check`` and ``train`` measure label indices, ``plan`` the values in the label files; ``outliers``
compares either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medseg.datasets.input_checks import sample_voxels
from medseg.volume import Array, Volume

_LOW, _HIGH = 0.005, 0.995
_MOST_SAMPLES = 200_000
"""Labelled voxels looked at for their intensities."""
_FEWEST_SAMPLES = 10
"""Fewer say nothing of a label's intensity."""
_MOST_COUNTED = 1 << 16
"""Values below are counted in a table."""


@dataclass(frozen=True, slots=True)
class CaseMeasures:
    """What is measured of a case to compare it with the others.

    Attributes:
        spacing: Voxel size in mm along right, anterior and superior.
        extent: Size of the image in mm along the same.
        ranges: Of each channel, its 0.5 % and its 99.5 % quantile.
        medians: Of each channel, label → median intensity of its voxels.
        volumes_ml: Label → millilitres, of the labels in the case.
        cut: Labels that touch the border of the image, so that part of them may lie outside.
    """

    spacing: tuple[float, ...]
    extent: tuple[float, ...]
    ranges: tuple[tuple[float, float], ...] = ()
    medians: tuple[Mapping[int, float], ...] = ()
    volumes_ml: Mapping[int, float] = field(default_factory=dict)
    cut: frozenset[int] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON knows it."""
        return {
            "spacing": self.spacing,
            "extent": self.extent,
            "ranges": self.ranges,
            "medians": [list(each.items()) for each in self.medians],
            "volumes_ml": list(self.volumes_ml.items()),
            "cut": sorted(self.cut),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return what ``to_json`` wrote.

        Raises:
            LookupError: If a field is missing.
            TypeError: If one is of another kind, or ``ValueError``.
        """
        return cls(
            spacing=tuple(content["spacing"]),
            extent=tuple(content["extent"]),
            ranges=tuple((low, high) for low, high in content["ranges"]),
            medians=tuple(dict(pairs) for pairs in content["medians"]),
            volumes_ml=dict(content["volumes_ml"]),
            cut=frozenset(content["cut"]),
        )


def measure_case(image: Volume, labels: Array) -> CaseMeasures:
    """Measure a case.

    Args:
        image: Shape ``(channels, i, j, k)``.
        labels: Label indices or values ``(i, j, k)`` on its grid, 0 for background and for what
            is not annotated.
    """
    spacing, extent = measure_grid(image)
    flat = labels.ravel(order="F")
    positions = np.flatnonzero(flat)
    counts = _count(flat[positions])
    sampled = positions[:: len(positions) // _MOST_SAMPLES | 1]
    indices = np.unravel_index(sampled, labels.shape, order="F")
    values = labels[indices]
    volumes_ml = {
        label: count * image.voxel_ml for label, count in counts.items()
    }
    medians = []
    for channel in image.array:
        of_labels = dict(_find_medians(channel[indices], values, list(counts)))
        medians.append(of_labels)
    return CaseMeasures(
        spacing=spacing,
        extent=extent,
        ranges=tuple(_measure_range(channel) for channel in image.array),
        medians=tuple(medians),
        volumes_ml=volumes_ml,
        cut=_find_cut(labels),
    )


def measure_grid(
    image: Volume,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return voxel size and extent in mm along right, anterior and superior."""
    orientation = nib.orientations.io_orientation(image.affine)
    # Of each voxel axis, along which axis of the patient it runs.
    order = np.argsort(orientation[:, 0])
    spacing = np.array(image.spacing)[order]
    extent = spacing * np.array(image.shape)[order]
    return tuple(spacing.tolist()), tuple(extent.tolist())


def _count(values: Array) -> dict[int, int]:
    """Return value → how many there are; nothing is 0."""
    if not values.size:
        return {}
    if values.max() >= _MOST_COUNTED:
        found, counts = np.unique(values, return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))
    table = np.bincount(values)
    present = np.flatnonzero(table)
    return dict(zip(present.tolist(), table[present].tolist(), strict=True))


def _find_medians(
    intensities: Array, labels: Array, present: Sequence[int]
) -> Iterator[tuple[int, float]]:
    """Yield label and median of its intensities, for labels with enough of them."""
    for label in present:
        own = intensities[labels == label]
        if own.size >= _FEWEST_SAMPLES:
            yield label, float(np.median(own))


def _measure_range(channel: Array) -> tuple[float, float]:
    sample = sample_voxels(channel)
    low, high = np.quantile(sample, (_LOW, _HIGH)).tolist()
    if low < high:
        return low, high
    # Nearly all is background.
    return float(channel.min()), float(channel.max())


def _find_cut(labels: Array) -> frozenset[int]:
    """Return the labels on a face of the image, along axes of more than one voxel."""
    found: set[int] = set()
    for axis in range(labels.ndim):
        if labels.shape[axis] < 2:
            continue
        for end in (0, -1):
            face: npt.NDArray[Any] = np.unique(labels.take(end, axis))
            found.update(face.tolist())
    return frozenset(found - {0})
