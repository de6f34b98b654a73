"""Bundles, cases and scans that rows are made with."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from session import GPU

from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec import BundleSpec
from medseg.bundle.spec_files import write_bundle
from medseg.datasets.cache import CachedCase
from medseg.interop.monai_bundle import Parts, write_monai_bundle
from medseg.networks.building import build_network, select_inference_weights
from medseg.networks.definition import define_network
from medseg.networks.inferers import SLICE_AXIS, get_window_arguments
from medseg.testing import make_phantom
from medseg.training.learner import Callbacks, Learner
from medseg.training.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]

TINY: dict[str, Any] = {"channels": [4, 8, 8], "strides": [1, 2, 2]}

NNUNET: dict[str, Any] = {
    "channels": [32, 64, 128, 256, 320, 320],
    "strides": [1, 2, 2, 2, 2, 2],
    "deep_supervision": True,
}
"""A network of the size that nnU-Net plans for 128³."""


def make_spec(**sections: Mapping[str, Any]) -> BundleSpec:
    """Return the hippocampus bundle for a GPU with fields of its sections replaced."""
    file = ROOT / "bundles" / "hippocampus_mr" / "gpu.json"
    content = json.loads(file.read_text())
    content.pop("$schema")
    for name, section in sections.items():
        if isinstance(section, Mapping):
            section = {**content.get(name, {}), **section}
        content[name] = section
    return parse_spec(content)


def make_cases(count: int, shape: tuple[int, int, int]) -> list[CachedCase]:
    """Return preprocessed phantoms."""
    return [_make_case(number, shape) for number in range(count)]


def _make_case(seed: int, shape: tuple[int, int, int]) -> CachedCase:
    volume, label = make_phantom(seed, shape)
    image = (volume.array - volume.array.mean()) / volume.array.std()
    flat = label.reshape(-1)
    foreground = {index: np.flatnonzero(flat == index) for index in (1, 2)}
    return CachedCase(
        f"{seed:010x}",
        f"{seed:010x}",
        torch.from_numpy(image.astype(np.float16)),
        torch.from_numpy(label[None].astype(np.uint8)),
        {key: found for key, found in foreground.items() if len(found)},
        (1.0, 1.0, 1.0),
    )


def write_trained(
    spec: BundleSpec, *, learns: bool = False, folder: Path | None = None
) -> Path:
    """Write a bundle with weights, random or of a short training; return its folder."""
    if folder is None:
        folder = Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    run = RunFolder(folder)
    write_bundle(spec, run.bundle)
    torch.manual_seed(0)
    network = build_network(spec)
    if learns:
        x, y, z = spec.training.patch
        learner = Learner(spec, make_cases(4, (x + 8, y + 8, z + 8)), GPU)
        learner.learn(Callbacks(lambda _: True, lambda _: None))
        network.load_state_dict(learner.inference_network.state_dict())
    run.save_weights(select_inference_weights(network, spec))
    parts = Parts(
        define_network(spec, supervised=False),
        get_window_arguments(spec),
        SLICE_AXIS,
    )
    write_monai_bundle(folder, spec, parts, {"dice": {"mean": 0.5}})
    return folder


def write_assembly(specs: Sequence[BundleSpec]) -> Path:
    """Write an assembly of bundles with random weights, whose labels all differ."""
    folder = Path(tempfile.mkdtemp())
    names: list[str] = []
    parts = []
    for number, spec in enumerate(specs):
        place = f"part{number}"
        write_trained(spec, folder=folder / place)
        own = [label.name for label in spec.label_set]
        same = {name: name for name in own}
        parts.append({"name": place, "bundle": place, "labels": same})
        names += own
    labels = [
        {"index": index, "name": name}
        for index, name in enumerate(names, start=1)
    ]
    described = {"name": "whole_body", "labels": labels, "parts": parts}
    (folder / "assembly.json").write_text(json.dumps(described))
    return folder
