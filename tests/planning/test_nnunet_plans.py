"""nnU-Net's plans become bundles; the plans here have the form of its own files."""

from __future__ import annotations

import json
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg.bundle.bundle import parse_spec
from medseg.errors import DatasetError
from medseg.networks.unet import build_network
from medseg.planning import (
    Constraints,
    ConvertedPlans,
    convert_plans,
    is_nnunet_plans,
    read_description,
    read_nnunet_plans,
)
from medseg.preprocessing.transforms import Preprocessing
from medseg.volume import Volume

CPU = Constraints(dims=None, on_gpu=False, memory_gb=8)
DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "spleen": 1, "cyst": 2},
    "numTraining": 41,
    "file_ending": ".nii.gz",
}
CT = {
    "max": 1500.0,
    "mean": 99.5,
    "median": 101.0,
    "min": -900.0,
    "percentile_00_5": -41.0,
    "percentile_99_5": 176.0,
    "std": 39.25,
}
_RESAMPLING = {
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3},
}


def architecture(dims: int, **changes: Any) -> dict[str, Any]:
    """An anisotropic network: its first axis, z, is halved later than the others."""
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
    kernels = [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]]
    arguments = {
        "n_stages": 4,
        "features_per_stage": [32, 64, 128, 256],
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "kernel_sizes": [kernel[3 - dims :] for kernel in kernels],
        "strides": [stride[3 - dims :] for stride in strides],
        "n_conv_per_stage": [2, 2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2, 2],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": arguments | changes,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def a_plan(**changes: Any) -> dict[str, Any]:
    """Plans for abdominal CT of 0.8 × 0.7 × 3 mm (x, y, z), with a cascade beside."""
    whole = {
        "dataset_name": "Dataset009_Spleen",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [3.0, 0.7, 0.8],
        "original_median_shape_after_transp": [90, 512, 500],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": {
                "data_identifier": "nnUNetPlans_2d",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 12,
                "patch_size": [64, 48],
                "median_image_size_in_voxels": [512.0, 500.0],
                "spacing": [0.7, 0.8],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "architecture": architecture(2),
                "batch_dice": True,
                **_RESAMPLING,
            },
            "3d_lowres": {"inherits_from": "3d_fullres", "spacing": [6.0, 1.4, 1.6]},
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [16, 64, 48],
                "median_image_size_in_voxels": [90.0, 512.0, 500.0],
                "spacing": [3.0, 0.7, 0.8],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "architecture": architecture(3),
                "batch_dice": False,
                **_RESAMPLING,
            },
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": CT},
    }
    return whole | changes


def flat_form(plans: dict[str, Any]) -> dict[str, Any]:
    """The same plans as older versions wrote them: the network's parts beside the patch."""
    plans = deepcopy(plans)
    for configuration in plans["configurations"].values():
        arguments = configuration.pop("architecture", {}).get("arch_kwargs")
        if arguments:
            configuration |= {
                "UNet_class_name": "PlainConvUNet",
                "UNet_base_num_features": 32,
                "n_conv_per_stage_encoder": arguments["n_conv_per_stage"],
                "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
                "num_pool_per_axis": [2, 3, 3][3 - len(arguments["strides"][0]) :],
                "pool_op_kernel_sizes": arguments["strides"],
                "conv_kernel_sizes": arguments["kernel_sizes"],
                "unet_max_num_features": 320,
            }
    plans["foreground_intensity_properties_by_modality"] = plans.pop(
        "foreground_intensity_properties_per_channel"
    )
    return plans


def written(folder: Path, plans: dict[str, Any], dataset: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(dataset or DATASET))
    file = folder / "nnUNetPlans.json"
    file.write_text(json.dumps(plans))
    return file


def carried(file: Path, dims: int | None = None, wishes: Constraints = CPU) -> ConvertedPlans:
    plans = read_nnunet_plans(file, dims)
    return convert_plans(plans, read_description(file.parent / "dataset.json"), wishes)


def changed(configuration: str = "3d_fullres", **fields: Any) -> dict[str, Any]:
    plans = a_plan()
    plans["configurations"][configuration] |= fields
    return plans


