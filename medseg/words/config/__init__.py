"""The bundle spec: every field of ``bundle.json``, its default and its check.

A default lives here and nowhere else. A field's sentence is its help in editors (through the
JSON Schema) and in the reference. The models are frozen, and a field they do not know is a fault.
"""

from medseg.words.config.bundle import SCHEMA_ID, BundleSpec
from medseg.words.config.data import ChannelSpec, DataSpec, LabelSpec, RegionSpec
from medseg.words.config.exported import LEAST_AGREEMENT, AgreementSpec
from medseg.words.config.network import GROUPS, MonaiNetworkSpec, NetworkSpec, UNetSpec
from medseg.words.config.parts import Contradiction, ContradictionError, Spec, refuse_syntax
from medseg.words.config.preprocessing import (
    Intensity,
    MinMax,
    PreprocessingSpec,
    Window,
    ZScore,
)
from medseg.words.config.refinement import (
    SEPARATES,
    CriticSpec,
    MaskBankSpec,
    RefinementSpec,
)
from medseg.words.config.trained import (
    CalibrationSpec,
    LargestDecision,
    LargestFinding,
    QualityFinding,
    RefinementFinding,
    TrainedSpec,
)
from medseg.words.config.training import (
    AUGMENTATIONS,
    FITTED,
    AugmentationSpec,
    InferenceSpec,
    QualitySpec,
    TrackingSpec,
    TrainingSpec,
)

__all__ = [
    "AUGMENTATIONS",
    "FITTED",
    "GROUPS",
    "LEAST_AGREEMENT",
    "SCHEMA_ID",
    "SEPARATES",
    "AgreementSpec",
    "AugmentationSpec",
    "BundleSpec",
    "CalibrationSpec",
    "ChannelSpec",
    "Contradiction",
    "ContradictionError",
    "CriticSpec",
    "DataSpec",
    "InferenceSpec",
    "Intensity",
    "LabelSpec",
    "LargestDecision",
    "LargestFinding",
    "MaskBankSpec",
    "MinMax",
    "MonaiNetworkSpec",
    "NetworkSpec",
    "PreprocessingSpec",
    "QualityFinding",
    "QualitySpec",
    "RefinementFinding",
    "RefinementSpec",
    "RegionSpec",
    "Spec",
    "TrackingSpec",
    "TrainedSpec",
    "TrainingSpec",
    "UNetSpec",
    "Window",
    "ZScore",
    "refuse_syntax",
]
