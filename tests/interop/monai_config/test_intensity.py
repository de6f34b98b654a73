"""Windows of MONAI's configs say from which intensity on a voxel is foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.transforms import ScaleIntensityRange

from medseg.bundle.spec.intensity import Window
from medseg.errors import MedsegError
from medseg.interop.monai_config.config import Component, Config
from medseg.interop.monai_config.intensity import (
    describe_intensity,
    find_threshold,
)


def scale(**arguments: Any) -> Component:
    return Component(
        "ScaleIntensityRange",
        {"a_min": -100.0, "a_max": 100.0, **arguments},
        "preprocessing::transforms::2",
        Config({}, Path("x.json")),
    )


@pytest.mark.parametrize("stated", [{}, {"b_min": None, "b_max": None}])
def test_a_range_without_bounds_is_scaled_to_0_and_1_and_not_clipped(
    stated: dict[str, Any],
) -> None:
    fields = describe_intensity(scale(**stated), 1)
    assert fields is not None
    window = Window.model_validate(fields)
    assert window.range == (0, 1)
    assert not window.clip
    image = torch.linspace(-300, 300, 7)
    theirs = ScaleIntensityRange(-100, 100)(image)
    mean, std = fields["mean"], fields["std"]
    assert torch.equal((image - mean) / std, theirs.as_tensor())


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        ({"clip": True}, "is needed where clip is true"),
        ({"b_max": 1.0}, "None is no number"),
    ],
)
def test_a_range_with_half_of_its_bounds_is_refused(
    stated: dict[str, Any], says: str
) -> None:
    with pytest.raises(MedsegError, match=says):
        describe_intensity(scale(**stated), 1)


@pytest.mark.parametrize(
    ("lowest", "clip", "threshold"),
    [(0.0, True, -100), (-1.0, True, 0), (0.5, False, -300), (0.5, True, None)],
)
def test_foreground_begins_where_a_window_becomes_positive(
    lowest: float, clip: bool, threshold: float | None
) -> None:
    component = scale(b_min=lowest, b_max=1.0, clip=clip)
    fields = describe_intensity(component, 1)
    assert fields is not None
    assert find_threshold(fields) == threshold