def test_a_full_resolution_plan_is_carried_over_with_its_axes_turned(tmp_path: Path) -> None:
    made = carried(written(tmp_path, a_plan()))
    spec = parse_spec(made.content, "the bundle")
    assert spec.preprocessing.spacing_mm == (0.8, 0.7, 3.0)
    assert spec.training.patch == (48, 64, 16)
    assert spec.training.batch_size == 2
    assert spec.network.kind == "unet"
    assert spec.network.dims == 3
    assert spec.network.level_channels == (32, 64, 128, 256)
    assert spec.network.level_strides == ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2))
    assert spec.network.level_kernels == ((3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert [(la.index, la.name) for la in spec.labels] == [(1, "spleen"), (2, "cyst")]
    assert (spec.channels[0].name, spec.channels[0].modality) == ("CT", "CT")


def test_the_flat_configuration_gives_a_bundle_in_two_dimensions(tmp_path: Path) -> None:
    spec = parse_spec(carried(written(tmp_path, a_plan()), dims=2).content, "the bundle")
    assert spec.network.dims == 2
    assert spec.preprocessing.spacing_mm == (0.8, 0.7, None)
    assert spec.training.patch == (48, 64)
    assert spec.training.batch_size == 12


def test_both_forms_of_plans_say_the_same(tmp_path: Path) -> None:
    new, old = written(tmp_path / "new", a_plan()), written(tmp_path / "old", flat_form(a_plan()))
    for dims in (2, 3):
        assert carried(new, dims) == carried(old, dims)


def test_the_window_normalises_as_ctnormalization_does(tmp_path: Path) -> None:
    spec = parse_spec(carried(written(tmp_path, a_plan())).content, "the bundle")
    spec = spec.model_copy(
        update={"preprocessing": spec.preprocessing.model_copy(update={"spacing_mm": None})}
    )
    voxels = np.random.default_rng(0).normal(60, 120, (1, 9, 8, 7)).astype(np.float32)
    wanted = (voxels.clip(-41, 176) - 99.5) / 39.25
    found = Preprocessing(spec)(Volume(voxels, np.eye(4), "x"))["image"]
    assert np.allclose(np.asarray(found), wanted, atol=1e-5)


def test_the_network_has_as_many_weights_as_the_planned_one(tmp_path: Path) -> None:
    # Without biases, which the norms cancel, and with the kernels on the way up all 3, a plain
    # U-Net of these sizes can be counted by hand.
    arguments = architecture(3, kernel_sizes=[[3, 3, 3]] * 4, strides=[1, 2, 2, 2])
    plans = changed(architecture=arguments, patch_size=[16, 64, 48])
    spec = parse_spec(carried(written(tmp_path, plans)).content, "the bundle")
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
    made = carried(written(tmp_path, a_plan()))
    text = " ".join(made.left_behind)
    for what in ("cascade (3d_cascade_fullres, 3d_lowres)", "cubic", "batch_dice", "kernel sizes"):
        assert what in text
    assert all(what in made.content["notes"]["nnU-Net"] for what in made.left_behind)
    isotropic = architecture(3, kernel_sizes=[[3, 3, 3]] * 4, conv_bias=False)
    plans = changed(architecture=isotropic, batch_dice=True)
    del plans["configurations"]["3d_lowres"], plans["configurations"]["3d_cascade_fullres"]
    text = " ".join(carried(written(tmp_path, plans)).left_behind)
    for what in ("cascade", "batch_dice", "kernel sizes", "biases"):
        assert what not in text


def test_residual_encoders_are_carried_as_far_as_there_are_such_blocks(tmp_path: Path) -> None:
    residual = architecture(3, n_blocks_per_stage=[1, 3, 4, 6], n_conv_per_stage_decoder=[1, 1, 1])
    residual["network_class_name"] = "x.residual_unet.ResidualEncoderUNet"
    del residual["arch_kwargs"]["n_conv_per_stage"]
    made = carried(written(tmp_path, changed(architecture=residual)))
    assert made.content["network"]["residual"] is True
    assert any("1, 3, 4, 6 down" in what for what in made.left_behind)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_conv_per_stage": [2, 2, 3, 2]}, "2, 2, 3, 2 down"),
        ({"dropout_op": "torch.nn.modules.dropout.Dropout3d"}, "dropout"),
        ({"nonlin": "torch.nn.ReLU"}, "activation ReLU"),
        ({"norm_op": "torch.nn.modules.normalization.LayerNorm"}, "LayerNorm"),
    ],
)
def test_other_layers_than_ours_are_named(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    made = carried(written(tmp_path, changed(architecture=architecture(3, **changes))))
    parse_spec(made.content, "the bundle")
    assert any(said in what for what in made.left_behind)


@pytest.mark.parametrize(
    ("scheme", "masked", "wanted"),
    [
        ("ZScoreNormalization", False, {"kind": "zscore"}),
        ("ZScoreNormalization", True, {"kind": "zscore", "nonzero": True}),
        ("RescaleTo01Normalization", False, {"kind": "minmax"}),
        (
            "RGBTo01Normalization",
            False,
            {"kind": "window", "low": 0, "high": 255, "mean": 0, "std": 255},
        ),
        ("NoNormalization", False, {"kind": "zscore"}),
    ],
)
def test_every_normalisation_is_carried_or_named(
    tmp_path: Path, scheme: str, masked: bool, wanted: dict[str, Any]
) -> None:
    plans = changed(normalization_schemes=[scheme], use_mask_for_norm=[masked])
    made = carried(written(tmp_path, plans))
    assert made.content["preprocessing"]["intensity"] == wanted
    assert made.content["preprocessing"].get("crop_above") == (0 if masked else None)
    assert any("NoNormalization" in what for what in made.left_behind) == (scheme[:2] == "No")


def test_several_channels_keep_their_own_normalisations(tmp_path: Path) -> None:
    plans = changed(
        normalization_schemes=["ZScoreNormalization", "CTNormalization"],
        use_mask_for_norm=[False, False],
    )
    plans["foreground_intensity_properties_per_channel"] = {"0": CT, "1": CT | {"mean": 50.0}}
    dataset = DATASET | {"channel_names": {"0": "PET", "1": "CT"}}
    spec = parse_spec(carried(written(tmp_path, plans, dataset)).content, "the bundle")
    assert [channel.modality for channel in spec.channels] == ["PT", "CT"]
    assert [one.kind for one in spec.intensities] == ["zscore", "window"]
    assert spec.intensities[1].mean == 50


def test_transposed_axes_are_turned_back(tmp_path: Path) -> None:
    # Stored (z, y, x); y was the coarse axis, so nnU-Net put it first.
    plans = a_plan(transpose_forward=[1, 0, 2], transpose_backward=[1, 0, 2])
    file = written(tmp_path, plans)
    spec = parse_spec(carried(file).content, "the bundle")
    assert spec.preprocessing.spacing_mm == (0.8, 3.0, 0.7)
    assert spec.training.patch == (48, 16, 64)
    with pytest.raises(DatasetError, match="--dims 3"):
        carried(file, dims=2)


def test_pictures_have_no_spacing(tmp_path: Path) -> None:
    plans = a_plan(image_reader_writer="NaturalImage2DIO")
    plans["configurations"] = {"2d": plans["configurations"]["2d"]}
    plans["configurations"]["2d"]["normalization_schemes"] = ["RescaleTo01Normalization"]
    spec = parse_spec(carried(written(tmp_path, plans)).content, "the bundle")
    assert (spec.preprocessing.input, spec.preprocessing.spacing_mm) == ("picture", None)


def test_a_time_budget_goes_into_the_bundle(tmp_path: Path) -> None:
    wishes = Constraints(dims=None, on_gpu=True, memory_gb=8, budget_minutes=20)
    made = carried(written(tmp_path, a_plan()), wishes=wishes)
    assert made.content["training"]["budget_minutes"] == 20


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
        (changed(patch_size=[16, 64]), "does not fit the name"),
        (changed(batch_size="many"), "batch_size"),
        (changed(inherits_from="3d_fullres"), "in a circle"),
        (changed(architecture=architecture(3, strides=[1, 2, 2])), "has 4 levels, the strides 3"),
        (changed(architecture=architecture(3, strides=[1, 2])), "medseg needs 3 or more"),
        (changed(normalization_schemes=["CTNormalization"] * 2), "normalises 2 channels"),
        (a_plan(foreground_intensity_properties_per_channel={}), "says nothing of it"),
        (
            a_plan(foreground_intensity_properties_per_channel={"0": CT | {"std": 0}}),
            "same intensity everywhere",
        ),
    ],
)
def test_plans_that_make_no_sense_are_refused(
    tmp_path: Path, plans: dict[str, Any], said: str
) -> None:
    with pytest.raises(DatasetError, match=said):
        carried(written(tmp_path, plans))


