"""What a training run found that inference needs: ``models/trained.json``.

``bundle.json`` says what was asked for; this says what came of it. Like the bundle it is data, and
is checked as strictly: a trained bundle may come from a stranger.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medseg.bundle.spec.exported import Digest
from medseg.bundle.spec.parts import Fraction, ShortText, Spec, equals
from medseg.bundle.spec.speed import SpeedFinding

WeightFile = Annotated[
    str, Field(pattern=r"^[a-z0-9_]{1,40}\.(pt|safetensors)$")
]
MemberFile = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}\.pt$")]
Knots = Annotated[tuple[Fraction, ...], Field(min_length=2, max_length=1000)]


class CalibrationSpec(Spec):
    """From a raw score of agreement to the Dice that such a score meant on held-out cases."""

    scores: Knots
    """Raw scores, rising."""
    dice: Knots
    """Expected Dice at these scores, never falling; linear in between."""
    margin: Annotated[float, Field(ge=-1, le=50)]
    """How far below the expected Dice the bound lies, in units of the scale `1.02 − expected`."""
    cases: Annotated[int, Field(ge=1)]
    """Held-out results that this was learned from."""

    @model_validator(mode="after")
    def _check_monotony(self) -> CalibrationSpec:
        if len(self.scores) != len(self.dice):
            raise ValueError("scores and dice need the same number of knots")
        scores_rise = all(
            before < after for before, after in pairwise(self.scores)
        )
        dice_falls = any(
            before > after for before, after in pairwise(self.dice)
        )
        if not scores_rise or dice_falls:
            raise ValueError(
                "scores must rise from knot to knot, and dice never fall"
            )
        return self


class QualityFinding(Spec):
    """How the Dice of a result is estimated where there is no reference."""

    case: CalibrationSpec
    """For the mean over a case's labels."""
    labels: dict[ShortText, CalibrationSpec] = Field(default={})
    """For single labels, by name; labels with too few held-out results are left out."""
    coverage: Fraction
    """Share of held-out clean cases whose true Dice is at or above the bound."""
    review_below: Fraction
    """Results with a lower expected Dice should be looked at first."""
    review_share: Fraction
    """Share of clean held-out cases that this flags."""
    temperature: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    """What logits are divided by before they become the probabilities of a raw score. It changes
    no label."""


class MeasureRange(Spec):
    """What a measure is in training cases, and how far a result may lie from that."""

    low: float
    """The 5 % quantile over training cases."""
    high: float
    """The 95 % quantile."""
    least: float
    """Results below are flagged for review."""
    most: float
    """Results above are flagged for review."""

    @model_validator(mode="after")
    def _check_order(self) -> MeasureRange:
        if not self.least <= self.low <= self.high <= self.most:
            raise ValueError("least, low, high and most must rise")
        return self


Ranges = dict[ShortText, MeasureRange]


class LabelRange(Spec):
    """What one label is in the references of training cases."""

    present: Fraction
    """Share of the cases that hold it."""
    cut: Fraction
    """Share of those in which it touches the border of the image."""
    volume_ml: MeasureRange | None = None
    """In millilitres, where it is present; absent where too few cases hold it."""
    pieces: MeasureRange | None = None
    """Connected components that hold a twentieth of it or more."""


class ValidatedRange(Spec):
    """What the training cases were like: results outside are flagged for review.

    It holds statistics over cases alone, and no word of a header but names of body regions.
    """

    version: Literal[1] = 1
    """Of the meaning of these fields."""
    cases: Annotated[int, Field(ge=1)]
    """How many cases it was measured on, learned from or held out."""
    is_single_slice: bool = False
    """Whether the cases are single slices: lengths and volumes of stacks are not compared."""
    regions: Annotated[tuple[ShortText, ...], Field(max_length=20)] = ()
    """Regions of the body that headers of training cases name, such as `abdomen`."""
    spacing_mm: Annotated[tuple[MeasureRange, ...], Field(max_length=3)] = ()
    """Voxel size towards the patient's right, front and head; nothing for pictures."""
    extent_mm: Annotated[tuple[MeasureRange, ...], Field(max_length=3)] = ()
    """Field of view, likewise."""
    intensities: Annotated[tuple[Ranges, ...], Field(max_length=1000)] = ()
    """Of each channel, what is measured of its intensities."""
    labels: dict[ShortText, LabelRange] = Field(default={})
    """By name."""


