"""The fingerprint of a data set: sizes, spacings, intensities and labels of its cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.datasets.measures import CaseMeasures
from medseg.errors import Fault

QUANTILES = np.linspace(0, 1, 201)
"""At which the foreground's intensities are kept."""


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """Intensities of one channel of one case.

    Attributes:
        minimum: Of all voxels, but for padding.
        maximum: Of the same.
        percentile_99_5: Of the same.
        foreground: Quantiles of the labelled voxels, at ``QUANTILES``; empty without labels.
    """

    minimum: float
    maximum: float
    percentile_99_5: float
    foreground: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LabelStatistics:
    """One label value of one case.

    Attributes:
        value: In the label file; in colour-coded ones, its first colour packed into a number.
        voxels: How many have it.
        components: Connected components; voxels that share a corner are connected.
    """

    value: int
    voxels: int
    components: int


@dataclass(frozen=True, slots=True)
class CaseFingerprint:
    """One case, its axes reordered to right, anterior, superior.

    Attributes:
        shape: Voxels along right, anterior and superior.
        spacing: Voxel size in mm along the same.
        channels: Each channel.
        labels: Each label value that occurs, background left out.
        nonzero_share: Share of the image in the bounding box of its non-zero voxels; 1 where
            labels lie outside it.
        warnings: What the readers of its image and its label map noticed.
        measures: What it is compared with the other cases by.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    channels: tuple[ChannelStatistics, ...]
    labels: tuple[LabelStatistics, ...]
    nonzero_share: float
    warnings: tuple[str, ...] = ()
    measures: CaseMeasures | None = None

    @property
    def voxels(self) -> int:
        """Of the image."""
        return math.prod(self.shape)

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing))

    @property
    def extent_mm(self) -> npt.NDArray[np.float64]:
        """Size of the image along right, anterior and superior."""
        return np.multiply(self.shape, self.spacing)

    def find_label(self, value: int) -> LabelStatistics | None:
        """Return the statistics of a label; ``None`` if the case does not have it."""
        for label in self.labels:
            if label.value == value:
                return label
        return None


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The fingerprint of a data set.

    Attributes:
        cases: Those that can be used.
        faults: Why the others cannot.
        warnings: What the readers of the cases' files noticed, with the cases' names. Shown and
            never recorded.
        names: Of the cases. Never recorded.
        apart: Names of the cases that lie apart from the others in voxel size or intensities:
            sizes and intensities are those of the others.
    """

    cases: tuple[CaseFingerprint, ...]
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    apart: frozenset[str] = frozenset()

    @property
    def typical(self) -> tuple[CaseFingerprint, ...]:
        """The cases that do not lie apart from the others."""
        if not self.apart:
            return self.cases
        by_name = zip(self.names, self.cases, strict=True)
        return tuple(case for name, case in by_name if name not in self.apart)

    @property
    def spacings(self) -> npt.NDArray[np.float64]:
        """Of the typical cases, shape ``(cases, 3)``, in mm."""
        return np.array([case.spacing for case in self.typical])

    @property
    def channel_count(self) -> int:
        """How many channels each case has."""
        return len(self.cases[0].channels)

    @property
    def label_values(self) -> tuple[int, ...]:
        """Every label value that occurs, in order."""
        values: set[int] = set()
        for case in self.cases:
            values.update(label.value for label in case.labels)
        return tuple(sorted(values))

    def find_label_statistics(self, value: int) -> list[LabelStatistics]:
        """Return the statistics of a label in each case that has it."""
        statistics = []
        for case in self.cases:
            label = case.find_label(value)
            if label is not None:
                statistics.append(label)
        return statistics

    def list_label_volumes_mm3(self, value: int) -> list[float]:
        """Return the volume of a label in each typical case that has it, or else in any."""
        having = [case for case in self.typical if case.find_label(value)]
        volumes = []
        for case in having or self.cases:
            label = case.find_label(value)
            if label is not None:
                volumes.append(label.voxels * case.voxel_mm3)
        return volumes

    def collect_foreground_intensities(
        self, channel: int
    ) -> npt.NDArray[np.float64]:
        """Return a channel's intensities inside the labels, equally many of each typical case."""
        intensities: list[float] = []
        for case in self.typical:
            intensities.extend(case.channels[channel].foreground)
        return np.array(intensities)

    def compute_shapes_at(
        self, spacing: Sequence[float]
    ) -> npt.NDArray[np.float64]:
        """Return each typical case's size in voxels of another spacing, ``(cases, 3)``."""
        shapes = [case.extent_mm / spacing for case in self.typical]
        return np.array(shapes)
