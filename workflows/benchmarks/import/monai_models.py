"""MONAI Bundles and Auto3DSeg models with random weights, and the scans they segment.

The bundles are written anew, in the form of seven of MONAI's model zoo: their transforms, in their
order, with small networks and windows. The tests make them, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

Config = dict[str, Any]

WINDOW = 32


def load(*arguments: str) -> list[Config]:
    """State how a scan is loaded."""
    channel_first = {"_target_": "EnsureChannelFirstd", "keys": "image"}
    return [{"_target_": "LoadImaged", "keys": "image"}, channel_first]


def step(target: str, key: str = "image", **arguments: Any) -> Config:
    """State a transform."""
    return {"_target_": target, "keys": key, **arguments}


def post(target: str, **arguments: Any) -> Config:
    """State a transform of a prediction."""
    return step(target, "pred", **arguments)


def back(nearest: bool) -> Config:
    """State how a prediction returns to the scan's grid."""
    return post(
        "Invertd",
        transform="@preprocessing",
        orig_keys="image",
        nearest_interp=nearest,
        to_tensor=True,
    )


SOFTMAX, SIGMOID = (
    post("Activationsd", softmax=True),
    post("Activationsd", sigmoid=True),
)
ARGMAX = post("AsDiscreted", argmax=True)
RAS = step("Orientationd", axcodes="RAS")


def resample(*mm: float) -> Config:
    """State a voxel size."""
    return step("Spacingd", pixdim=list(mm), mode="bilinear")


def scale(low: float, high: float) -> Config:
    """State a window of intensities."""
    return step(
        "ScaleIntensityRanged",
        a_min=low,
        a_max=high,
        b_min=0.0,
        b_max=1.0,
        clip=True,
    )


def unet(classes: int, **arguments: Any) -> Config:
    """State MONAI's UNet."""
    return {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": classes,
        "channels": [8, 16, 32],
        "strides": [2, 2],
        "num_res_units": 2,
        **arguments,
    }


def segresnet(inputs: int, classes: int) -> Config:
    """State MONAI's SegResNet."""
    return {
        "_target_": "SegResNet",
        "init_filters": 8,
        "blocks_down": [1, 1, 1],
        "blocks_up": [1, 1],
        "in_channels": inputs,
        "out_channels": classes,
        "dropout_prob": 0.2,
    }


def window(**arguments: Any) -> Config:
    """State a sliding window."""
    return {
        "_target_": "SlidingWindowInferer",
        "roi_size": [WINDOW] * 3,
        "sw_batch_size": 2,
        "overlap": 0.5,
        **arguments,
    }


def spleen() -> Config:
    """State a bundle of the form of ``spleen_ct_segmentation``."""
    return {
        "network_def": unet(2, norm="batch"),
        "transforms": [*load(), RAS, resample(1.5, 1.5, 2.0), scale(-57, 164)],
        "inferer": window(),
        "post": [SOFTMAX, back(False), ARGMAX],
    }


def swin() -> Config:
    """State a bundle of the form of ``swin_unetr_btcv_segmentation``."""
    network = {
        "_target_": "SwinUNETR",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 4,
        "feature_size": 12,
        "use_checkpoint": False,
    }
    return {
        "network_def": network,
        "transforms": [*load(), RAS, resample(1.5, 1.5, 2.0), scale(-175, 250)],
        # Smaller, nothing is left at its lowest level.
        "inferer": window(roi_size=[64, WINDOW, WINDOW]),
        "post": [SOFTMAX, back(False), ARGMAX],
    }


def pediatric() -> Config:
    """State a bundle of the form of ``pediatric_abdominal_ct_segmentation``."""
    network = {
        "_target_": "monai.networks.nets.DynUNet",
        "spatial_dims": "$len(@spatial_size)",
        "in_channels": 1,
        "out_channels": 4,
        "kernel_size": [3, 3, 3, 3],
        "strides": [1, 2, 2, [2, 2, 1]],
        "upsample_kernel_size": [2, 2, [2, 2, 1]],
        "filters": [8, 16, 32, 32],
        "norm_name": "instance",
        "deep_supervision": False,
        "res_block": True,
    }
    crop = step("CropForegroundd", source_key="image", mode=["minimum"])
    return {
        "spatial_size": [WINDOW] * 3,
        "network_def": network,
        "transforms": [
            *load(),
            RAS,
            resample(1.5, 1.5, 3.0),
            scale(-250, 400),
            crop,
            step("EnsureTyped"),
            step("CastToTyped", dtype="$torch.float32"),
        ],
        "inferer": window(overlap=0.75),
        "post": [SOFTMAX, back(False), ARGMAX],
    }


