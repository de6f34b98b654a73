"""Windows of MONAI's configs say from which intensity on a voxel is foreground."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.interop.monai_config.config import Component, Config
from medseg.interop.monai_config.intensity import (
    describe_intensity,
    find_threshold,
)


@pytest.mark.parametrize(
    ("lowest", "clip", "threshold"),
    [(0.0, True, -100), (-1.0, True, 0), (0.5, False, -300), (0.5, True, None)],
)
def test_foreground_begins_where_a_window_becomes_positive(
    lowest: float, clip: bool, threshold: float | None
) -> None:
    bounds = {"a_min": -100, "a_max": 100, "b_min": lowest, "b_max": 1.0}
    component = Component(
        "ScaleIntensityRange",
        bounds | {"clip": clip},
        "preprocessing::transforms::2",
        Config({}, Path("x.json")),
    )
    fields = describe_intensity(component, 1)
    assert fields is not None
    assert find_threshold(fields) == threshold
