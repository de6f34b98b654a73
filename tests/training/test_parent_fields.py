"""What a bundle leaves out is as in the trained bundle that it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.bundles import made_spec, write_json

from medseg.bundle.bundle import Bundle, load_bundle, parse_spec
from medseg.bundle.spec import BundleSpec, Window, ZScore
from medseg.errors import BundleError, MedsegError
from medseg.training.parent_fields import (
    add_parent_fields,
    replace_by_parent_fields,
)

CT, MR = {"name": "CT", "modality": "CT"}, {"name": "T1", "modality": "MR"}
PET = {"name": "PET", "modality": "PT"}
WINDOW = {"kind": "window", "low": -100.0, "high": 200.0}
FILLED = {"kind": "zscore", "nonzero": "filled"}


def parent_spec(**sections: Any) -> BundleSpec:
    stated: dict[str, Any] = {
        "licence": "CC BY 4.0",
        "channels": [CT, MR],
        "preprocessing": {
            "axes": "kji",
            "spacing_mm": [2, 1, 1],
            "intensity": [WINDOW, FILLED],
            "padding": "zero",
        },
        "network": {"kind": "unet", "channels": [4, 8, 12]}
        | {"strides": [1, 2, 2], "upsample_bias": True},
        "training": {"patch": [12, 16, 20], "batch_size": 3}
        | {"augmentation": {"mirror_axes": [0]}},
        "inference": {"window_weights": "nnunet", "keep_largest": ["liver"]},
        "labels": [{"index": 1, "name": "liver"}],
    }
    return made_spec(**(stated | sections))


def child(**sections: Any) -> dict[str, Any]:
    labels = [{"index": 1, "name": "spleen"}]
    return {"name": "child", "channels": [CT], "labels": labels} | sections


def test_a_bundle_of_labels_and_channels_alone_is_complete() -> None:
    parent = parent_spec()
    spec = parse_spec(add_parent_fields(child(), parent))
    assert spec.network == parent.network
    assert spec.preprocessing.axes == "kji"
    assert spec.preprocessing.spacing_mm == (2.0, 1.0, 1.0)
    assert spec.training.patch == (12, 16, 20)
    assert spec.training.batch_size == 3
    assert spec.training.augmentation.mirror_axes == (0,)
    assert spec.inference.window_weights == "nnunet"
    # The parent's labels are not here, so held-out cases decide.
    assert spec.inference.keep_largest is None
    assert spec.licence == "CC BY 4.0"


def test_what_a_bundle_says_holds(tmp_path: Path) -> None:
    parent = parent_spec()
    said = child(
        licence="MIT",
        preprocessing={"spacing_mm": [1, 1, 1], "intensity": "minmax"},
        network={"kind": "SegResNet", "args": {"init_filters": 8}},
        inference={"overlap": 0.25},
        training={"patch": [32, 32, 32], "steps": 7, "augmentation": "none"},
    )
    spec = parse_spec(add_parent_fields(said, parent))
    assert spec.preprocessing == parse_spec(said).preprocessing
    assert spec.network.kind == "SegResNet"
    assert spec.inference.window_weights == "gaussian"
    assert spec.training.patch == (32, 32, 32)
    assert spec.training.augmentation.mirror_axes == ()
    assert spec.licence == "MIT"
    file = write_json(tmp_path, child())
    bundle = load_bundle(
        file,
        ["training.batch_size=5", "preprocessing.crop_above=-500"],
        complete=lambda content: add_parent_fields(content, parent),
    )
    assert bundle.spec.training.batch_size == 5
    assert bundle.spec.preprocessing.crop_above == -500
    assert bundle.spec.preprocessing.axes == "kji"


@pytest.mark.parametrize(
    ("channels", "kinds"),
    [
        ([MR, CT], (FILLED, WINDOW)),
        ([PET, CT], ("zscore", WINDOW)),
        ([{"name": "t1"}, {"name": "scout"}], (FILLED, "zscore")),
        ([{"name": "tissue", "modality": "CT"}], (WINDOW,)),
    ],
)
def test_a_channel_keeps_the_normalisation_of_the_one_it_starts_from(
    channels: list[dict[str, Any]], kinds: tuple[Any, ...]
) -> None:
    content = add_parent_fields(child(channels=channels), parent_spec())
    spec = parse_spec(content)
    expected = tuple(
        Window(**kind)
        if kind == WINDOW
        else ZScore(nonzero="filled" if kind == FILLED else False)
        for kind in kinds
    )
    assert spec.intensities == expected


def test_a_window_of_ct_is_not_laid_on_another_modality() -> None:
    """A single channel starts from a single one whatever it shows; intensities do not follow."""
    one = parent_spec(
        channels=[CT], preprocessing={"intensity": WINDOW, "axes": "kji"}
    )
    spec = parse_spec(add_parent_fields(child(channels=[MR]), one))
    assert spec.intensities == (ZScore(),)
    unknown = [{"name": "image"}]
    spec = parse_spec(add_parent_fields(child(channels=unknown), one))
    assert spec.intensities == (Window(**WINDOW),)


def test_faults_of_a_bundle_are_named_as_without_a_parent() -> None:
    content = child(channels="CT", training=3)
    with pytest.raises(BundleError) as error:
        parse_spec(add_parent_fields(content, parent_spec()))
    said = str(error.value)
    assert "channels" in said
    assert "training" in said


def test_a_plan_takes_the_parents_network_and_keeps_what_the_data_say(
    tmp_path: Path,
) -> None:
    planned = child(
        channels=[PET, CT],
        preprocessing={"intensity": [{"kind": "minmax"}, {"kind": "none"}]},
        network={"kind": "unet", "channels": 32},
        training={"patch": [64, 64, 64], "batch_size": 2, "steps": 9},
        inference={"keep_largest": None},
        notes={
            "network.channels": "by memory",
            "training.steps": "by time",
            "training.patches": "of no field that is replaced",
        },
    )
    parent = Bundle(parent_spec(), tmp_path)
    spec = parse_spec(replace_by_parent_fields(planned, parent))
    assert spec.network == parent.spec.network
    assert spec.training.patch == (12, 16, 20)
    assert spec.training.steps == 9
    assert spec.intensities[0].kind == "minmax"
    assert spec.intensities[1] == Window(**WINDOW)
    assert "network.channels" not in spec.notes
    assert spec.notes["training.steps"] == "by time"
    assert "training.patches" in spec.notes
    assert parent.spec.name in spec.notes["network"]


def test_a_plan_for_pictures_does_not_start_from_volumes(
    tmp_path: Path,
) -> None:
    planned = child(preprocessing={"input": "picture"}, training={})
    with pytest.raises(MedsegError, match=r"takes a volume.*holds pictures"):
        replace_by_parent_fields(planned, Bundle(parent_spec(), tmp_path))