def prostate() -> Config:
    """State a bundle of the form of ``prostate_mri_anatomy``, its labels brought back as labels."""
    largest = post("KeepLargestConnectedComponentd", applied_labels=[1, 2])
    return {
        "network_def": unet(3, norm="batch", act="prelu", dropout=0.15),
        "transforms": [
            *load(),
            RAS,
            resample(1.5, 1.5, 1.5),
            step("ScaleIntensityd", minv=0, maxv=1),
            step("NormalizeIntensityd"),
            step("EnsureTyped"),
        ],
        "inferer": window(),
        "post": [ARGMAX, largest, back(True)],
    }


def whole_body() -> Config:
    """State a bundle of the form of ``wholeBody_ct_segmentation``."""
    return {
        "highres": True,
        "pixdim": "$[1.5, 1.5, 1.5] if @highres else [3.0, 3.0, 3.0]",
        "network_def": segresnet(1, 6),
        "transforms": [
            step("LoadImaged"),
            step("EnsureTyped"),
            step("EnsureChannelFirstd"),
            RAS,
            step("Spacingd", pixdim="@pixdim", mode="bilinear"),
            step("NormalizeIntensityd", nonzero=True),
            step("ScaleIntensityd", minv=-1.0, maxv=1.0),
        ],
        "inferer": window(
            overlap=0.25, padding_mode="replicate", mode="gaussian"
        ),
        "post": [SOFTMAX, ARGMAX, back(True)],
    }


def ventricle() -> Config:
    """State a bundle of the form of ``ventricular_short_axis_3label``."""
    return {
        "network_def": unet(4, spatial_dims=2),
        "transforms": [*load(), step("ScaleIntensityd"), step("EnsureTyped")],
        "inferer": {
            "_target_": "SliceInferer",
            "roi_size": [WINDOW, WINDOW],
            "spatial_dim": 2,
        },
        "post": [SOFTMAX, back(False), ARGMAX],
    }


def brats() -> Config:
    """State a bundle of the form of ``brats_mri_segmentation``: regions that overlap."""
    merge = (
        "$lambda x: torch.where(x[[2]] > 0, 4, "
        "torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"
    )
    return {
        "network_def": segresnet(4, 3),
        "transforms": [
            step("LoadImaged"),
            step("NormalizeIntensityd", nonzero=True, channel_wise=True),
        ],
        "inferer": window(),
        "post": [
            SIGMOID,
            back(False),
            post("AsDiscreted", threshold=0.5),
            post("Lambdad", func=merge),
        ],
        "channels": ["T1c", "T1", "T2", "FLAIR"],
        "classes": ["Tumor core", "Whole tumor", "Enhancing tumor"],
    }


FORMS: Mapping[str, Callable[[], Config]] = {
    "spleen": spleen,
    "swin": swin,
    "pediatric": pediatric,
    "prostate": prostate,
    "whole_body": whole_body,
    "ventricle": ventricle,
    "brats": brats,
}


def write_bundle(name: str, folder: Path) -> Path:
    """Write a MONAI Bundle with random weights, and return its folder."""
    form = FORMS[name]()
    channels = form.pop("channels", ["image"])
    network = form["network_def"]
    classes = form.pop("classes", None) or [
        "background",
        *(f"organ {number}" for number in range(1, network["out_channels"])),
    ]
    save = post("SaveImaged", output_dir="@output_dir", separate_folder=False)
    config = {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": "$sorted(glob.glob(@dataset_dir + '/*.nii.gz'))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": form.pop("transforms"),
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "num_workers": 0,
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [*form.pop("post"), save],
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": True,
        },
        "initialize": ["$monai.utils.set_determinism(seed=123)"],
        "run": ["$@evaluator.run()"],
        **form,
    }
    if len(channels) > 1:
        # One scan per file of its first channel.
        config["datalist"] = (
            "$[[f.replace('_0000', '_%04d' % c) for c in range("
            + str(len(channels))
            + ")] "
            "for f in sorted(glob.glob(@dataset_dir + '/*_0000.nii.gz'))]"
        )
    write_config(folder / "configs" / "inference.json", config)
    write_config(
        folder / "configs" / "metadata.json", describe(channels, classes)
    )
    weights = make_weights(network, len(channels), form["inferer"]["roi_size"])
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    torch.save(weights, models / "model.pt")
    (folder / "LICENSE").write_text("Apache License\nVersion 2.0\n")
    return folder


