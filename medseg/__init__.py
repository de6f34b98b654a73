"""medseg: medical image segmentation on MONAI.

Names are loaded when first used, so that ``import medseg`` costs nothing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from medseg._support import former_modules

if TYPE_CHECKING:
    from medseg.bundle.bundle import Bundle, load_bundle
    from medseg.commands.check import check
    from medseg.commands.download import download
    from medseg.commands.evaluate import evaluate
    from medseg.commands.export import Export, export
    from medseg.commands.plan import Plan, plan
    from medseg.commands.review import review
    from medseg.commands.segment import Batch, segment
    from medseg.commands.train import train
    from medseg.errors import (
        BundleError,
        CheckpointError,
        DatasetError,
        DownloadError,
        GeometryError,
        MedsegError,
        MissingExtraError,
        OutputError,
        ScanError,
        TrainingError,
    )
    from medseg.evaluation.mask_review import MaskReview
    from medseg.evaluation.results import Evaluation
    from medseg.inference.segmentation import Segmentation
    from medseg.inference.segmenter import Segmenter
    from medseg.io.adapters import as_volume
    from medseg.labels import Label, LabelSet
    from medseg.quality.estimates import MaskQuality, Quality
    from medseg.volume import Volume

_HOMES = {
    "Batch": "medseg.commands.segment",
    "Bundle": "medseg.bundle.bundle",
    "BundleError": "medseg.errors",
    "CheckpointError": "medseg.errors",
    "DatasetError": "medseg.errors",
    "DownloadError": "medseg.errors",
    "Evaluation": "medseg.evaluation.results",
    "Export": "medseg.commands.export",
    "GeometryError": "medseg.errors",
    "Label": "medseg.labels",
    "LabelSet": "medseg.labels",
    "MaskQuality": "medseg.quality.estimates",
    "MaskReview": "medseg.evaluation.mask_review",
    "MedsegError": "medseg.errors",
    "MissingExtraError": "medseg.errors",
    "OutputError": "medseg.errors",
    "Plan": "medseg.commands.plan",
    "Quality": "medseg.quality.estimates",
    "ScanError": "medseg.errors",
    "Segmentation": "medseg.inference.segmentation",
    "Segmenter": "medseg.inference.segmenter",
    "TrainingError": "medseg.errors",
    "Volume": "medseg.volume",
    "as_volume": "medseg.io.adapters",
    "check": "medseg.commands.check",
    "download": "medseg.commands.download",
    "evaluate": "medseg.commands.evaluate",
    "export": "medseg.commands.export",
    "load_bundle": "medseg.bundle.bundle",
    "plan": "medseg.commands.plan",
    "review": "medseg.commands.review",
    "segment": "medseg.commands.segment",
    "train": "medseg.commands.train",
}
"""Public name → the module that it is loaded from."""

_FORMER_HOMES = {"evaluate_without_references": "medseg.commands.review"}
"""Names of 0.1.0 that warn when they are used, for one release."""

__all__ = [
    "Batch",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "DatasetError",
    "DownloadError",
    "Evaluation",
    "Export",
    "GeometryError",
    "Label",
    "LabelSet",
    "MaskQuality",
    "MaskReview",
    "MedsegError",
    "MissingExtraError",
    "OutputError",
    "Plan",
    "Quality",
    "ScanError",
    "Segmentation",
    "Segmenter",
    "TrainingError",
    "Volume",
    "as_volume",
    "check",
    "download",
    "evaluate",
    "export",
    "load_bundle",
    "plan",
    "review",
    "segment",
    "train",
]


former_modules.install()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("medseg")
    home = _HOMES.get(name) or _FORMER_HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'medseg' has no attribute '{name}'")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
