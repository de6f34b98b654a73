"""Bundles made up for tests: small networks, random weights, and traps."""

from __future__ import annotations

import json
import os
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec import BundleSpec, RefinementFinding, TrainedSpec
from medseg.bundle.spec_files import write_bundle, write_trained
from medseg.interop.monai_bundle import Parts, write_monai_bundle
from medseg.networks.building import build_network, select_inference_weights
from medseg.networks.definition import define_network
from medseg.networks.inferers import SLICE_AXIS, get_window_arguments
from medseg.networks.refiner import (
    build_refiner,
    define_refined_network,
    get_trainable_part,
    merge_weights,
)
from medseg.training.run_folder import RunFolder

SMALL: dict[str, Any] = {
    "name": "made_up",
    "channels": [{"name": "CT", "modality": "CT"}],
    "labels": [{"index": 1, "name": "liver"}, {"index": 2, "name": "kidney"}],
    "network": {"kind": "unet", "channels": [4, 8, 16], "strides": [1, 2, 2]},
    "training": {
        "patch": [16, 16, 16],
        "steps": 4,
        "batch_size": 2,
        "augmentation": "none",
    },
    "tracking": {"register_model": False},
}
"""The content of the smallest sensible ``bundle.json``."""

NESTED: dict[str, Any] = {
    "labels": [
        {"index": 1, "name": "edema"},
        {"index": 2, "name": "core"},
        {"index": 3, "name": "enhancing"},
    ],
    "regions": [
        {"name": "whole", "labels": ["edema", "core", "enhancing"]},
        {"name": "inner", "labels": ["core", "enhancing"]},
        {"name": "enhancing", "labels": ["enhancing"]},
    ],
}
"""Sections of a bundle whose structures lie in each other."""


def content(**sections: Any) -> dict[str, Any]:
    """Return ``SMALL`` with sections replaced; a dict for a section adds to it."""
    made = deepcopy(SMALL)
    for name, section in sections.items():
        both = isinstance(section, dict) and isinstance(made.get(name), dict)
        made[name] = made[name] | section if both else section
    return made


def made_spec(**sections: Any) -> BundleSpec:
    """Return the checked spec of ``content``."""
    return parse_spec(content(**sections))


def write_json(folder: Path, made: Any, name: str = "bundle.json") -> Path:
    """Write ``made`` into a folder; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(json.dumps(made), encoding="utf-8")
    return file


def monai_parts(spec: BundleSpec) -> Parts:
    """Return what the engine contributes to the MONAI configs, as a training does."""
    return Parts(
        define_network(spec, supervised=False),
        get_window_arguments(spec),
        SLICE_AXIS,
    )


def trained_bundle(folder: Path, spec: BundleSpec, seed: int = 0) -> Path:
    """Write a trained bundle whose weights are random; return its folder."""
    torch.manual_seed(seed)
    run = RunFolder(folder)
    write_bundle(spec, run.bundle)
    run.save_weights(select_inference_weights(build_network(spec), spec))
    scores = {"dice": {"liver": 0.5, "mean": 0.5}}
    write_monai_bundle(folder, spec, monai_parts(spec), scores)
    return folder


def refined_bundle(
    folder: Path, spec: BundleSpec, *, applied: bool, seed: int = 0
) -> Path:
    """Write a trained bundle with a refiner, all weights random; return its folder."""
    torch.manual_seed(seed)
    run = RunFolder(folder)
    write_bundle(spec, run.bundle)
    coarse = select_inference_weights(build_network(spec), spec)
    refiner = {
        # At random R changes much; as built it would change nothing.
        name: torch.randn_like(value) if value.ndim > 1 else value
        for name, value in get_trainable_part(build_refiner(spec))
        .state_dict()
        .items()
    }
    run.save_weights(
        merge_weights(spec, coarse, refiner) if applied else coarse
    )
    run.save_weights(refiner, run.weights.with_name("refiner.pt"))
    finding = RefinementFinding(
        applied=applied, dice_gain=0.1, interval=(0.0, 0.2), cases=9
    )
    write_trained(TrainedSpec(refinement=finding), folder)
    network = (
        define_refined_network(spec)
        if applied
        else define_network(spec, supervised=False)
    )
    parts = Parts(network, get_window_arguments(spec), SLICE_AXIS)
    write_monai_bundle(
        folder, spec, parts, {"dice": {"liver": 0.5, "mean": 0.5}}
    )
    return folder


def run_stock(bundle: Path, config: str, **settings: Any) -> ConfigParser:
    """Run a config by MONAI's own parser, as ``python -m monai.bundle run`` does."""
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / config)
    parser.read_meta(bundle / "configs" / "metadata.json")
    parser.update({"bundle_root": str(bundle), **settings})
    for section in ("initialize", "run"):
        for position in range(len(parser[section])):
            parser.get_parsed_content(f"{section}::{position}")
    return parser


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self._command = f"touch {canary}"

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self._command,)


def pickled_trap(canary: Path) -> bytes:
    """Return a pickle that makes ``canary`` when it is read without care."""
    return pickle.dumps({"state": Trap(canary)})
