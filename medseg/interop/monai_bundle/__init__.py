"""A trained bundle as a true MONAI Bundle: configs that stock MONAI runs, without medseg.

Only fixed class names and fixed ``$`` expressions are written. What a person wrote in
``bundle.json`` enters as numbers, as names of known choices, or as text made inert: MONAI would
run text that starts with ``$`` and open files named after ``%``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg._support.files import write_atomically
from medseg.bundle.spec import DEFAULT_LOSS, BundleSpec
from medseg.interop.monai_bundle.inference import build_inference_config
from medseg.interop.monai_bundle.metadata import build_metadata, make_inert
from medseg.interop.monai_bundle.parts import Parts
from medseg.interop.monai_bundle.training import build_train_config
from medseg.preprocessing.transforms import (
    AboveThreshold,
    FromLowest,
    Nonzero,
    TanhCurve,
)

__all__ = [
    "Parts",
    "build_inference_config",
    "build_metadata",
    "build_train_config",
    "make_inert",
    "write_monai_bundle",
]


def write_monai_bundle(
    folder: Path,
    spec: BundleSpec,
    parts: Parts,
    scores: Mapping[str, Mapping[str, float]],
    members: Sequence[str] = ("model.pt",),
) -> None:
    """Write ``configs/metadata.json``, ``inference.json`` and ``train.json``.

    A bundle with a loss that stock MONAI does not know gets no ``train.json``, and its
    ``metadata.json`` says why: such a bundle is trained by medseg alone.

    Args:
        folder: The bundle; its weights are in ``models``.
        spec: The bundle's spec, as its training decided.
        parts: The engine's contribution.
        scores: ``metric → label → mean over validation cases``.
        members: The weight files; the scores of several are averaged.

    Raises:
        OutputError: If a file cannot be written.
    """
    configs = {
        "metadata": build_metadata(spec, parts, scores),
        "inference": build_inference_config(spec, parts, members),
    }
    if spec.training.loss == DEFAULT_LOSS:
        configs["train"] = build_train_config(spec, parts)
    for name, config in configs.items():
        text = json.dumps(config, indent=4, default=_encode)
        write_atomically(folder / "configs" / f"{name}.json", text + "\n")


def _encode(value: Any) -> Any:
    if isinstance(value, AboveThreshold | FromLowest | Nonzero | TanhCurve):
        return value.expression
    raise TypeError(f"no JSON for {value!r}")
