"""A trained bundle as a true MONAI Bundle: configs that stock MONAI runs, without medseg.

Only fixed class names and fixed ``$`` expressions are written. What a person wrote in
``bundle.json`` enters as numbers, as names of known choices, or as text made inert: MONAI would
run text that starts with ``$`` and open files named after ``%``.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.tools.files import write_whole
from medseg.tools.transforms import IMAGE, LABEL, Above, Step, preprocessing_steps
from medseg.words.config import BundleSpec, MonaiNetworkSpec

META_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the engine contributes to the configs, as data.

    Attributes:
        network: The network for inference, with ``_target_``.
        window: Arguments of the sliding window.
        slice_axis: Axis along which a 2D network takes slices.
    """

    network: Mapping[str, Any]
    window: Mapping[str, Any]
    slice_axis: int


def write_monai_bundle(
    folder: Path, spec: BundleSpec, parts: Parts, scores: Mapping[str, Mapping[str, float]]
) -> None:
    """Write ``configs/metadata.json``, ``inference.json`` and ``train.json``.

    Args:
        folder: The bundle; its weights are in ``models/model.pt``.
        spec: The bundle's spec.
        parts: The engine's contribution.
        scores: ``metric → label → mean over validation cases``.

    Raises:
        OutputError: If a file cannot be written.
    """
    configs = {
        "metadata": metadata(spec, parts, scores),
        "inference": inference_config(spec, parts),
        "train": train_config(spec, parts),
    }
    for name, config in configs.items():
        text = json.dumps(config, indent=4, default=_encode)
        write_whole(folder / "configs" / f"{name}.json", text + "\n")


def _encode(value: Any) -> Any:
    if isinstance(value, Above):
        return value.expression
    raise TypeError(f"no JSON for {value!r}")


def inert(text: str) -> str:
    """Return text that MONAI's config parser takes for nothing but text."""
    text = re.sub(r"^[\s$%@]+", "", text).replace("@", " at ").replace("::", ": ")
    # "%#" asks for another field of the config; "#" alone is read as "::" but asks for nothing.
    return re.sub(r"%(?=[:#])", "% ", text)


