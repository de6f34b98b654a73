"""What a training run found is data, and is checked as strictly as the bundle."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from medseg.bundle.reading import parse_trained
from medseg.bundle.spec import CalibrationSpec, TrainedSpec
from medseg.errors import BundleError


@pytest.mark.parametrize(
    "name",
    [
        "../model.pt",
        "sub/model.pt",
        "/model.pt",
        "..pt",
        "model.pkl",
        "model.pt\n",
        "Model.pt",
        "",
    ],
)
def test_weights_lie_beside_the_file_that_names_them(name: str) -> None:
    with pytest.raises(BundleError, match=r"members\.1"):
        parse_trained({"members": ["model.pt", name]})


def test_members_of_every_fold_have_names() -> None:
    names = tuple(f"fold_{number}.pt" for number in range(5))
    assert parse_trained({"members": names}).members == names


@pytest.mark.parametrize(
    "knots",
    [
        {"scores": (0.1, 0.5, 0.9), "dice": (0.2, 0.8, 0.7)},  # falls
        {"scores": (0.1, 0.1, 0.9), "dice": (0.2, 0.5, 0.7)},  # stands still
        {"scores": (0.9, 0.1), "dice": (0.2, 0.7)},  # runs back
        {"scores": (0.1, 0.9), "dice": (0.2, 0.5, 0.7)},  # one too many
    ],
)
def test_a_calibration_rises(knots: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="knot"):
        CalibrationSpec(margin=0.1, cases=8, **knots)


def test_a_calibration_may_be_flat() -> None:
    flat = CalibrationSpec(
        scores=(0.1, 0.9), dice=(0.5, 0.5), margin=0.1, cases=8
    )
    assert flat.dice == (0.5, 0.5)


def test_without_a_file_one_network_is_expected() -> None:
    assert TrainedSpec().members == ("model.pt",)
