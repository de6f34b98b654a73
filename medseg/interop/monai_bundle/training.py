"""``train.json``: plain training by stock MONAI."""

from __future__ import annotations

from collections.abc import Sequence

from medseg.bundle.spec import BundleSpec
from medseg.interop.monai_bundle.parts import (
    Config,
    Parts,
    compose,
    define_inferer,
    define_input_steps,
    define_load_steps,
    define_network_sections,
)
from medseg.interop.monai_bundle.regions import (
    define_region_loss,
    define_region_scoring,
    define_region_steps,
)
from medseg.labels import LabelSet
from medseg.preprocessing.transforms import IMAGE, LABEL, Step


def build_train_config(spec: BundleSpec, parts: Parts) -> Config:
    """Return the content of ``train.json``: plain training by stock MONAI on an MSD folder.

    It is what MONAI Label's own bundle app fine-tunes with. medseg trains by its own engine.
    """
    training = spec.training
    labels = spec.label_set
    keys = [IMAGE, LABEL]
    load = define_load_steps(spec, keys)
    prepare = define_input_steps(spec, keys)
    fixed = [*load, *_define_value_map(labels), *prepare]
    random = _define_random_steps(spec)
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
        **define_network_sections(parts.network),
        "network": "$@network_def.to(@device)",
        **_define_loss(labels, spec.network.dims, spec.class_weights),
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "params": "$@network.parameters()",
            "lr": "@learning_rate",
        },
        "train": _define_training(training.batch_size, fixed, random),
        "validate": _define_validation(spec, parts, fixed),
        "initialize": ["$monai.utils.set_determinism(seed=0)"],
        "run": ["$@train#trainer.run()"],
    }


def _define_value_map(labels: LabelSet) -> list[Step]:
    """State how values of label files become indices; empty where they are the same."""
    values = labels.values
    if all(value == index for value, index in values.items()):
        return []
    return [
        {
            "_target_": "MapLabelValued",
            "keys": LABEL,
            "orig_labels": list(values),
            "target_labels": list(values.values()),
        }
    ]


def _define_random_steps(spec: BundleSpec) -> list[Step]:
    """State how patches are cut and flipped, and masks of regions made."""
    keys = [IMAGE, LABEL]
    labels = spec.label_set
    patch = list(spec.training.patch)
    is_slice = spec.network.dims == 2 and spec.preprocessing.input == "volume"
    if is_slice:
        patch = [*patch, 1]
    steps: list[Step] = [
        {"_target_": "SpatialPadd", "keys": keys, "spatial_size": patch},
        _define_crop(labels, patch),
    ]
    for axis in spec.training.augmentation.mirror_axes:
        if axis < spec.network.dims:
            flip = {
                "_target_": "RandFlipd",
                "keys": keys,
                "prob": 0.5,
                "spatial_axis": axis,
            }
            steps.append(flip)
    if is_slice:
        steps.append({"_target_": "SqueezeDimd", "keys": keys, "dim": -1})
    return [*steps, *define_region_steps(labels)]


def _define_crop(labels: LabelSet, patch: list[int]) -> Step:
    """State where patches come from: half of them around labelled voxels."""
    where = {
        "keys": [IMAGE, LABEL],
        "label_key": LABEL,
        "spatial_size": patch,
        "num_samples": 1,
    }
    if labels.ignore_index is None:
        return {
            "_target_": "RandCropByPosNegLabeld",
            **where,
            "pos": 1,
            "neg": 1,
        }
    # The step above would take ignored voxels for labelled ones.
    return {
        "_target_": "RandCropByLabelClassesd",
        **where,
        "num_classes": labels.classes,
        "ratios": [len(labels), *(1 for _ in labels)],
        "warn": False,
    }


def _define_loss(
    labels: LabelSet, dims: int, weights: Sequence[float] | None
) -> Config:
    """State the loss: Dice and cross-entropy with the bundle's weights, over annotated voxels."""
    # Rounded numbers of our own, never text of the bundle's.
    stated = (
        None if weights is None else [round(weight, 6) for weight in weights]
    )
    if labels.has_regions:
        return define_region_loss(labels, dims, stated)
    dice = {
        "to_onehot_y": True,
        "softmax": True,
        "include_background": False,
        "batch": True,
    }
    tensor = f"$torch.tensor({stated}, device=@device)"
    if labels.ignore_index is None:
        weight = {"weight": tensor} if stated else {}
        return {"loss": {"_target_": "DiceCELoss", **dice, **weight}}
    # DiceCELoss cannot leave voxels out; its two halves can.
    dice_weight = {"weight": stated[1:]} if stated else {}
    ce_weight = {"weight": tensor} if stated else {}
    leaving_out = {"ignore_index": labels.ignore_index}
    return {
        "dice_loss": {
            "_target_": "DiceLoss",
            **dice,
            **leaving_out,
            **dice_weight,
        },
        "ce_loss": {
            "_target_": "torch.nn.CrossEntropyLoss",
            **leaving_out,
            **ce_weight,
        },
        "loss": "$lambda pred, label: @dice_loss(pred, label) + @ce_loss(pred, label[:, 0].long())",
    }


def _define_scoring(labels: LabelSet) -> list[Step]:
    """State how scores become what the metric compares."""
    channels = labels.channels
    if labels.ignore_index is None:
        keys, argmax = ["pred", LABEL], [True, False]
        return [
            {
                "_target_": "AsDiscreted",
                "keys": keys,
                "argmax": argmax,
                "to_onehot": channels,
            }
        ]
    return [
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {
            "_target_": "MaskIntensityd",
            "keys": ["pred", LABEL],
            "mask_key": LABEL,
            "select_fn": f"$lambda label: label != {labels.ignore_index}",
        },
        {
            "_target_": "AsDiscreted",
            "keys": ["pred", LABEL],
            "to_onehot": channels,
        },
    ]


def _define_training(
    batch_size: int, fixed: list[Step], random: list[Step]
) -> Config:
    return {
        "preprocessing": compose([*fixed, *random]),
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


def _define_validation(
    spec: BundleSpec, parts: Parts, fixed: list[Step]
) -> Config:
    labels = spec.label_set
    return {
        "preprocessing": compose([*fixed, *define_region_steps(labels)]),
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
        "inferer": define_inferer(spec, parts),
        "postprocessing": compose(
            define_region_scoring(labels) or _define_scoring(labels)
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
                "include_background": labels.has_regions,
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