def metadata(spec: BundleSpec, parts: Parts, scores: Mapping[str, Mapping[str, float]]) -> Config:
    """Return the content of ``metadata.json``."""
    classes = {"0": "background"} | {str(la.index): inert(la.name.lower()) for la in spec.label_set}
    modality = inert("/".join(dict.fromkeys(channel.modality for channel in spec.channels)))
    return {
        "schema": META_SCHEMA,
        "version": spec.version,
        "changelog": {spec.version: "written by medseg after training"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {name: _version(name) for name in _packages(spec)},
        "name": spec.name,
        "task": inert(spec.description) or spec.name,
        "description": inert(spec.description) or spec.name,
        "authors": inert(spec.authors),
        "copyright": inert(spec.licence),
        "data_type": "pillow" if spec.preprocessing.input == "picture" else "nibabel",
        "image_classes": inert(", ".join(channel.name for channel in spec.channels)),
        "label_classes": json.dumps(classes),
        "pred_classes": json.dumps(classes),
        "eval_metrics": {f"mean_{name}": values["mean"] for name, values in scores.items()},
        "intended_use": inert(spec.intended_use),
        "references": [inert(reference) for reference in spec.references],
        "network_data_format": {
            "inputs": {
                IMAGE: _tensor(
                    modality,
                    len(spec.channels),
                    parts,
                    "magnitude",
                    {str(n): inert(channel.name) for n, channel in enumerate(spec.channels)},
                )
            },
            "outputs": {"pred": _tensor(modality, len(classes), parts, "segmentation", classes)},
        },
    }


def _version(package: str) -> str:
    return importlib.metadata.version(package).partition("+")[0]


def _packages(spec: BundleSpec) -> list[str]:
    """Name what the configs need besides MONAI, torch and numpy."""
    reader = "pillow" if spec.preprocessing.input == "picture" else "nibabel"
    components = ["scikit-image"] if spec.inference.keep_largest else []
    transformers = ["einops"] if isinstance(spec.network, MonaiNetworkSpec) else []
    return [reader, "pytorch-ignite", *components, *transformers]


def _tensor(
    modality: str, channels: int, parts: Parts, meaning: str, channel_def: Mapping[str, str]
) -> Config:
    return {
        "type": "image",
        "format": meaning,
        "modality": modality,
        "num_channels": channels,
        "spatial_shape": list(parts.window["roi_size"]),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": dict(channel_def),
    }


def inference_config(spec: BundleSpec, parts: Parts) -> Config:
    """Return the content of ``inference.json``: a folder of scans in, label maps out.

    Stock MONAI runs it with ``python -m monai.bundle run --config_file configs/inference.json
    --dataset_dir SCANS --output_dir OUT`` from inside the bundle.
    """
    return {
        "imports": ["$import glob", "$import os", "$import numpy as np"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/label_maps'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "datalist": _datalist(spec),
        "network_def": dict(parts.network),
        "network": "$@network_def.to(@device)",
        "preprocessing": _chain([*_load_steps(spec, [IMAGE]), *_input_steps(spec, [IMAGE])]),
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': scan} for scan in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": _inferer(spec, parts),
        "postprocessing": _chain(_output_steps(spec)),
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "@ckpt_path",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
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
        },
        "initialize": ["$monai.utils.set_determinism(seed=0)"],
        "run": ["$os.makedirs(@output_dir, exist_ok=True)", "$@evaluator.run()"],
    }


def _datalist(spec: BundleSpec) -> str:
    ending = ".png" if spec.preprocessing.input == "picture" else ".nii.gz"
    count = len(spec.channels)
    if spec.preprocessing.input == "picture" or count == 1:
        return f"$sorted(glob.glob(os.path.join(@dataset_dir, '*{ending}')))"
    return (
        f"$[[first.replace('_0000{ending}', '_%04d{ending}' % channel) "
        f"for channel in range({count})] "
        f"for first in sorted(glob.glob(os.path.join(@dataset_dir, '*_0000{ending}')))]"
    )


def _load_steps(spec: BundleSpec, keys: list[str]) -> list[Step]:
    load: Step = {
        "_target_": "LoadImaged",
        "keys": keys,
        "image_only": True,
        "ensure_channel_first": True,
    }
    if spec.preprocessing.input == "picture":
        # Grey pictures are often stored as colour; MONAI would see three channels.
        mode = "RGB" if len(spec.channels) == 3 else "L"
        load["reader"] = {
            "_target_": "PILReader",
            "converter": f"$lambda picture: picture.convert('{mode}') "
            "if picture.mode in ('P', 'L', 'LA', 'RGB', 'RGBA') else picture",
        }
    return [load]


def _input_steps(spec: BundleSpec, keys: list[str]) -> list[Step]:
    return [
        *preprocessing_steps(spec, keys),
        {"_target_": "EnsureTyped", "keys": IMAGE, "dtype": "$torch.float32"},
    ]


def _chain(steps: list[Step]) -> Config:
    return {"_target_": "Compose", "transforms": steps}


def _inferer(spec: BundleSpec, parts: Parts) -> Config:
    if spec.network.dims == 2 and spec.preprocessing.input == "volume":
        return {"_target_": "SliceInferer", "spatial_dim": parts.slice_axis, **parts.window}
    return {"_target_": "SlidingWindowInferer", **parts.window}


def _output_steps(spec: BundleSpec) -> list[Step]:
    largest = [la.index for la in spec.label_set if la.name in spec.inference.keep_largest]
    keep = {
        "_target_": "KeepLargestConnectedComponentd",
        "keys": "pred",
        "applied_labels": largest,
        "is_onehot": False,
    }
    return [
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": IMAGE,
            "nearest_interp": False,
            "to_tensor": True,
        },
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        *([keep] if largest else []),
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_ext": ".png" if spec.preprocessing.input == "picture" else ".nii.gz",
            "output_postfix": "seg",
            "output_dtype": "$np.uint8" if len(spec.labels) < 256 else "$np.uint16",
            # The label map is on the scan's grid already. Told of that grid, MONAI's NIfTI writer
            # leaves it alone; untold, it takes a scan of several files for flat and fails.
            "resample": spec.preprocessing.input == "volume",
            "mode": "nearest",
            "separate_folder": False,
        },
    ]


