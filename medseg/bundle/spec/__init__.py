"""The bundle spec: every field of ``bundle.json``, its default and its check.

A default lives here and nowhere else. A field's sentence is its help in editors (through the
JSON Schema) and in the reference. The models are frozen, and a field they do not know is a fault.
"""

from medseg.bundle.spec.assembly import (
    ASSEMBLY_SCHEMA_ID,
    AssemblySpec,
    CropSpec,
    PartSpec,
    StageSpec,
)
from medseg.bundle.spec.bundle import SCHEMA_ID, BundleSpec
from medseg.bundle.spec.data import (
    ChannelSpec,
    ColumnsSpec,
    DataSpec,
    LabelSpec,
    RegionSpec,
)
from medseg.bundle.spec.exported import LEAST_AGREEMENT, AgreementSpec
from medseg.bundle.spec.intensity import (
    FROM_0_TO_1,
    Intensity,
    IntensitySequence,
    IntensityStep,
    MinMax,
    NoNormalisation,
    Squash,
    Window,
    ZScore,
)
from medseg.bundle.spec.network import (
    GROUPS,
    LevelledSpec,
    NamedNetworkSpec,
    NetworkSpec,
    StagedUNetSpec,
    UNetSpec,
)
from medseg.bundle.spec.parts import (
    Contradiction,
    ContradictionError,
    Spec,
    refuse_syntax,
)
from medseg.bundle.spec.preprocessing import (
    RAS,
    PreprocessingSpec,
    ResamplingSpec,
)
from medseg.bundle.spec.refinement import (
    SEPARATES,
    CriticSpec,
    MaskPoolSpec,
    RefinementSpec,
)
from medseg.bundle.spec.speed import (
    SPEEDS,
    SpeedFinding,
    SpeedLimitsSpec,
    SpeedSetting,
    SpeedTrial,
)
from medseg.bundle.spec.trained import (
    CalibratedSpec,
    CalibrationSpec,
    KeepLargestDecision,
    KeepLargestFinding,
    LabelRange,
    MeasureRange,
    OriginSpec,
    QualityFinding,
    RefinementFinding,
    TrainedSpec,
    ValidatedRange,
)
from medseg.bundle.spec.training import (
    AUGMENTATIONS,
    CLICK_CHANNELS,
    DEFAULT_LOSS,
    FITTED,
    AugmentationSpec,
    ClicksSpec,
    InferenceSpec,
    QualitySpec,
    TrackingSpec,
    TrainingSpec,
)

__all__ = [
    "ASSEMBLY_SCHEMA_ID",
    "AUGMENTATIONS",
    "CLICK_CHANNELS",
    "DEFAULT_LOSS",
    "FITTED",
    "FROM_0_TO_1",
    "GROUPS",
    "LEAST_AGREEMENT",
    "RAS",
    "SCHEMA_ID",
    "SEPARATES",
    "SPEEDS",
    "AgreementSpec",
    "AssemblySpec",
    "AugmentationSpec",
    "BundleSpec",
    "CalibratedSpec",
    "CalibrationSpec",
    "ChannelSpec",
    "ClicksSpec",
    "ColumnsSpec",
    "Contradiction",
    "ContradictionError",
    "CriticSpec",
    "CropSpec",
    "DataSpec",
    "InferenceSpec",
    "Intensity",
    "IntensitySequence",
    "IntensityStep",
    "KeepLargestDecision",
    "KeepLargestFinding",
    "LabelRange",
    "LabelSpec",
    "LevelledSpec",
    "MaskPoolSpec",
    "MeasureRange",
    "MinMax",
    "NamedNetworkSpec",
    "NetworkSpec",
    "NoNormalisation",
    "OriginSpec",
    "PartSpec",
    "PreprocessingSpec",
    "QualityFinding",
    "QualitySpec",
    "RefinementFinding",
    "RefinementSpec",
    "RegionSpec",
    "ResamplingSpec",
    "Spec",
    "SpeedFinding",
    "SpeedLimitsSpec",
    "SpeedSetting",
    "SpeedTrial",
    "Squash",
    "StageSpec",
    "StagedUNetSpec",
    "TrackingSpec",
    "TrainedSpec",
    "TrainingSpec",
    "UNetSpec",
    "ValidatedRange",
    "Window",
    "ZScore",
    "refuse_syntax",
]
