"""Made-up fingerprints of data sets."""

from __future__ import annotations

import numpy as np

from medseg.planning.constraints import Constraints
from medseg.planning.fingerprint import (
    QUANTILES,
    CaseFingerprint,
    ChannelStatistics,
    Fingerprint,
    LabelStatistics,
)

CPU = Constraints(dims=None, on_gpu=False, memory_gb=8)
GPU = Constraints(dims=None, on_gpu=True, memory_gb=10)


def channel(
    low: float = 0, high: float = 100, highest: float = 100
) -> ChannelStatistics:
    """A channel whose foreground has every intensity between two equally often."""
    values = tuple(
        np.quantile(np.linspace(low, high, 1000), QUANTILES).tolist()
    )
    return ChannelStatistics(low, highest, high, values)


def case(
    shape: tuple[int, int, int] = (60, 60, 60),
    spacing: tuple[float, float, float] = (1, 1, 1),
    nonzero_share: float = 1.0,
    voxels: int = 8000,
    **intensities: float,
) -> CaseFingerprint:
    """A case with one label of so many voxels."""
    label = LabelStatistics(1, voxels, 1)
    return CaseFingerprint(
        shape, spacing, (channel(**intensities),), (label,), nonzero_share
    )


def fingerprint_of(*cases: CaseFingerprint) -> Fingerprint:
    return Fingerprint(cases, ())


def fingerprint_of_values(*values: int) -> Fingerprint:
    """One case with labels of these values."""
    labels = tuple(LabelStatistics(value, 3, 1) for value in values)
    return fingerprint_of(
        CaseFingerprint((4, 4, 4), (1, 1, 1), (channel(),), labels, 1.0)
    )