def train_config(spec: BundleSpec, parts: Parts) -> Config:
    """Return the content of ``train.json``: plain training by stock MONAI on an MSD folder.

    It is what MONAI Label's own bundle app fine-tunes with. medseg trains by its own engine.
    """
    training, both = spec.training, [IMAGE, LABEL]
    patch = list(training.patch)
    if spec.network.dims == 2 and spec.preprocessing.input == "volume":
        patch = [*patch, 1]
    squeeze: list[Step] = (
        [{"_target_": "SqueezeDimd", "keys": both, "dim": -1}]
        if len(patch) > len(training.patch)
        else []
    )
    values = spec.label_set.values
    remap: list[Step] = (
        [
            {
                "_target_": "MapLabelValued",
                "keys": LABEL,
                "orig_labels": list(values),
                "target_labels": list(values.values()),
            }
        ]
        if any(value != index for value, index in values.items())
        else []
    )
    fixed = [*_load_steps(spec, both), *remap, *_input_steps(spec, both)]
    random: list[Step] = [
        {"_target_": "SpatialPadd", "keys": both, "spatial_size": patch},
        {
            "_target_": "RandCropByPosNegLabeld",
            "keys": both,
            "label_key": LABEL,
            "spatial_size": patch,
            "pos": 1,
            "neg": 1,
            "num_samples": 1,
        },
        *(
            {"_target_": "RandFlipd", "keys": both, "prob": 0.5, "spatial_axis": axis}
            for axis in training.augmentation.mirror_axes
            if axis < spec.network.dims
        ),
        *squeeze,
    ]
    return {
        "imports": ["$import glob", "$import os", "$import json"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "ckpt_dir": "$@bundle_root + '/models'",
        "epochs": 50,
        "val_interval": 1,
        "learning_rate": min(training.learning_rate, 0.001),
        "datalist": "$json.load(open(os.path.join(@dataset_dir, 'dataset.json')))['training']",
        "files": "$[{key: os.path.join(@dataset_dir, item[key]) for key in ('image', 'label')} "
        "for item in @datalist]",
        "held_back": "$max(1, len(@files) // 5)",
        "network_def": dict(parts.network),
        "network": "$@network_def.to(@device)",
        "loss": {
            "_target_": "DiceCELoss",
            "to_onehot_y": True,
            "softmax": True,
            "include_background": False,
            "batch": True,
        },
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "params": "$@network.parameters()",
            "lr": "@learning_rate",
        },
        "train": _train_section(training.batch_size, fixed, random),
        "validate": _validate_section(spec, parts, fixed),
        "initialize": ["$monai.utils.set_determinism(seed=0)"],
        "run": ["$@train#trainer.run()"],
    }


def _train_section(batch_size: int, fixed: list[Step], random: list[Step]) -> Config:
    return {
        "preprocessing": _chain([*fixed, *random]),
        "dataset": {
            "_target_": "CacheDataset",
            "data": "$@files[@held_back:]",
            "transform": "@train#preprocessing",
            "cache_rate": 1.0,
            "progress": False,
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@train#dataset",
            "batch_size": batch_size,
            "shuffle": True,
            "num_workers": 0,
        },
        "inferer": {"_target_": "SimpleInferer"},
        "handlers": [
            {
                "_target_": "ValidationHandler",
                "validator": "@validate#evaluator",
                "epoch_level": True,
                "interval": "@val_interval",
            },
            {
                "_target_": "StatsHandler",
                "tag_name": "train_loss",
                "output_transform": "$monai.handlers.from_engine(['loss'], first=True)",
            },
        ],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "max_epochs": "@epochs",
            "device": "@device",
            "train_data_loader": "@train#dataloader",
            "network": "@network",
            "loss_function": "@loss",
            "optimizer": "@optimizer",
            "inferer": "@train#inferer",
            "train_handlers": "@train#handlers",
        },
    }


def _validate_section(spec: BundleSpec, parts: Parts, fixed: list[Step]) -> Config:
    return {
        "preprocessing": _chain(fixed),
        "dataset": {
            "_target_": "CacheDataset",
            "data": "$@files[:@held_back]",
            "transform": "@validate#preprocessing",
            "cache_rate": 1.0,
            "progress": False,
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@validate#dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": _inferer(spec, parts),
        "postprocessing": _chain(
            [
                {
                    "_target_": "AsDiscreted",
                    "keys": ["pred", LABEL],
                    "argmax": [True, False],
                    "to_onehot": spec.label_set.channels,
                }
            ]
        ),
        "handlers": [
            {
                "_target_": "CheckpointSaver",
                "save_dir": "@ckpt_dir",
                "save_dict": {"model": "@network"},
                "save_key_metric": True,
                "key_metric_filename": "model.pt",
            },
            {"_target_": "StatsHandler", "iteration_log": False},
        ],
        "key_metric": {
            "val_mean_dice": {
                "_target_": "MeanDice",
                "include_background": False,
                "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
            }
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@validate#dataloader",
            "network": "@network",
            "inferer": "@validate#inferer",
            "postprocessing": "@validate#postprocessing",
            "key_val_metric": "@validate#key_metric",
            "val_handlers": "@validate#handlers",
        },
    }
