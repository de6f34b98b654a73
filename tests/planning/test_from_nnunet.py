"""nnU-Net's plans become bundles."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.nnunet_plans import (
    CT,
    DATASET,
    a_plan,
    architecture,
    changed,
    convert,
    written,
)

from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec import (
    Intensity,
    MinMax,
    NoNormalisation,
    ResamplingSpec,
    StagedUNetSpec,
    Window,
    ZScore,
)
from medseg.errors import DatasetError
from medseg.networks.building import build_network
from medseg.planning import (
    Constraints,
)
from medseg.preprocessing.case_input import Preprocessing
from medseg.volume import Volume


def test_a_full_resolution_plan_is_carried_over_with_its_axes(
    tmp_path: Path,
) -> None:
    made = convert(written(tmp_path, a_plan()))
    spec = parse_spec(made.content, "the bundle")
    prep = spec.preprocessing
    assert (prep.axes, prep.spacing_mm) == ("kji", (3.0, 0.7, 0.8))
    assert prep.resampling == ResamplingSpec(
        interpolation="cubic", grid="extent", coarse_axis_ratio=3
    )
    assert prep.normalise == "before_resampling"
    assert (prep.crop_nonzero, prep.padding) == (True, "zero")
    inference = spec.inference
    assert inference.window_steps == "even"
    assert inference.window_weights == "nnunet"
    assert inference.mirror
    assert inference.keep_largest is None
    assert spec.training.patch == (16, 64, 48)
    assert spec.training.batch_size == 2
    assert spec.network.kind == "plainconv"
    assert spec.network.dims == 3
    assert spec.network.level_channels == (32, 64, 128, 256)
    assert spec.network.level_strides == (
        (1, 1, 1),
        (1, 2, 2),
        (2, 2, 2),
        (2, 2, 2),
    )
    assert spec.network.level_kernels == (
        (1, 3, 3),
        (3, 3, 3),
        (3, 3, 3),
        (3, 3, 3),
    )
    assert [(la.index, la.name) for la in spec.labels] == [
        (1, "spleen"),
        (2, "cyst"),
    ]
    assert (spec.channels[0].name, spec.channels[0].modality) == ("CT", "CT")


def test_the_flat_configuration_gives_a_bundle_in_two_dimensions(
    tmp_path: Path,
) -> None:
    spec = parse_spec(
        convert(written(tmp_path, a_plan()), dims=2).content, "the bundle"
    )
    assert spec.network.dims == 2
    assert spec.preprocessing.axes == "jik"
    assert spec.preprocessing.spacing_mm == (0.7, 0.8, None)
    assert spec.training.patch == (64, 48)
    assert spec.training.batch_size == 12


def test_the_window_normalises_as_ctnormalization_does(tmp_path: Path) -> None:
    spec = parse_spec(
        convert(written(tmp_path, a_plan())).content, "the bundle"
    )
    spec = spec.model_copy(
        update={
            "preprocessing": spec.preprocessing.model_copy(
                update={"spacing_mm": None}
            )
        }
    )
    voxels = (
        np.random.default_rng(0)
        .normal(60, 120, (1, 9, 8, 7))
        .astype(np.float32)
    )
    wanted = (voxels.clip(-41, 176) - 99.5) / 39.25
    found = Preprocessing(spec)(Volume(voxels, np.eye(4), "x"))["image"]
    as_stored = np.asarray(found).transpose(0, 3, 2, 1)
    assert np.allclose(as_stored, wanted, atol=1e-5)


def test_the_network_has_as_many_weights_as_the_planned_one(
    tmp_path: Path,
) -> None:
    # Without biases before norms, which cancel them, and with all kernels 3, a plain
    # U-Net of these sizes can be counted by hand.
    arguments = architecture(
        3, kernel_sizes=[[3, 3, 3]] * 4, strides=[1, 2, 2, 2]
    )
    plans = changed(architecture=arguments, patch_size=[16, 64, 48])
    spec = parse_spec(convert(written(tmp_path, plans)).content, "the bundle")
    features = [32, 64, 128, 256]
    down = sum(
        27 * (before + now) * now + 4 * now
        for before, now in zip([1, *features], features, strict=False)
    )
    up = sum(
        8 * low * high + 27 * (2 * high + high) * high + 4 * high
        for high, low in pairwise(features)
    )
    with torch.device("meta"):
        network = build_network(spec, supervised=False)
    count = sum(weight.numel() for weight in network.parameters())
    assert count == down + up + 3 * features[0] + 3


def test_what_a_bundle_cannot_say_is_listed_and_noted(tmp_path: Path) -> None:
    made = convert(written(tmp_path, a_plan()))
    text = " ".join(made.omissions)
    for what in (
        "cascade (3d_cascade_fullres, 3d_lowres)",
        "batch_dice",
        "augmentation",
    ):
        assert what in text
    for what in ("cubic", "axes: ", "the crop", "kernel sizes", "mirroring"):
        assert what not in text
    assert all(
        what in made.content["notes"]["nnU-Net"] for what in made.omissions
    )
    isotropic = architecture(3, kernel_sizes=[[3, 3, 3]] * 4, conv_bias=False)
    plans = changed(architecture=isotropic, batch_dice=True)
    del (
        plans["configurations"]["3d_lowres"],
        plans["configurations"]["3d_cascade_fullres"],
    )
    text = " ".join(convert(written(tmp_path, plans)).omissions)
    for what in ("cascade", "batch_dice", "kernel sizes", "biases"):
        assert what not in text


def test_residual_encoders_keep_their_numbers_of_blocks(tmp_path: Path) -> None:
    residual = architecture(
        3, n_blocks_per_stage=[1, 3, 4, 6], n_conv_per_stage_decoder=[1, 1, 1]
    )
    residual["network_class_name"] = "x.residual_unet.ResidualEncoderUNet"
    del residual["arch_kwargs"]["n_conv_per_stage"]
    made = convert(written(tmp_path, changed(architecture=residual)))
    network = parse_spec(made.content, "the bundle").network
    assert isinstance(network, StagedUNetSpec)
    assert network.kind == "resenc"
    assert network.level_blocks == (1, 3, 4, 6)
    assert network.level_decoder_convolutions == (1, 1, 1)
    assert not any("blocks" in what for what in made.omissions)


def test_other_numbers_of_convolutions_are_carried_over(tmp_path: Path) -> None:
    planned = architecture(3, n_conv_per_stage=[2, 2, 3, 2])
    made = convert(written(tmp_path, changed(architecture=planned)))
    network = parse_spec(made.content, "the bundle").network
    assert isinstance(network, StagedUNetSpec)
    assert network.kind == "plainconv"
    assert network.level_blocks == (2, 2, 3, 2)
    assert not any("kernel sizes" in what for what in made.omissions)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dropout_op": "torch.nn.modules.dropout.Dropout3d"}, "dropout"),
        ({"nonlin": "torch.nn.ReLU"}, "activation ReLU"),
        ({"norm_op": "torch.nn.modules.normalization.LayerNorm"}, "LayerNorm"),
    ],
)
def test_other_layers_than_ours_are_named(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    made = convert(
        written(tmp_path, changed(architecture=architecture(3, **changes)))
    )
    parse_spec(made.content, "the bundle")
    assert any(said in what for what in made.omissions)


@pytest.mark.parametrize(
    ("scheme", "masked", "wanted"),
    [
        ("ZScoreNormalization", False, ZScore()),
        ("ZScoreNormalization", True, ZScore(nonzero="filled")),
        ("RescaleTo01Normalization", False, MinMax()),
        (
            "RGBTo01Normalization",
            False,
            Window(low=0, high=255, mean=0, std=255, clip=False),
        ),
        ("NoNormalization", False, NoNormalisation()),
        ("OwnNormalization", False, ZScore()),
    ],
)
def test_every_normalisation_is_carried_or_named(
    tmp_path: Path, scheme: str, masked: bool, wanted: Intensity
) -> None:
    plans = changed(normalization_schemes=[scheme], use_mask_for_norm=[masked])
    made = convert(written(tmp_path, plans))
    spec = parse_spec(made.content, "the bundle")
    assert spec.intensities == (wanted,)
    is_named = any(scheme in what for what in made.omissions)
    assert is_named == (scheme == "OwnNormalization")


def test_several_channels_keep_their_own_normalisations(tmp_path: Path) -> None:
    plans = changed(
        normalization_schemes=["ZScoreNormalization", "CTNormalization"],
        use_mask_for_norm=[False, False],
    )
    plans["foreground_intensity_properties_per_channel"] = {
        "0": CT,
        "1": CT | {"mean": 50.0},
    }
    dataset = DATASET | {"channel_names": {"0": "PET", "1": "CT"}}
    spec = parse_spec(
        convert(written(tmp_path, plans, dataset)).content, "the bundle"
    )
    assert [channel.modality for channel in spec.channels] == ["PT", "CT"]
    assert [one.kind for one in spec.intensities] == ["zscore", "window"]
    assert spec.intensities[1].mean == 50


def test_pictures_have_no_spacing(tmp_path: Path) -> None:
    plans = a_plan(image_reader_writer="NaturalImage2DIO")
    plans["configurations"] = {"2d": plans["configurations"]["2d"]}
    plans["configurations"]["2d"]["normalization_schemes"] = [
        "RescaleTo01Normalization"
    ]
    spec = parse_spec(convert(written(tmp_path, plans)).content, "the bundle")
    assert (spec.preprocessing.input, spec.preprocessing.spacing_mm) == (
        "picture",
        None,
    )


def test_a_time_budget_goes_into_the_bundle(tmp_path: Path) -> None:
    constraints = Constraints(
        dims=None, on_gpu=True, memory_gb=8, budget_minutes=20
    )
    made = convert(written(tmp_path, a_plan()), constraints=constraints)
    assert made.content["training"]["budget_minutes"] == 20


BRATS = {
    "background": 0,
    "whole tumor": [1, 2, 3],
    "tumor core": [2, 3],
    "enhancing tumor": [3],
}


def test_regions_are_carried_over_with_what_each_paints(tmp_path: Path) -> None:
    dataset = DATASET | {"labels": BRATS, "regions_class_order": [1, 2, 3]}
    made = convert(written(tmp_path, a_plan(), dataset))
    spec = parse_spec(made.content, "the bundle")
    assert spec.label_set.names == (
        "rest of whole tumor",
        "rest of tumor core",
        "enhancing tumor",
    )
    found = [
        (one.name, one.labels, one.paints) for one in spec.label_set.regions
    ]
    assert found == [
        ("whole tumor", (1, 2, 3), 1),
        ("tumor core", (2, 3), 2),
        ("enhancing tumor", (3,), 3),
    ]


def test_regions_with_an_order_and_values_of_their_own(tmp_path: Path) -> None:
    labels = {
        "background": 0,
        "kidney": [1, 2, 4],
        "mass": [2, 4],
        "tumor": 2,
        "ignore": 7,
    }
    dataset = DATASET | {"labels": labels, "regions_class_order": [1, 4, 2]}
    spec = parse_spec(
        convert(written(tmp_path, a_plan(), dataset)).content, "the bundle"
    )
    assert [(label.name, label.value) for label in spec.labels] == [
        ("rest of kidney", None),
        ("tumor", None),
        ("rest of mass", 4),
    ]
    assert [one.paints for one in spec.label_set.regions] == [1, 3, 2]


@pytest.mark.parametrize(
    ("labels", "order", "said"),
    [
        (BRATS, None, "'regions_class_order' must list 3 values"),
        (BRATS, [1, 2], "'regions_class_order' must list 3 values"),
        (
            BRATS | {"enhancing tumor": ["3"]},
            [1, 2, 3],
            "label 'enhancing tumor' is",
        ),
        (
            BRATS | {"enhancing tumor": []},
            [1, 2, 3],
            "label 'enhancing tumor' is",
        ),
    ],
)
def test_regions_that_make_no_sense_are_refused(
    tmp_path: Path, labels: dict[str, Any], order: list[int] | None, said: str
) -> None:
    more = {} if order is None else {"regions_class_order": order}
    with pytest.raises(DatasetError, match=said):
        convert(
            written(tmp_path, a_plan(), DATASET | {"labels": labels} | more)
        )
