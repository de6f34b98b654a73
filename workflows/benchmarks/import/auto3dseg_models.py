"""Auto3DSeg models in the form that its template saves, and inference as the template does it.

The template's own scripts are generated from a download. What they do to a scan, and how they save
a model, is written here anew with the same classes of MONAI's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai_models import WINDOW, make_affine, make_texture

Config = dict[str, Any]

COMMON: Config = {
    "roi_size": [WINDOW] * 3,
    "resample": True,
    "resample_resolution": [1.5, 1.5, 2.0],
    "orientation_ras": True,
    "crop_foreground": True,
    "sigmoid": False,
    "extra_modalities": {},
    "intensity_bounds": [-100, 200],
    "batch_size": 1,
    "num_epochs": 300,
    "loss": {"_target_": "DiceCELoss", "softmax": "$not @sigmoid"},
}
FORMS: Mapping[str, Config] = {
    "ct": {
        "modality": "ct",
        "normalize_mode": "ct",
        "class_names": ["liver", "spleen"],
        "output_classes": 3,
    },
    "mri": {
        "modality": "mri",
        "normalize_mode": "meanstd",
        "class_names": ["prostate"],
        "output_classes": 2,
    },
    "tanh": {
        "modality": "mri",
        "normalize_mode": "meanstdtanh",
        "class_names": ["organ"],
        "output_classes": 2,
        "orientation_ras": False,
        "resample": False,
    },
    "pet_ct": {
        "modality": "ct",
        "normalize_mode": "range",
        "extra_modalities": {"image2": "pet"},
        "class_names": ["tumour", "node"],
        "output_classes": 3,
    },
    "regions": {
        "modality": "mri",
        "normalize_mode": "meanstd",
        "sigmoid": True,
        "class_names": ["core", "whole", "enhancing"],
        "class_index": [[1, 3], [1, 2, 3], [3]],
        "output_classes": 3,
    },
}
GRIDS: Mapping[
    str, tuple[tuple[int, int, int], tuple[float, float, float], float]
] = {
    "within_tolerance": ((40, 36, 30), (1.7, 1.4, 2.2), 0.0),
    "finer": ((52, 44, 40), (1.0, 1.0, 1.4), 0.0),
    "oblique": ((40, 44, 36), (2.2, 2.0, 2.9), 17.0),
    "small": ((18, 20, 14), (1.5, 1.5, 2.0), 0.0),
}
"""Voxels, voxel size in mm, and rotation in degrees of each scan."""


def write_model(name: str, folder: Path, steps: int = 6) -> Path:
    """Train a model a few steps, save it as the template does, and return its file."""
    from monai.losses import DeepSupervisionLoss, DiceCELoss
    from monai.networks.nets import SegResNetDS

    config: Config = COMMON | FORMS[name]
    sigmoid, classes = config["sigmoid"], config["output_classes"]
    inputs = 1 + len(config["extra_modalities"])
    network = {
        "_target_": "SegResNetDS",
        "init_filters": 8,
        "blocks_down": [1, 1, 1],
        "norm": "INSTANCE_NVFUSER",
        "in_channels": "@input_channels",
        "out_channels": classes,
        "dsdepth": 2,
    }
    config |= {"network": network, "input_channels": inputs}
    torch.manual_seed(0)
    built = SegResNetDS(
        init_filters=8,
        blocks_down=(1, 1, 1),
        norm="INSTANCE",
        in_channels=inputs,
        out_channels=classes,
        dsdepth=2,
    )
    loss = DeepSupervisionLoss(
        DiceCELoss(
            softmax=not sigmoid, sigmoid=sigmoid, to_onehot_y=not sigmoid
        )
    )
    optimizer = torch.optim.AdamW(built.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        image = make_texture((inputs, *[WINDOW] * 3), generator)
        label = (image[:1] > 0.3).float() + (image[:1] > 0.8)
        label = label.clamp(max=classes - 1)
        if sigmoid:
            label = torch.cat([label > 1, label > 0, label > 1]).float()
        optimizer.zero_grad()
        loss(built(image[None]), label[None]).backward()
        optimizer.step()
    weights = built.eval().state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.pt"
    content = {
        "state_dict": weights,
        "config": config,
        "epoch": 3,
        "best_metric": np.float64(0.5),
    }
    torch.save(content, file)
    return file


def write_scans(
    name: str, folder: Path, grids: Sequence[str] = tuple(GRIDS)
) -> dict[str, list[Path]]:
    """Write made-up scans for a model; return the files of each."""
    import nibabel as nib

    config = COMMON | FORMS[name]
    channels = 1 + len(config["extra_modalities"])
    folder.mkdir(parents=True, exist_ok=True)
    scans: dict[str, list[Path]] = {}
    for seed, grid in enumerate(grids):
        shape, spacing, degrees = GRIDS[grid]
        generator = torch.Generator().manual_seed(200 + seed)
        texture = make_texture((channels, *shape), generator).numpy()
        affine = make_affine(spacing, degrees)
        scans[grid] = []
        for channel, image in enumerate(texture):
            scan = np.rint(60 + 120 * image)
            # An empty end, to be cropped away.
            scan[: shape[0] // 3] = -1000 if config["modality"] == "ct" else 0
            file = folder / f"{grid}_{channel:04d}.nii.gz"
            nib.save(nib.Nifti1Image(scan.astype(np.int16), affine), file)
            scans[grid].append(file)
    return scans


def infer(file: Path, images: Sequence[Path]) -> np.ndarray:
    """Return the labels of a scan as the template makes them, ``(i, j, k)``.

    With several structures that overlap, ``(channels, i, j, k)``: what each of them is.
    """
    from monai.inferers import SlidingWindowInfererAdapt
    from monai.networks.nets import SegResNetDS
    from monai.transforms import Compose, Invertd

    checkpoint = torch.load(file, weights_only=False)
    config = checkpoint["config"]
    network = SegResNetDS(
        init_filters=8,
        blocks_down=(1, 1, 1),
        norm="INSTANCE",
        in_channels=config["input_channels"],
        out_channels=config["output_classes"],
        dsdepth=2,
    )
    network.load_state_dict(checkpoint["state_dict"])
    keys = ["image", *config["extra_modalities"]]
    chain = Compose(list_transforms(config, keys))
    data = chain(dict(zip(keys, map(str, images), strict=True)))
    slide = SlidingWindowInfererAdapt(
        roi_size=config["roi_size"],
        sw_batch_size=1,
        overlap=0.625,
        mode="gaussian",
    )
    with torch.no_grad():
        logits = slide(data["image"][None].as_tensor(), network.eval())
    scores = logits.sigmoid() if config["sigmoid"] else logits.softmax(1)
    data["pred"] = data["image"].clone()
    data["pred"] = type(data["image"])(scores[0], meta=data["image"].meta)
    returned = Invertd(
        keys="pred", orig_keys="image", transform=chain, nearest_interp=False
    )(data)["pred"]
    if config["sigmoid"]:
        return (returned >= 0.5).numpy()
    return returned.argmax(0).numpy()


def list_transforms(config: Config, keys: list[str]) -> list[Any]:
    """Return what the template does to a scan before its network."""
    from monai.transforms import (
        ConcatItemsd,
        CropForegroundd,
        DeleteItemsd,
        EnsureTyped,
        LoadImaged,
        Orientationd,
        ResampleToMatchd,
        Spacingd,
    )

    chain: list[Any] = [
        LoadImaged(keys=keys, ensure_channel_first=True, dtype=None),
        EnsureTyped(keys=keys, data_type="tensor", dtype=torch.float),
    ]
    first, *extra = keys
    if config["orientation_ras"]:
        chain.append(Orientationd(keys=first, axcodes="RAS"))
    if config["crop_foreground"] and not extra:
        chain.append(
            CropForegroundd(
                keys=first, source_key=first, margin=10, allow_smaller=True
            )
        )
    if config["resample"]:
        size = np.array(config["resample_resolution"])
        chain.append(
            Spacingd(
                keys=first,
                pixdim=list(size),
                mode="bilinear",
                dtype=torch.float,
                min_pixdim=0.75 * size,
                max_pixdim=1.25 * size,
            )
        )
    for key in extra:
        chain.append(
            ResampleToMatchd(keys=key, key_dst=first, dtype=np.float32)
        )
    modes = [config["normalize_mode"], *config["extra_modalities"].values()]
    for key, mode in zip(keys, modes, strict=True):
        chain += normalise(key, mode, config["intensity_bounds"])
    if extra:
        chain += [ConcatItemsd(keys=keys, name=first), DeleteItemsd(keys=extra)]
    return chain


def normalise(key: str, mode: str, bounds: Sequence[float]) -> list[Any]:
    """Return what the template does to a channel's intensities."""
    from monai.transforms import (
        Lambdad,
        NormalizeIntensityd,
        ScaleIntensityRanged,
    )

    window = ScaleIntensityRanged(
        keys=key, a_min=bounds[0], a_max=bounds[1], b_min=-1, b_max=1
    )
    zscore = NormalizeIntensityd(keys=key, nonzero=True, channel_wise=True)
    return {
        "ct": [window, Lambdad(keys=key, func=torch.sigmoid)],
        "range": [window, Lambdad(keys=key, func=torch.sigmoid)],
        "meanstd": [zscore],
        "meanstdtanh": [
            zscore,
            Lambdad(keys=key, func=lambda x: 3 * torch.tanh(x / 3)),
        ],
        "pet": [
            Lambdad(
                keys=key,
                func=lambda x: torch.sigmoid((x - x.min()) / x.std()),
            )
        ],
    }[mode]
