"""``metadata.json``: what a bundle says of itself, as inert text."""

from __future__ import annotations

import importlib.metadata
import json
import math
import re
from collections.abc import Mapping

from medseg.bundle.spec import (
    CLICK_CHANNELS,
    DEFAULT_LOSS,
    BundleSpec,
    NamedNetworkSpec,
    StagedUNetSpec,
)
from medseg.interop.monai_bundle.departures import list_departures
from medseg.interop.monai_bundle.parts import Config, Parts
from medseg.preprocessing.transforms import IMAGE

META_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)

EXPORTED = "written by medseg after training"
"""What the changelog of every MONAI Bundle says that medseg has written."""


def make_inert(text: str) -> str:
    """Return text that MONAI's config parser takes for nothing but text."""
    text = (
        re.sub(r"^[\s$%@]+", "", text).replace("@", " at ").replace("::", ": ")
    )
    # "%#" asks for another field of the config; "#" alone is read as "::" but asks for nothing.
    return re.sub(r"%(?=[:#])", "% ", text)


def build_metadata(
    spec: BundleSpec, parts: Parts, scores: Mapping[str, Mapping[str, float]]
) -> Config:
    """Return the content of ``metadata.json``.

    Args:
        spec: The bundle's spec.
        parts: The engine's contribution.
        scores: ``metric → label → mean over validation cases``.
    """
    modalities = dict.fromkeys(channel.modality for channel in spec.channels)
    modality = make_inert("/".join(modalities))
    inputs = {
        str(n): make_inert(channel.name)
        for n, channel in enumerate(spec.channels)
    }
    if spec.training.clicks is not None:
        for name in CLICK_CHANNELS:
            inputs[str(len(inputs))] = name
    classes = json.dumps(_name_classes(spec))
    outputs = _name_outputs(spec)
    description = make_inert(spec.description) or spec.name
    is_picture = spec.preprocessing.input == "picture"
    return {
        "schema": META_SCHEMA,
        "version": spec.version,
        "changelog": {spec.version: EXPORTED},
        "monai_version": _get_version("monai"),
        "pytorch_version": _get_version("torch"),
        "numpy_version": _get_version("numpy"),
        "required_packages_version": {
            **{name: _get_version(name) for name in _list_packages(spec)},
            **_list_network_packages(spec),
        },
        "name": spec.name,
        "task": description,
        "description": description,
        "authors": make_inert(spec.authors),
        "copyright": make_inert(spec.licence),
        "data_type": "pillow" if is_picture else "nibabel",
        "image_classes": make_inert(
            ", ".join(channel.name for channel in spec.channels)
        ),
        "label_classes": classes,
        "pred_classes": classes,
        "eval_metrics": _list_metrics(scores),
        "intended_use": make_inert(spec.intended_use),
        "references": [make_inert(reference) for reference in spec.references],
        "network_data_format": {
            "inputs": {
                IMAGE: _describe_tensor(modality, parts, "magnitude", inputs)
            },
            "outputs": {
                "pred": _describe_tensor(
                    modality, parts, "segmentation", outputs
                )
            },
        },
        **_explain_training(spec),
        **_explain_clicks(spec),
        **_explain_departures(spec),
    }


def _name_classes(spec: BundleSpec) -> dict[str, str]:
    """Return the values of label maps and what they mean."""
    classes = {"0": "background"}
    for label in spec.label_set:
        classes[str(label.index)] = make_inert(label.name.lower())
    return classes


def _name_outputs(spec: BundleSpec) -> dict[str, str]:
    """Return the network's output channels and what they mean."""
    if not spec.regions:
        return _name_classes(spec)
    outputs = {}
    for region in spec.label_set.regions:
        outputs[str(region.channel)] = make_inert(region.name.lower())
    return outputs


def _list_metrics(
    scores: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    metrics = {}
    for name, values in scores.items():
        if math.isfinite(values["mean"]):  # JSON knows no NaN
            metrics[f"mean_{name}"] = values["mean"]
    return metrics


def _explain_training(spec: BundleSpec) -> Config:
    """Say why there is no ``train.json``, where there is none."""
    if spec.training.loss == DEFAULT_LOSS:
        return {}
    return {
        "training": f"The loss {spec.training.loss} is not one of MONAI's. Stock MONAI cannot "
        "train this bundle, so there is no train.json; train it with medseg."
    }


def _explain_clicks(spec: BundleSpec) -> Config:
    """Say what becomes of clicks, where the bundle takes them."""
    if spec.training.clicks is None:
        return {}
    return {
        "clicks": "Stock MONAI runs this bundle without clicks: the last three channels of its "
        "input are 0. medseg label and medseg.Segmenter.correct take clicks."
    }


def _explain_departures(spec: BundleSpec) -> Config:
    """Say where label maps of stock MONAI differ from medseg's, where they do."""
    departures = list_departures(spec)
    return {"departures": departures} if departures else {}


def _get_version(package: str) -> str:
    return importlib.metadata.version(package).partition("+")[0]


def _list_packages(spec: BundleSpec) -> list[str]:
    """Name what the configs need besides MONAI, torch and numpy."""
    reader = "pillow" if spec.preprocessing.input == "picture" else "nibabel"
    packages = [reader, "pytorch-ignite"]
    if spec.inference.keep_largest:
        packages.append("scikit-image")
    if isinstance(spec.network, NamedNetworkSpec):
        packages.append("einops")  # transformer networks
    return packages


def _list_network_packages(spec: BundleSpec) -> dict[str, str]:
    """Name the package of nnU-Net's networks, which medseg itself does without."""
    if not isinstance(spec.network, StagedUNetSpec):
        return {}
    return {"dynamic_network_architectures": "0.4.4"}


def _describe_tensor(
    modality: str, parts: Parts, meaning: str, channels: Mapping[str, str]
) -> Config:
    return {
        "type": "image",
        "format": meaning,
        "modality": modality,
        "num_channels": len(channels),
        "spatial_shape": list(parts.window["roi_size"]),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": dict(channels),
    }
