"""How many windows a scan takes is known before the network sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg import Segmenter
from medseg.inference.time_estimate import count_windows
from medseg.volume import Volume


@pytest.mark.parametrize(
    ("crop_on", "counts"), [("scan", [1, 1]), ("input", [1, 1]), ("", [8, 27])]
)
def test_windows_are_counted_within_the_box_that_is_looked_at(
    crop_on: str, counts: list[int], untrained_bundle: Callable[..., Path]
) -> None:
    prep = {"spacing_mm": [2.0, 2.0, 2.0], "intensity": "zscore"}
    if crop_on:
        prep |= {"crop_above": 0.0, "crop_on": crop_on}
    segmenter = Segmenter(untrained_bundle(preprocessing=prep), "cpu")
    array = np.full((1, 28, 28, 28), -100, np.float32)
    array[0, 9:17, 8:18, 7:16] = 300
    volume = Volume(array, np.diag([2.0, 2.0, 2.0, 1.0]))
    assert count_windows(segmenter, volume, [0.25, 0.5]) == counts