BRATS = {
    "background": 0,
    "whole tumor": [1, 2, 3],
    "tumor core": [2, 3],
    "enhancing tumor": [3],
}


def test_regions_are_carried_over_with_what_each_paints(tmp_path: Path) -> None:
    dataset = DATASET | {"labels": BRATS, "regions_class_order": [1, 2, 3]}
    made = carried(written(tmp_path, a_plan(), dataset))
    spec = parse_spec(made.content, "the bundle")
    assert spec.label_set.names == (
        "rest of whole tumor",
        "rest of tumor core",
        "enhancing tumor",
    )
    found = [(one.name, one.labels, one.paints) for one in spec.label_set.regions]
    assert found == [
        ("whole tumor", (1, 2, 3), 1),
        ("tumor core", (2, 3), 2),
        ("enhancing tumor", (3,), 3),
    ]


def test_regions_with_an_order_and_values_of_their_own(tmp_path: Path) -> None:
    labels = {"background": 0, "kidney": [1, 2, 4], "mass": [2, 4], "tumor": 2, "ignore": 7}
    dataset = DATASET | {"labels": labels, "regions_class_order": [1, 4, 2]}
    spec = parse_spec(carried(written(tmp_path, a_plan(), dataset)).content, "the bundle")
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
        (BRATS | {"enhancing tumor": ["3"]}, [1, 2, 3], "'enhancing tumor' must be a value or"),
        (BRATS | {"enhancing tumor": []}, [1, 2, 3], "'enhancing tumor' must be a value or"),
    ],
)
def test_regions_that_make_no_sense_are_refused(
    tmp_path: Path, labels: dict[str, Any], order: list[int] | None, said: str
) -> None:
    more = {} if order is None else {"regions_class_order": order}
    with pytest.raises(DatasetError, match=said):
        carried(written(tmp_path, a_plan(), DATASET | {"labels": labels} | more))
