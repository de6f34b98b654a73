"""nnU-Net's plans files are read in both forms, and refused where they contradict themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.nnunet_plans import (
    CT,
    a_plan,
    architecture,
    changed,
    convert,
    flat_form,
    written,
)

from medseg.bundle.bundle import parse_spec
from medseg.errors import DatasetError
from medseg.planning import (
    is_nnunet_plans,
    read_nnunet_plans,
)


def test_both_forms_of_plans_say_the_same(tmp_path: Path) -> None:
    new, old = (
        written(tmp_path / "new", a_plan()),
        written(tmp_path / "old", flat_form(a_plan())),
    )
    for dims in (2, 3):
        assert convert(new, dims) == convert(old, dims)


def test_transposed_axes_are_named_as_the_network_sees_them(
    tmp_path: Path,
) -> None:
    # Stored (z, y, x); y was the coarse axis, so nnU-Net put it first.
    plans = a_plan(transpose_forward=[1, 0, 2], transpose_backward=[1, 0, 2])
    file = written(tmp_path, plans)
    spec = parse_spec(convert(file).content, "the bundle")
    assert spec.preprocessing.axes == "jki"
    assert spec.preprocessing.spacing_mm == (3.0, 0.7, 0.8)
    assert spec.training.patch == (16, 64, 48)
    flat = parse_spec(convert(file, dims=2).content, "the bundle")
    assert flat.preprocessing.axes == "kij"  # slices across the last


def test_plans_are_known_by_their_content(tmp_path: Path) -> None:
    assert is_nnunet_plans(written(tmp_path, a_plan()))
    assert not is_nnunet_plans(tmp_path / "dataset.json")
    assert not is_nnunet_plans(tmp_path)


@pytest.mark.parametrize(
    ("plans", "said"),
    [
        (a_plan(configurations={"2d": {}}), "configurations.2d.batch_size"),
        (a_plan(configurations={}), "has no configuration '2d'"),
        (a_plan(transpose_forward=[0, 0, 1]), "transpose_forward"),
        (changed(spacing=[1.0, 1.0]), "spacing: has 2 axes"),
        (changed(patch_size=[16, 64]), "does not fit the configuration"),
        (changed(batch_size="many"), "batch_size"),
        (changed(inherits_from="3d_fullres"), "in a circle"),
        (changed(inherits_from=["2d"]), "a configuration is missing"),
        (
            changed(architecture=architecture(3, strides=[1, 2, 2])),
            "has 4 levels, the strides 3",
        ),
        (
            changed(architecture=architecture(3, strides=[1, 2])),
            "medseg needs 3 or more",
        ),
        (
            changed(normalization_schemes=["CTNormalization"] * 2),
            "normalise 2 channels",
        ),
        (
            a_plan(foreground_intensity_properties_per_channel={}),
            "says nothing about it",
        ),
        (
            a_plan(
                foreground_intensity_properties_per_channel={
                    "0": CT | {"std": 0}
                }
            ),
            "same intensity everywhere",
        ),
    ],
)
def test_plans_that_make_no_sense_are_refused(
    tmp_path: Path, plans: dict[str, Any], said: str
) -> None:
    with pytest.raises(DatasetError, match=said):
        convert(written(tmp_path, plans))


def test_a_configuration_overrides_what_it_inherits(tmp_path: Path) -> None:
    plans = a_plan()
    configurations = plans["configurations"]
    configurations["base"] = configurations["3d_fullres"] | {
        "batch_size": 9,
        "batch_dice": True,
    }
    configurations["3d_fullres"] = {"inherits_from": "base", "batch_size": 3}
    configuration = read_nnunet_plans(written(tmp_path, plans), 3).configuration
    assert (configuration.batch_size, configuration.batch_dice) == (3, True)
