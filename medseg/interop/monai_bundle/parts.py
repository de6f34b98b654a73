"""What the configs of a MONAI Bundle share: the engine's parts, and steps of a scan's chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medseg.bundle.spec import BundleSpec
from medseg.preprocessing.transforms import (
    IMAGE,
    Step,
    get_padding_value,
    preprocessing_steps,
)

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the engine contributes to the configs, as data.

    Attributes:
        network: The network for inference, with ``_target_``. A chain of layers is written as
            ``torch.nn.Sequential`` with a list of ``layers``.
        window: Arguments of the sliding window.
        slice_axis: Axis along which a 2D network takes slices.
    """

    network: Mapping[str, Any]
    window: Mapping[str, Any]
    slice_axis: int


ABOVE_ZERO = 1e-30
"""MONAI's threshold includes its own value, and a logit of 0 is in no region: it is what MONAI puts
around a crop."""

CHAIN = "torch.nn.Sequential"


def define_network_sections(network: Mapping[str, Any]) -> Config:
    """State the network as sections of a config, ``network_def`` among them.

    MONAI gives a class its arguments by name, and ``torch.nn.Sequential`` takes none by name. So
    the layers of each chain stand in a section of their own, and the chain is a fixed expression
    over it.
    """
    sections: Config = {}

    def define(part: Any) -> Any:
        if not (isinstance(part, Mapping) and "_target_" in part):
            return part
        if part["_target_"] != CHAIN:
            return {name: define(value) for name, value in part.items()}
        name = f"layers_{len(sections)}"
        sections[name] = []  # takes its number before the layers take theirs
        sections[name] = [define(layer) for layer in part["layers"]]
        return f"$torch.nn.Sequential(*@{name})"

    definition = define(network)
    return {**sections, "network_def": definition}


def define_load_steps(spec: BundleSpec, keys: list[str]) -> list[Step]:
    """State how MONAI reads the files of a scan, and of its label."""
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


def define_input_steps(spec: BundleSpec, keys: list[str]) -> list[Step]:
    """State the bundle's preprocessing, ending in what the network takes."""
    return [
        *preprocessing_steps(spec, keys),
        {"_target_": "EnsureTyped", "keys": IMAGE, "dtype": "$torch.float32"},
        *_define_empty_clicks(spec),
    ]


def _define_empty_clicks(spec: BundleSpec) -> list[Step]:
    """State how the channels for clicks are added, all 0: stock MONAI shows the network none."""
    missing = spec.input_channels - len(spec.channels)
    if not missing:
        return []
    axes = 2 if spec.preprocessing.input == "picture" else 3
    steps: list[Step] = []
    outside = get_padding_value(spec)
    if outside:
        # Or the sliding window would pad these channels, too, with what lies outside a scan.
        size = [*spec.training.patch, -1][:axes]
        pad = {"_target_": "SpatialPadd", "keys": IMAGE, "spatial_size": size}
        steps.append({**pad, "value": outside})
    # torch pads from the last axis to the first, which is that of channels.
    margins = [0, 0] * axes + [0, missing]
    add = f"$lambda image: torch.nn.functional.pad(image, {margins})"
    steps.append({"_target_": "Lambdad", "keys": IMAGE, "func": add})
    return steps


def compose(steps: list[Step]) -> Config:
    """State a chain of transforms."""
    return {"_target_": "Compose", "transforms": steps}


def define_inferer(spec: BundleSpec, parts: Parts) -> Config:
    """State how whole scans pass through the network."""
    if spec.network.dims == 2 and spec.preprocessing.input == "volume":
        return {
            "_target_": "SliceInferer",
            "spatial_dim": parts.slice_axis,
            **parts.window,
        }
    return {"_target_": "SlidingWindowInferer", **parts.window}
