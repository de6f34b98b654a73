"""medseg: medical image segmentation on MONAI.

Names are loaded when first used, so that ``import medseg`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from medseg._support import former_modules

if TYPE_CHECKING:
    from medseg.bundle.bundle import Bundle, load_bundle
    from medseg.commands.check import check
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
    "medseg.inference.segmentation": ("Segmentation",),
    "medseg.inference.segmenter": ("Segmenter",),
    "medseg.bundle.bundle": ("Bundle", "load_bundle"),
    "medseg.io.adapters": ("as_volume",),
    "medseg.commands.check": ("check",),
    "medseg.evaluation.results": ("Evaluation",),
    "medseg.evaluation.mask_review": ("MaskReview",),
    "medseg.commands.evaluate": ("evaluate",),
    "medseg.commands.review": ("review",),
    "medseg.commands.export": ("Export", "export"),
    "medseg.commands.plan": ("Plan", "plan"),
    "medseg.commands.segment": ("Batch", "segment"),
    "medseg.commands.train": ("train",),
    "medseg.errors": (
        "BundleError",
        "CheckpointError",
        "DatasetError",
        "GeometryError",
        "MedsegError",
        "MissingExtraError",
        "OutputError",
        "ScanError",
        "TrainingError",
    ),
    "medseg.labels": ("Label", "LabelSet"),
    "medseg.quality.estimates": ("MaskQuality", "Quality"),
    "medseg.volume": ("Volume",),
}
_FORMER = {"evaluate_without_references": "medseg.commands.review"}
"""Names of 0.1.0 that warn when called, for one release."""

_HOME_OF = _FORMER | {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Batch",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "DatasetError",
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
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'medseg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
