"""How the network learns, how whole scans are segmented, where runs are tracked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from medseg.bundle.spec.parts import (
    Count,
    ExperimentName,
    Fraction,
    Name,
    Seed,
    ShortText,
    Sizes,
    Spec,
    equals,
)
from medseg.bundle.spec.speed import Speed, SpeedLimitsSpec

ClassWeight = Annotated[float, Field(ge=0.001, le=1000)]
ClassWeights = Annotated[
    dict[ShortText, ClassWeight], Field(min_length=1, max_length=1001)
]


class AugmentationSpec(Spec):
    """How much training patches are varied. Probabilities are per patch."""

    mirror_axes: tuple[Annotated[int, Field(ge=0, le=2)], ...] = (0, 1, 2)
    """Axes that may be flipped, half of the time each (0: left-right)."""
    rotation: Fraction = 0.2
    """Probability of a rotation."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 30.0
    """Largest angle about each axis."""
    scaling: Fraction = 0.2
    """Probability of zooming."""
    scaling_range: tuple[PositiveFloat, PositiveFloat] = (0.7, 1.4)
    """Smallest and largest zoom."""
    noise: Fraction = 0.03
    """Probability of Gaussian noise."""
    blur: Fraction = 0.05
    """Probability of Gaussian blur."""
    brightness: Fraction = 0.15
    """Probability of a change of brightness."""
    contrast: Fraction = 0.15
    """Probability of a change of contrast."""
    low_resolution: Fraction = 0.06
    """Probability of lost resolution."""
    gamma: Fraction = 0.08
    """Probability of a gamma curve."""
    bias_field: Fraction = 0.15
    """Probability of a smooth bias field."""
    ghosting: Fraction = 0.025
    """Probability of ghosts along one axis, as motion makes them in MR."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentationSpec:
        if self.scaling_range[0] > self.scaling_range[1]:
            raise ValueError(
                "scaling_range: the first number must not be above the second"
            )
        return self


AUGMENTATIONS: dict[str, AugmentationSpec] = {
    "none": AugmentationSpec(
        mirror_axes=(), rotation=0, scaling=0, noise=0, blur=0, brightness=0, contrast=0,
        low_resolution=0, gamma=0, bias_field=0, ghosting=0,
    ),
    "standard": AugmentationSpec(),
}  # fmt: skip
"""The augmentations that have a name."""


def _named_augmentation(augmentation: Any) -> Any:
    if isinstance(augmentation, str):
        if augmentation not in AUGMENTATIONS:
            raise ValueError(
                f"one of {', '.join(AUGMENTATIONS)} or an object, got '{augmentation}'"
            )
        return AUGMENTATIONS[augmentation]
    return augmentation


def _no_words(weights: Any) -> Any:
    if isinstance(weights, str):
        raise ValueError(
            f"a weight by label name is needed, got '{weights}'; `medseg plan --class-weights "
            "balanced` measures the labels and writes numbers"
        )
    return weights


class ClicksSpec(Spec):
    """How a network learns to follow clicks. They are simulated: the network segments a patch, and
    the middle of the largest error of one label is clicked on, again and again."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of patches with clicks; on the others the network learns to do without."""
    most: Annotated[PositiveInt, Field(le=20)] = 5
    """Most clicks on a patch: 1 to as many, each number equally often."""
    sigma: Annotated[float, Field(ge=0.5, le=10)] = 2.0
    """Standard deviation of the Gaussian that shows a click to the network, in voxels."""


CLICK_CHANNELS = ("clicks inside", "clicks outside", "mask before them")
"""What the network of an interactive bundle sees behind the image: of one label at a time."""


TAKEN_BY_VIEWERS = frozenset(
    {
        "background",
        "client_id",
        "description",
        "device",
        "file",
        "foreground",
        "id",
        "image",
        "label",
        "label_tag",
        "logging",
        "method",
        "model",
        "path",
        "result_compress",
        "result_dtype",
        "result_extension",
        "save_label",
        "session",
        "session_id",
        "steps",
        "strategy",
        "studies",
        "tag",
        "timeout",
    }
)
"""Parameters of a request for clicks in MONAI Label, beside which it has those named as labels."""


