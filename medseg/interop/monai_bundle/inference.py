"""``inference.json``: a folder of scans in, label maps out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from medseg.bundle.spec import BundleSpec
from medseg.interop.monai_bundle.parts import (
    ABOVE_ZERO,
    Config,
    Parts,
    compose,
    define_inferer,
    define_input_steps,
    define_load_steps,
    define_network_sections,
)
from medseg.preprocessing.transforms import IMAGE, Step

_HALF = 0.5


def build_inference_config(
    spec: BundleSpec, parts: Parts, members: Sequence[str] = ("model.pt",)
) -> Config:
    """Return the content of ``inference.json``: a folder of scans in, label maps out.

    Stock MONAI runs it with ``python -m monai.bundle run --config_file configs/inference.json
    --dataset_dir SCANS --output_dir OUT`` from inside the bundle.

    Args:
        spec: The bundle's spec, as its training decided; what is not decided is not done.
        parts: The engine's contribution.
        members: Weight files in ``models``; the scores of several are averaged.
    """
    preds: list[str] = []
    if len(members) > 1:
        preds = [f"pred_{number}" for number in range(len(members))]
    load = define_load_steps(spec, [IMAGE])
    prepare = _hide_path(define_input_steps(spec, [IMAGE]))
    return {
        "imports": [
            "$import copy",
            "$import glob",
            "$import os",
            "$import numpy as np",
        ],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/label_maps'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "datalist": _define_datalist(spec),
        **define_network_sections(parts.network),
        "network": "$@network_def.to(@device)",
        "networks": f"$[@network, *(copy.deepcopy(@network) for _ in range({len(members) - 1}))]",
        "mirroring": _define_mirroring(spec),
        "preprocessing": compose([*load, *prepare]),
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
        "inferer": define_inferer(spec, parts),
        "postprocessing": compose(
            [*_define_mean(preds), *_define_output_steps(spec)]
        ),
        "handlers": [
            _define_loader(number, file) for number, file in enumerate(members)
        ],
        "evaluator": {
            **_define_evaluator(preds),
            "device": "@device",
            "val_data_loader": "@dataloader",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "initialize": [
            "$monai.utils.set_determinism(seed=0)",
            "$@mirroring",
            *_define_window_weights(spec),
        ],
        "run": [
            "$os.makedirs(@output_dir, exist_ok=True)",
            "$@evaluator.run()",
        ],
    }


def _define_mirroring(spec: BundleSpec) -> str:
    """State what makes each network average over flips of its window, where the bundle asks."""
    axes = spec.mirror_axes
    if not (spec.inference.mirror and axes):
        return "$[]"
    flips: list[list[int]] = []
    for count in range(1, len(axes) + 1):
        for flipped in itertools.combinations(axes, count):
            # Behind batch and channels.
            flips.append([2 + axis for axis in flipped])
    return (
        "$[network.register_forward_hook(lambda net, given, scores: (scores + sum("
        f"net.forward(given[0].flip(axes)).flip(axes) for axes in {flips})) / {len(flips) + 1}) "
        "for network in @networks]"
    )


def _define_window_weights(spec: BundleSpec) -> list[str]:
    """State weights that MONAI's sliding window has no name for; empty where it has one."""
    if spec.inference.window_weights != "nnunet":
        return []
    size = list(spec.training.patch)
    # A product of one Gaussian per axis, about the voxel at half the window's size. The smallest
    # numbers of half precision are the least it becomes.
    along = f"[torch.exp(-0.5 * ((torch.arange(n) - n // 2) * 8 / n) ** 2) for n in {size}]"
    product = f"torch.stack(torch.meshgrid(*{along}, indexing='ij')).prod(0)"
    is_slice = spec.network.dims == 2 and spec.preprocessing.input == "volume"
    place = "[None, None, ..., None]" if is_slice else "[None, None]"
    weights = f"(10 * {product}).clamp_min(6e-8){place}"
    return [f"$setattr(@inferer, 'roi_weight_map', {weights})"]


def _define_loader(number: int, file: str) -> Config:
    path = (
        "@ckpt_path"
        if file == "model.pt"
        else f"$@bundle_root + '/models/{file}'"
    )
    return {
        "_target_": "CheckpointLoader",
        "load_path": path,
        "load_dict": {"model": f"$@networks[{number}]"},
        "map_location": "@device",
    }


def _define_evaluator(preds: Sequence[str]) -> Config:
    if not preds:
        return {"_target_": "SupervisedEvaluator", "network": "@network"}
    return {
        "_target_": "EnsembleEvaluator",
        "networks": "@networks",
        "pred_keys": list(preds),
    }


def _define_mean(preds: Sequence[str]) -> list[Step]:
    if not preds:
        return []
    return [
        {
            "_target_": "MeanEnsembled",
            "keys": list(preds),
            "output_key": "pred",
        },
        {"_target_": "DeleteItemsd", "keys": list(preds)},
    ]


