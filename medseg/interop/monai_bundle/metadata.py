"""``metadata.json``: what a bundle says of itself, as inert text."""

from __future__ import annotations

import importlib.metadata
import json
import math
import re
from collections.abc import Mapping

from medseg.bundle.spec import DEFAULT_LOSS, BundleSpec, NamedNetworkSpec
from medseg.interop.monai_bundle.parts import Config, Parts
from medseg.preprocessing.transforms import IMAGE

META_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)


def make_inert(text: str) -> str:
    """Return text that MONAI's config parser takes for nothing but text."""
    text = re.sub(r"^[\s$%@]+", "", text).replace("@", " at ").replace("::", ": ")
    # "%#" asks for another field of the config; "#" alone is read as "::" but asks for nothing.
    return re.sub(r"%(?=[:#])", "% ", text)


def build_metadata(
    spec: BundleSpec, parts: Parts, scores: Mapping[str, Mapping[str, float]]
) -> Config:
    """Return the content of ``metadata.json``."""
    classes = {"0": "background"} | {
        str(la.index): make_inert(la.name.lower()) for la in spec.label_set
    }
    channels = classes
    if spec.regions:
        channels = {
            str(one.channel): make_inert(one.name.lower()) for one in spec.label_set.regions
        }
    modality = make_inert("/".join(dict.fromkeys(channel.modality for channel in spec.channels)))
    return {
        "schema": META_SCHEMA,
        "version": spec.version,
        "changelog": {spec.version: "written by medseg after training"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {name: _version(name) for name in _packages(spec)},
        "name": spec.name,
        "task": make_inert(spec.description) or spec.name,
        "description": make_inert(spec.description) or spec.name,
        "authors": make_inert(spec.authors),
        "copyright": make_inert(spec.licence),
        "data_type": "pillow" if spec.preprocessing.input == "picture" else "nibabel",
        "image_classes": make_inert(", ".join(channel.name for channel in spec.channels)),
        "label_classes": json.dumps(classes),
        "pred_classes": json.dumps(classes),
        "eval_metrics": {
            f"mean_{name}": values["mean"]
            for name, values in scores.items()
            if math.isfinite(values["mean"])  # JSON knows no NaN
        },
        "intended_use": make_inert(spec.intended_use),
        "references": [make_inert(reference) for reference in spec.references],
        "network_data_format": {
            "inputs": {
                IMAGE: _tensor(
                    modality,
                    len(spec.channels),
                    parts,
                    "magnitude",
                    {str(n): make_inert(channel.name) for n, channel in enumerate(spec.channels)},
                )
            },
            "outputs": {"pred": _tensor(modality, len(channels), parts, "segmentation", channels)},
        },
        **_training_note(spec),
    }


def _training_note(spec: BundleSpec) -> Config:
    """Say why there is no ``train.json``, where there is none."""
    if spec.training.loss == DEFAULT_LOSS:
        return {}
    return {
        "training": f"The loss {spec.training.loss} is not one of MONAI's. Stock MONAI cannot "
        "train this bundle, so there is no train.json; train it with medseg."
    }


def _version(package: str) -> str:
    return importlib.metadata.version(package).partition("+")[0]


def _packages(spec: BundleSpec) -> list[str]:
    """Name what the configs need besides MONAI, torch and numpy."""
    reader = "pillow" if spec.preprocessing.input == "picture" else "nibabel"
    components = ["scikit-image"] if spec.inference.keep_largest else []
    transformers = ["einops"] if isinstance(spec.network, NamedNetworkSpec) else []
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