DEFAULT_LOSS = "dice_ce"
"""The loss of a bundle that names none."""


FITTED = ("steps", "validate_every", "warmup_steps")
"""Fields that a time budget decides."""


class TrainingSpec(Spec):
    """How the network learns."""

    patch: Sizes
    """Size of the training patches and inference windows, in voxels of the network's grid."""
    batch_size: Annotated[PositiveInt, Field(le=4096)] = 2
    """Patches per step."""
    steps: Count = 10000
    """Optimiser steps."""
    budget_minutes: PositiveFloat | None = None
    """Minutes a training may take from its start to its model card. Its speed is measured in the
    first of them, and `steps`, `validate_every` and `warmup_steps` are set to what fits; if the
    machine becomes slower later, `steps` is set again, to what still does. Where time is short
    `quality.corrupted_copies` becomes less. A refiner takes its steps after that time."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`sgd` with Nesterov momentum 0.99, or `adamw`."""
    learning_rate: PositiveFloat = 0.01
    """Highest learning rate."""
    weight_decay: NonNegativeFloat = 3e-5
    """Decay of the weights."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """How the learning rate falls over the steps (poly: power 0.9)."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate first rises from 0; at most half of the run's."""
    gradient_clip: PositiveFloat | None = 12.0
    """Largest norm of the gradient; `null` for no limit."""
    loss: Annotated[Name, Field(exclude_if=equals(DEFAULT_LOSS))] = DEFAULT_LOSS
    """The loss: `dice_ce` (Dice and cross-entropy), or one that an installed package adds. A
    refiner is trained with `dice_ce` in any case."""
    dice_weight: NonNegativeFloat = 1.0
    """Weight of the Dice loss."""
    ce_weight: NonNegativeFloat = 1.0
    """Weight of the cross-entropy loss."""
    class_weights: Annotated[
        ClassWeights | None, BeforeValidator(_no_words)
    ] = None
    """What labels weigh in both losses, by name; `background` and labels that are not named weigh
    1. All are scaled until the labels' mean is 1; `null` weighs all alike. With `regions` these are
    weighed, and there is no background."""
    foreground_share: Fraction = 0.5
    """Share of patches centred on a labelled voxel, each label equally often."""
    augmentation: Annotated[
        AugmentationSpec,
        BeforeValidator(
            _named_augmentation,
            json_schema_input_type=Literal["none", "standard"]
            | AugmentationSpec,
        ),
    ] = AUGMENTATIONS["standard"]
    """`none`, `standard`, or an object with the fields to change."""
    clicks: Annotated[ClicksSpec | None, Field(exclude_if=equals(None))] = None
    """Makes the bundle interactive: its network also sees where a person clicked inside and outside
    of the label to correct, and its mask. `{}` for the defaults. Start it from the automatic bundle
    (`medseg train --from`): the new inputs begin at zero, so that without clicks nothing changes at
    first."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate and keep an exponential moving average of the weights with this decay; of the first
    steps it averages about the last seventh, so that a short run is not judged by its beginning."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the forward pass; `auto` is bf16 where the hardware computes in it."""
    validate_every: Count = 500
    """Steps between validations."""
    checkpoint_every: Count = 100
    """Steps between checkpoints: what a killed run repeats at most."""
    patience: Count | None = None
    """Stop after this many validations without a better mean Dice; `null` never stops early."""
    seed: Seed = 0
    """Seed of everything random."""

    @model_validator(mode="after")
    def _consistent(self) -> TrainingSpec:
        if self.dice_weight + self.ce_weight == 0:
            raise ValueError(
                "dice_weight and ce_weight are both 0; one must be above it"
            )
        return self

    @property
    def rising_steps(self) -> int:
        """Steps over which the rate rises in a run of this many; a short trial learns, too."""
        return min(self.warmup_steps, self.steps // 2)


class InferenceSpec(Spec):
    """How whole scans are segmented."""

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share by which neighbouring windows overlap."""
    window_steps: Annotated[
        Literal["fixed", "even"], Field(exclude_if=equals("fixed"))
    ] = "fixed"
    """Where windows lie: `fixed` steps of which the last is shorter (MONAI), or `even` ones that
    overlap by at least that share (nnU-Net)."""
    window_weights: Annotated[
        Literal["gaussian", "nnunet", "constant"],
        Field(exclude_if=equals("gaussian")),
    ] = "gaussian"
    """What the voxels of a window weigh: a `gaussian` about its centre (MONAI), about the voxel at
    half its size and added up in half precision (`nnunet`), or all the same (`constant`)."""
    batch_size: Annotated[PositiveInt, Field(le=4096)] = 4
    """Windows per forward pass."""
    mirror: bool = False
    """Average over flips along `mirror_axes`, in all combinations: 2 to 8 times as slow."""
    mirror_axes: Annotated[
        tuple[Annotated[int, Field(ge=0, le=2)], ...] | None,
        Field(exclude_if=equals(None)),
    ] = None
    """Axes along which `mirror` flips; those of `training.augmentation` unless given."""
    resample: Annotated[
        Literal["logits", "probabilities", "labels"],
        Field(exclude_if=equals("logits")),
    ] = "logits"
    """What is brought from the network's grid back to the scan's: `logits` or `probabilities`,
    interpolated linearly before the label is chosen, or `labels`, each from the nearest voxel. Of
    MONAI's bundles, those that call `Activationsd` or `AsDiscreted` before `Invertd` do the last
    two."""
    keep_largest: tuple[ShortText, ...] | None = None
    """Names of the labels of which only the largest connected component is kept; `null` lets the
    held-out cases of the training run decide, label by label. With `regions` all components are
    kept."""
    keep_largest_on: Annotated[
        Literal["scan", "input"], Field(exclude_if=equals("scan"))
    ] = "scan"
    """Where components are looked for: in the label map on the `scan`'s grid, or on that of the
    network's `input`, as in chains of MONAI's that call `KeepLargestConnectedComponentd` before
    `Invertd`. The latter needs `resample` `labels`."""
    speed: Annotated[Speed, Field(exclude_if=equals("balanced"))] = "balanced"
    """On a CPU: `exact` computes in fp32 what stock MONAI does; `balanced` in the fastest
    precision and overlap that held-out cases showed to keep the Dice, which is `exact` where none
    showed it; `fast` may lose five times as much."""
    speed_limits: Annotated[
        SpeedLimitsSpec, Field(exclude_if=equals(SpeedLimitsSpec()))
    ] = SpeedLimitsSpec()
    """What `balanced` may cost."""

    @model_validator(mode="after")
    def _check_components(self) -> InferenceSpec:
        if self.keep_largest_on == "input" and self.resample != "labels":
            raise ValueError("keep_largest_on 'input' needs resample 'labels'")
        return self


class QualitySpec(Spec):
    """How the Dice of results is estimated where there is no reference."""

    coverage: Annotated[float, Field(gt=0.5, lt=1)] = 0.9
    """Share of scans whose true Dice shall be at or above the stated bound."""
    review_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of good scans that people can look at again; sets what is flagged for review."""
    corrupted_copies: Annotated[NonNegativeInt, Field(le=10_000)] = 60
    """Corrupted copies of held-out scans to calibrate on, besides the scans themselves."""


class TrackingSpec(Spec):
    """Where the run appears in MLflow."""

    experiment: ExperimentName | None = None
    """MLflow experiment, such as `liver CT` or `/Users/me@example.org/liver`; the bundle's name
    unless given."""
    register_model: bool = True
    """Register the trained bundle as an MLflow model under the bundle's name."""