def _hide_path(steps: list[Step]) -> list[Step]:
    """Hide MONAI Label's ``image_path`` while resampling: MONAI takes it for metadata and fails."""
    path, aside = f"{IMAGE}_path", "path_of_image"
    hidden: list[Step] = []
    for step in steps:
        if step["_target_"] == "Spacingd":
            hidden += [
                *_rename_entry(path, aside),
                step,
                *_rename_entry(aside, path),
            ]
        else:
            hidden.append(step)
    return hidden


def _rename_entry(old: str, new: str) -> list[Step]:
    """State how an entry that may be absent gets another name."""
    copy = {"_target_": "CopyItemsd", "keys": old, "times": 1, "names": new}
    return [
        copy | {"allow_missing_keys": True},
        {"_target_": "DeleteItemsd", "keys": old},
    ]


def _define_datalist(spec: BundleSpec) -> str:
    ending = ".png" if spec.preprocessing.input == "picture" else ".nii.gz"
    count = len(spec.channels)
    if spec.preprocessing.input == "picture" or count == 1:
        return f"$sorted(glob.glob(os.path.join(@dataset_dir, '*{ending}')))"
    return (
        f"$[[first.replace('_0000{ending}', '_%04d{ending}' % channel) "
        f"for channel in range({count})] "
        f"for first in sorted(glob.glob(os.path.join(@dataset_dir, '*_0000{ending}')))]"
    )


def _define_labels_on_scan(spec: BundleSpec) -> list[Step]:
    """State how logits on the network's grid become labels on the scan's."""
    decoding = _define_region_decoding(spec) or [
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    ]
    back: Step = {
        "_target_": "Invertd",
        "keys": "pred",
        "transform": "@preprocessing",
        "orig_keys": IMAGE,
        "nearest_interp": spec.inference.resample == "labels",
        "to_tensor": True,
    }
    if spec.inference.keep_largest_on == "input":
        return [*decoding, *_define_largest(spec), back]
    return [*_define_return(spec, decoding, back), *_define_largest(spec)]


def _define_return(
    spec: BundleSpec, decoding: list[Step], back: Step
) -> list[Step]:
    """State in which order logits are decoded and return to the scan's grid."""
    resample = spec.inference.resample
    if resample == "labels":
        return [*decoding, back]
    if resample == "logits":
        return [back, *decoding]
    curve = "sigmoid" if spec.regions else "softmax"
    activate: Step = {"_target_": "Activationsd", "keys": "pred", curve: True}
    return [activate, back, *decoding]


def _define_region_decoding(spec: BundleSpec) -> list[Step]:
    """State how logits of regions become a label map; empty where labels exclude each other.

    Each region's mask is multiplied by a power of two that grows along the order, so that the
    highest product names the last region that is there. Powers of two are exact in float32.
    """
    if not spec.regions:
        return []
    regions = spec.label_set.regions
    ranks = [2.0 ** (region.channel + 1) for region in regions]
    is_probability = spec.inference.resample == "probabilities"
    threshold = _HALF if is_probability else ABOVE_ZERO
    return [
        {"_target_": "AsDiscreted", "keys": "pred", "threshold": threshold},
        {
            "_target_": "NormalizeIntensityd",
            "keys": "pred",
            "subtrahend": [0.0 for _ in ranks],
            "divisor": [1 / rank for rank in ranks],
            "channel_wise": True,
        },
        {
            "_target_": "Lambdad",
            "keys": "pred",
            "func": {
                "_target_": "torch.amax",
                "_mode_": "callable",
                "dim": 0,
                "keepdim": True,
            },
        },
        {
            "_target_": "MapLabelValued",
            "keys": "pred",
            "orig_labels": [0.0, *ranks],
            "target_labels": [0, *(region.paints for region in regions)],
        },
    ]


def _define_largest(spec: BundleSpec) -> list[Step]:
    """State of which labels only the largest component is kept; empty where of none."""
    names = spec.inference.keep_largest or ()
    largest = [la.index for la in spec.label_set if la.name in names]
    if not largest:
        return []
    return [
        {
            "_target_": "KeepLargestConnectedComponentd",
            "keys": "pred",
            "applied_labels": largest,
            "is_onehot": False,
        }
    ]


def _define_output_steps(spec: BundleSpec) -> list[Step]:
    return [
        *_define_labels_on_scan(spec),
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_ext": ".png"
            if spec.preprocessing.input == "picture"
            else ".nii.gz",
            "output_postfix": "seg",
            "output_dtype": "$np.uint8"
            if len(spec.labels) < 256
            else "$np.uint16",
            # The label map is on the scan's grid already. Told of that grid, MONAI's NIfTI writer
            # leaves it alone; untold, it takes a scan of several files for flat and fails.
            "resample": spec.preprocessing.input == "volume",
            "mode": "nearest",
            "separate_folder": False,
        },
    ]