class RefinementFinding(Spec):
    """What validation said of the refiner, paired over held-out cases."""

    applied: bool
    """Whether the refined mask replaces the coarse one."""
    dice_gain: Annotated[float, Field(ge=-1, le=1)]
    """Mean Dice of the refined masks minus that of the coarse ones."""
    interval: tuple[
        Annotated[float, Field(ge=-1, le=1)],
        Annotated[float, Field(ge=-1, le=1)],
    ]
    """95 % bootstrap interval of the gain over cases."""
    cases: Annotated[int, Field(ge=0)]
    """Held-out cases; with none, nothing is known and the coarse mask stays."""


class KeepLargestDecision(Spec):
    """Whether of one label only the largest connected component is kept, and why."""

    kept: bool
    """Whether results keep the largest component alone."""
    dice_before: Fraction
    """Mean Dice over held-out cases with all components."""
    dice_after: Fraction
    """Mean Dice over the same cases with the largest component alone."""
    cases: Annotated[int, Field(ge=1)]
    """Held-out cases with the label in either mask."""
    better: Annotated[int, Field(ge=0)]
    """Cases whose Dice is higher with the largest component alone."""
    worse: Annotated[int, Field(ge=0)]
    """Cases whose Dice is lower with it."""


class KeepLargestFinding(Spec):
    """Of which labels results keep the largest component alone, as held-out cases decided."""

    labels: dict[ShortText, KeepLargestDecision] = Field(default={})
    """By name; labels that no held-out case holds are left out and keep all components."""

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the labels of which only the largest component is kept."""
        return tuple(
            name for name, decision in self.labels.items() if decision.kept
        )


class OriginSpec(Spec):
    """Where an imported bundle's weights come from."""

    software: ShortText
    """What trained them: `nnU-Net v2`."""
    model: ShortText
    """How that software calls the model: `nnUNetTrainer__nnUNetPlans__3d_fullres`."""
    dataset: ShortText
    """How that software calls the data they were trained on."""
    licence: ShortText = "unknown"
    """Licence of the weights, as the person who imported them stated it."""
    files: Annotated[
        dict[ShortText, Digest], Field(min_length=1, max_length=200)
    ]
    """Files of the original, relative to its folder → SHA-256."""
    imported_with: ShortText
    """Version of medseg."""

    @property
    def short_hash(self) -> str:
        """Tells one original from another: of the hashes of all its files."""
        joined = "\n".join(sorted(self.files.values()))
        return hashlib.sha256(joined.encode()).hexdigest()[:12]


class CalibratedSpec(Spec):
    """On which cases a bundle was calibrated by itself, after its training or import."""

    cases: Annotated[int, Field(ge=1)]
    """How many."""
    data_fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    """Of their images and labels."""
    calibrated_with: ShortText
    """Version of medseg."""


class TrainedSpec(Spec):
    """What a training run found."""

    members: Annotated[
        tuple[MemberFile, ...], Field(min_length=1, max_length=100)
    ] = ("model.pt",)
    """Weight files beside this one, of the bundle's network; their scores are averaged."""
    refinement: RefinementFinding | None = None
    """Absent where no refiner was trained; else its weights are in `refiner.pt`."""
    quality: QualityFinding | None = None
    """Absent where no cases were held out to calibrate on."""
    keep_largest: KeepLargestFinding | None = None
    """Absent where `inference.keep_largest` names the labels, or no cases were held out."""
    files: Annotated[
        dict[WeightFile, Digest],
        Field(max_length=300, exclude_if=equals({})),
    ] = Field(default={})
    """Files of weights beside this one → SHA-256. A `.safetensors` file that is named here is read
    in place of the `.pt` file of its name."""
    origin: Annotated[OriginSpec | None, Field(exclude_if=equals(None))] = None
    """Where the weights come from, if other software trained them."""
    validated: ValidatedRange | None = None
    """Absent where there were too few training cases, and in bundles of release 0.1.0."""
    made_up: bool = False
    """Whether the training data say of themselves that they are made up."""
    speed: Annotated[SpeedFinding | None, Field(exclude_if=equals(None))] = None
    """Which faster settings keep the Dice on a CPU; absent where nothing was decided."""
    calibrated: Annotated[
        CalibratedSpec | None, Field(exclude_if=equals(None))
    ] = None
    """Where `medseg calibrate` found `quality`, and not the training run."""
