"""medseg: medical image segmentation on MONAI.

Names are loaded when first used, so that ``import medseg`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.engine.segmenter import Segmentation, Segmenter
    from medseg.tools.bundle import Bundle, load_bundle
    from medseg.tools.evaluation import Evaluation
    from medseg.tools.images.in_memory import as_volume
    from medseg.tools.mask_review import MaskReview
    from medseg.verbs.check import check
    from medseg.verbs.evaluate import evaluate
    from medseg.verbs.evaluate_without_references import evaluate_without_references
    from medseg.verbs.export import Export, export
    from medseg.verbs.plan import Plan, plan
    from medseg.verbs.segment import Batch, segment
    from medseg.verbs.train import train
    from medseg.words.errors import (
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
    from medseg.words.labels import Label, LabelSet
    from medseg.words.quality import MaskQuality, Quality
    from medseg.words.volume import Volume

_HOMES = {
    "medseg.engine.segmenter": ("Segmentation", "Segmenter"),
    "medseg.tools.bundle": ("Bundle", "load_bundle"),
    "medseg.tools.images.in_memory": ("as_volume",),
    "medseg.verbs.check": ("check",),
    "medseg.tools.evaluation": ("Evaluation",),
    "medseg.tools.mask_review": ("MaskReview",),
    "medseg.verbs.evaluate": ("evaluate",),
    "medseg.verbs.evaluate_without_references": ("evaluate_without_references",),
    "medseg.verbs.export": ("Export", "export"),
    "medseg.verbs.plan": ("Plan", "plan"),
    "medseg.verbs.segment": ("Batch", "segment"),
    "medseg.verbs.train": ("train",),
    "medseg.words.errors": (
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
    "medseg.words.labels": ("Label", "LabelSet"),
    "medseg.words.quality": ("MaskQuality", "Quality"),
    "medseg.words.volume": ("Volume",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

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
    "evaluate_without_references",
    "export",
    "load_bundle",
    "plan",
    "segment",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'medseg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
