"""medseg: medical image segmentation on MONAI.

Names are loaded when first used, so that ``import medseg`` costs nothing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from medseg._support import former_modules

if TYPE_CHECKING:
    from medseg._support.log_file import LogFile
    from medseg.bundle.bundle import Bundle, load_bundle
    from medseg.bundle.spec.bundle import BundleSpec
    from medseg.bundle.spec.exported import AgreementSpec
    from medseg.commands.batch import Batch
    from medseg.commands.calibrate import Calibration, calibrate
    from medseg.commands.check import CheckReport, check
    from medseg.commands.download import download
    from medseg.commands.evaluate import evaluate
    from medseg.commands.export import Export, export
    from medseg.commands.plan import plan
    from medseg.commands.report import BatchReport, report
    from medseg.commands.review import review
    from medseg.commands.segment import segment
    from medseg.commands.train import train
    from medseg.datasets.measures import CaseMeasures, LabelMeasures
    from medseg.errors import (
        BundleError,
        BusyError,
        CheckpointError,
        DatasetError,
        DownloadError,
        Fault,
        GeometryError,
        MedsegError,
        MissingExtraError,
        OutputError,
        ScanError,
        TrainingError,
    )
    from medseg.evaluation.mask_review import JudgedMask, MaskReview
    from medseg.evaluation.results import Evaluation
    from medseg.events import Listener
    from medseg.inference.correction import Correction
    from medseg.inference.ledger_entry import Entry, QualityEntry
    from medseg.inference.prediction import Prediction
    from medseg.inference.segmentation import Segmentation
    from medseg.inference.segmenter import Segmenter
    from medseg.inference.shards import Shard
    from medseg.io.adapters import as_volume
    from medseg.io.volume_like import VolumeLike
    from medseg.labels import Label, LabelSet, Region
    from medseg.metrics.comparison import Difference, Interval
    from medseg.metrics.lesions import LesionCounts
    from medseg.metrics.metrics import CaseScores, LabelScores
    from medseg.metrics.statistics import Statistic
    from medseg.padding import Padding
    from medseg.planning.fingerprint import (
        CaseFingerprint,
        ChannelStatistics,
        Fingerprint,
        LabelStatistics,
    )
    from medseg.planning.plan import Plan
    from medseg.planning.training_cost import TrainingCost
    from medseg.quality.estimates import (
        Agreement,
        LabelQuality,
        MaskQuality,
        Quality,
        ShownQuality,
    )
    from medseg.volume import Volume

_HOMES = {
    "Agreement": "medseg.quality.estimates",
    "AgreementSpec": "medseg.bundle.spec.exported",
    "Batch": "medseg.commands.batch",
    "BatchReport": "medseg.commands.report",
    "Bundle": "medseg.bundle.bundle",
    "BundleError": "medseg.errors",
    "BundleSpec": "medseg.bundle.spec.bundle",
    "BusyError": "medseg.errors",
    "Calibration": "medseg.commands.calibrate",
    "CaseFingerprint": "medseg.planning.fingerprint",
    "CaseMeasures": "medseg.datasets.measures",
    "CaseScores": "medseg.metrics.metrics",
    "ChannelStatistics": "medseg.planning.fingerprint",
    "CheckReport": "medseg.commands.check",
    "CheckpointError": "medseg.errors",
    "Correction": "medseg.inference.correction",
    "DatasetError": "medseg.errors",
    "Difference": "medseg.metrics.comparison",
    "DownloadError": "medseg.errors",
    "Entry": "medseg.inference.ledger_entry",
    "Evaluation": "medseg.evaluation.results",
    "Export": "medseg.commands.export",
    "Fault": "medseg.errors",
    "Fingerprint": "medseg.planning.fingerprint",
    "GeometryError": "medseg.errors",
    "Interval": "medseg.metrics.comparison",
    "JudgedMask": "medseg.evaluation.mask_review",
    "Label": "medseg.labels",
    "LabelMeasures": "medseg.datasets.measures",
    "LabelQuality": "medseg.quality.estimates",
    "LabelScores": "medseg.metrics.metrics",
    "LabelSet": "medseg.labels",
    "LabelStatistics": "medseg.planning.fingerprint",
    "LesionCounts": "medseg.metrics.lesions",
    "Listener": "medseg.events",
    "LogFile": "medseg._support.log_file",
    "MaskQuality": "medseg.quality.estimates",
    "MaskReview": "medseg.evaluation.mask_review",
    "MedsegError": "medseg.errors",
    "MissingExtraError": "medseg.errors",
    "OutputError": "medseg.errors",
    "Padding": "medseg.padding",
    "Plan": "medseg.planning.plan",
    "Prediction": "medseg.inference.prediction",
    "Quality": "medseg.quality.estimates",
    "QualityEntry": "medseg.inference.ledger_entry",
    "Region": "medseg.labels",
    "ScanError": "medseg.errors",
    "Segmentation": "medseg.inference.segmentation",
    "Segmenter": "medseg.inference.segmenter",
    "Shard": "medseg.inference.shards",
    "ShownQuality": "medseg.quality.estimates",
    "Statistic": "medseg.metrics.statistics",
    "TrainingCost": "medseg.planning.training_cost",
    "TrainingError": "medseg.errors",
    "Volume": "medseg.volume",
    "VolumeLike": "medseg.io.volume_like",
    "as_volume": "medseg.io.adapters",
    "calibrate": "medseg.commands.calibrate",
    "check": "medseg.commands.check",
    "download": "medseg.commands.download",
    "evaluate": "medseg.commands.evaluate",
    "export": "medseg.commands.export",
    "load_bundle": "medseg.bundle.bundle",
    "plan": "medseg.commands.plan",
    "report": "medseg.commands.report",
    "review": "medseg.commands.review",
    "segment": "medseg.commands.segment",
    "train": "medseg.commands.train",
}
"""Public name → the module that it is loaded from."""

_FORMER_HOMES = {"evaluate_without_references": "medseg.commands.review"}
"""Names of 0.1.0 that warn when they are used, for one release."""

__all__ = [
    "Agreement",
    "AgreementSpec",
    "Batch",
    "BatchReport",
    "Bundle",
    "BundleError",
    "BundleSpec",
    "BusyError",
    "Calibration",
    "CaseFingerprint",
    "CaseMeasures",
    "CaseScores",
    "ChannelStatistics",
    "CheckReport",
    "CheckpointError",
    "Correction",
    "DatasetError",
    "Difference",
    "DownloadError",
    "Entry",
    "Evaluation",
    "Export",
    "Fault",
    "Fingerprint",
    "GeometryError",
    "Interval",
    "JudgedMask",
    "Label",
    "LabelMeasures",
    "LabelQuality",
    "LabelScores",
    "LabelSet",
    "LabelStatistics",
    "LesionCounts",
    "Listener",
    "LogFile",
    "MaskQuality",
    "MaskReview",
    "MedsegError",
    "MissingExtraError",
    "OutputError",
    "Padding",
    "Plan",
    "Prediction",
    "Quality",
    "QualityEntry",
    "Region",
    "ScanError",
    "Segmentation",
    "Segmenter",
    "Shard",
    "ShownQuality",
    "Statistic",
    "TrainingCost",
    "TrainingError",
    "Volume",
    "VolumeLike",
    "as_volume",
    "calibrate",
    "check",
    "download",
    "evaluate",
    "export",
    "load_bundle",
    "plan",
    "report",
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