def describe(channels: Sequence[str], classes: Sequence[str]) -> Config:
    """State what a bundle says of itself."""
    return {
        "version": "0.2.1",
        "monai_version": "1.4.0",
        "description": "Made up, with random weights",
        "data_source": "none",
        "network_data_format": {
            "inputs": {
                "image": {"modality": "MR", "channel_def": number(channels)}
            },
            "outputs": {"pred": {"channel_def": number(classes)}},
        },
    }


def number(names: Sequence[str]) -> dict[str, str]:
    """Return names by their positions."""
    return {str(position): name for position, name in enumerate(names)}


def write_config(file: Path, content: Config) -> None:
    """Write a config file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2))


def make_weights(
    definition: Config, channels: int, size: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Return random weights of a network, its outputs shifted so that each has some voxels."""
    import monai.networks.nets as nets

    arguments = dict(definition)
    name = arguments.pop("_target_").rpartition(".")[2]
    if isinstance(arguments.get("spatial_dims"), str):
        arguments["spatial_dims"] = 3
    torch.manual_seed(0)
    network = getattr(nets, name)(**arguments)
    generator = torch.Generator().manual_seed(1)
    for key, value in network.named_buffers():
        if key.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
    image = make_texture((channels, *size), generator)
    with torch.no_grad():
        scores = network.eval()(image[None])[0]
    weights = network.state_dict()
    heads = [
        key
        for key, value in weights.items()
        if key.endswith("bias") and value.shape == scores.shape[:1]
    ]
    weights[heads[-1]] -= scores.flatten(1).mean(1)
    return weights


def make_texture(
    shape: Sequence[int], generator: torch.Generator
) -> torch.Tensor:
    """Return smooth noise about 0."""
    noise = torch.randn(*shape, generator=generator)
    pool = (
        torch.nn.functional.avg_pool3d
        if len(shape) == 4
        else torch.nn.functional.avg_pool2d
    )
    return 4 * pool(noise[None], 5, 1, 2)[0]


GRIDS: Mapping[
    str, tuple[tuple[int, int, int], tuple[float, float, float], float]
] = {
    "finer": ((52, 44, 40), (1.1, 1.1, 1.6), 0.0),
    "coarser": ((30, 34, 26), (2.4, 2.1, 3.0), 0.0),
    "oblique": ((44, 40, 36), (1.3, 1.2, 2.2), 17.0),
    "small": ((18, 20, 14), (1.5, 1.5, 2.0), 0.0),
}
"""Voxels, voxel size in mm, and rotation in degrees of each scan."""


def write_scans(
    folder: Path, channels: int, grids: Sequence[str] = tuple(GRIDS)
) -> dict[str, list[Path]]:
    """Write made-up scans: a body with smooth texture in air; return the files of each."""
    import nibabel as nib

    folder.mkdir(parents=True, exist_ok=True)
    scans: dict[str, list[Path]] = {}
    for seed, name in enumerate(grids):
        shape, spacing, degrees = GRIDS[name]
        generator = torch.Generator().manual_seed(100 + seed)
        texture = make_texture((channels, *shape), generator).numpy()
        affine = make_affine(spacing, degrees)
        axes = [np.linspace(-1, 1, size) for size in shape]
        distance = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))
        outside = distance > 0.9
        scans[name] = []
        for channel, image in enumerate(texture):
            scan = np.rint(60 + 120 * image)
            scan[outside] = -1000 if channels == 1 else 0
            file = folder / f"{name}_{channel:04d}.nii.gz"
            nib.save(nib.Nifti1Image(scan.astype(np.int16), affine), file)
            scans[name].append(file)
    return scans


def make_affine(spacing: Sequence[float], degrees: float) -> np.ndarray:
    """Return an affine whose first axis points to the left, turned about the third."""
    angle = np.deg2rad(degrees)
    turn = np.array(
        [
            [np.cos(angle), -np.sin(angle), 0],
            [np.sin(angle), np.cos(angle), 0],
            [0, 0, 1],
        ]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-spacing[0], spacing[1], spacing[2]])
    affine[:3, 3] = (12.0, -30.0, 7.0)
    return affine
