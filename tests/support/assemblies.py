"""Small assemblies of bundles with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.volume import Volume

WINDOW = {
    "spacing_mm": [2, 2, 2],
    "intensity": {"kind": "window", "low": -1000, "high": 1000},
}
"""A preprocessing that parts share."""


def number_labels(names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"index": index, "name": name}
        for index, name in enumerate(names, start=1)
    ]


def write_assembly(folder: Path, **content: Any) -> Path:
    """Write an ``assembly.json``; two parts, organs and bones, unless told otherwise."""
    described = {
        "name": "thorax",
        "version": "1.2.0",
        "labels": number_labels(["rib", "liver", "left_kidney"]),
        "parts": [
            {
                "name": "organs",
                "bundle": "parts/organs",
                "labels": {"liver": "liver", "kidney": "left_kidney"},
            },
            {
                "name": "bones",
                "bundle": "parts/bones",
                "labels": {"rib": "rib"},
            },
        ],
    } | content
    (folder / "assembly.json").write_text(json.dumps(described))
    return folder


def write_thorax(make: Callable[..., Path], **content: Any) -> Path:
    """Write an assembly of two bundles that look alike.

    Args:
        make: The fixture ``untrained_bundle``.
        content: Of the ``assembly.json``, other than usual.
    """
    make("thorax/parts/organs", 0, preprocessing=WINDOW)
    bones = make(
        "thorax/parts/bones",
        1,
        preprocessing=WINDOW,
        labels=number_labels(["rib", "spine", "skull"]),
    )
    return write_assembly(bones.parents[1], **content)


def make_scan(shape: tuple[int, int, int] = (30, 26, 22)) -> Volume:
    noise = np.random.default_rng(3).normal(0, 400, (1, *shape))
    affine = np.diag([1.5, 1.5, 2.5, 1.0])
    return Volume(noise.astype(np.float32), affine)
