"""What is measured of a channel's intensities, to tell whether scans are alike.

CT has a unit: how much of a scan is air, and the HU of the rest. Other scans have none, so what is
compared is the form of their histogram: where quantiles lie between the darkest and the brightest
voxels, which no scale and no shift changes.
"""

from __future__ import annotations

import numpy as np

from medseg.datasets.intensity_checks import sample_channel
from medseg.volume import Array

AIR = "air"
"""Share of the voxels that are air, where values are HU."""

_TISSUE_HU = -500.0
_TISSUE_QUANTILES = {"dark": 0.05, "median": 0.5, "bright": 0.95}
_ENDS = (0.005, 0.995)
_FORM_QUANTILES = {"form 5 %": 0.05, "form 50 %": 0.5, "form 95 %": 0.95}

OF_CT = (AIR, *_TISSUE_QUANTILES)
"""Measures of a channel in HU."""
OF_OTHERS = tuple(_FORM_QUANTILES)
"""Measures of any other channel, 0 for its darkest voxels and 1 for its brightest."""


def measure_intensities(shown: Array, voxels: Array) -> dict[str, float]:
    """Measure a channel, as if it were CT and as if it were not.

    Args:
        shown: Intensities as read, of the voxels that show something; any shape.
        voxels: Of all voxels. Padding of CT is air, as it is in copies that know of no padding.

    Returns:
        Measure → value; a measure that cannot be taken is left out.
    """
    of_shown, of_all = sample_channel(shown, voxels)
    sample = of_shown.astype(np.float32, copy=False)
    measures: dict[str, float] = {}
    if not sample.size:
        return measures
    denser = np.count_nonzero(of_all > _TISSUE_HU)
    measures[AIR] = 1 - denser / of_all.size
    tissue = sample[sample > _TISSUE_HU]
    if tissue.size:
        values = np.quantile(tissue, list(_TISSUE_QUANTILES.values()))
        measures |= dict(zip(_TISSUE_QUANTILES, values.tolist(), strict=True))
    quantiles = np.quantile(sample, [*_ENDS, *_FORM_QUANTILES.values()])
    low, high, *inner = quantiles.tolist()
    if low < high:
        for name, value in zip(_FORM_QUANTILES, inner, strict=True):
            measures[name] = (value - low) / (high - low)
    return measures
