"""Plans in the form of nnU-Net's own files."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from medseg.planning import (
    Constraints,
    ConvertedPlans,
    convert_plans,
    read_description,
    read_nnunet_plans,
)

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
            "3d_lowres": {
                "inherits_from": "3d_fullres",
                "spacing": [6.0, 1.4, 1.6],
            },
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
            "3d_cascade_fullres": {
                "inherits_from": "3d_fullres",
                "previous_stage": "3d_lowres",
            },
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
                "n_conv_per_stage_decoder": arguments[
                    "n_conv_per_stage_decoder"
                ],
                "num_pool_per_axis": [2, 3, 3][
                    3 - len(arguments["strides"][0]) :
                ],
                "pool_op_kernel_sizes": arguments["strides"],
                "conv_kernel_sizes": arguments["kernel_sizes"],
                "unet_max_num_features": 320,
            }
    plans["foreground_intensity_properties_by_modality"] = plans.pop(
        "foreground_intensity_properties_per_channel"
    )
    return plans


def written(
    folder: Path, plans: dict[str, Any], dataset: dict[str, Any] | None = None
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(dataset or DATASET))
    file = folder / "nnUNetPlans.json"
    file.write_text(json.dumps(plans))
    return file


def convert(
    file: Path, dims: int | None = None, constraints: Constraints = CPU
) -> ConvertedPlans:
    plans = read_nnunet_plans(file, dims)
    return convert_plans(
        plans, read_description(file.parent / "dataset.json"), constraints
    )


def changed(configuration: str = "3d_fullres", **fields: Any) -> dict[str, Any]:
    plans = a_plan()
    plans["configurations"][configuration] |= fields
    return plans
