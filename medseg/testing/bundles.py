"""A small bundle for phantoms, for examples and tests."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from medseg._support.files import write_atomically
from medseg.bundle.bundle import BUNDLE_FILE, load_bundle

EXAMPLE: dict[str, Any] = {
    "name": "example",
    "channels": [{"name": "CT", "modality": "CT"}],
    "labels": [{"index": 1, "name": "liver"}, {"index": 2, "name": "kidney"}],
    "network": {"kind": "unet", "channels": [4, 8, 16], "strides": [1, 2, 2]},
    "training": {"patch": [16, 16, 16], "steps": 10},
}
"""Its ``bundle.json``; the labels are those of phantoms."""


def write_example_bundle(
    folder: Path | None = None,
    *,
    trained: bool = False,
    interactive: bool = False,
) -> Path:
    """Write a small bundle for phantoms.

    Args:
        folder: The folder to write to, made if needed; a new temporary one unless given.
        trained: Whether it has weights. They are random, so what it finds means nothing.
        interactive: Whether it takes clicks.

    Returns:
        The bundle's folder.
    """
    folder = Path(tempfile.mkdtemp()) if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    content = dict(EXAMPLE)
    if interactive:
        content["training"] = {**EXAMPLE["training"], "clicks": {}}
    text = json.dumps(content, indent=2)
    write_atomically(folder / BUNDLE_FILE, text)
    if trained:
        _write_random_weights(folder)
    return folder


def _write_random_weights(folder: Path) -> None:
    # Loaded here, so that phantoms can be made without torch.
    import torch

    from medseg.networks.building import build_network, select_inference_weights
    from medseg.training.run_folder import RunFolder

    spec = load_bundle(folder).spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(spec)
    RunFolder(folder).save_weights(select_inference_weights(network, spec))
