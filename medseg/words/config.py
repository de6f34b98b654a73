"""The bundle spec: every field of ``bundle.json``, its default and its check.

A default lives here and nowhere else. A field's sentence is its help in editors (through the
JSON Schema). The models are frozen, and a field they do not know is a fault.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from medseg.words.labels import BACKGROUND_COLOUR, Label, LabelSet, default_colour

SCHEMA_ID = "medseg-bundle-1.json"

Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$")]
Text = Annotated[str, Field(max_length=4000)]
ShortText = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")
]
"""One line for people; no control characters, which could forge lines or move the cursor."""
Byte = Annotated[int, Field(ge=0, le=255)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Extent = Annotated[int, Field(ge=1, le=8192)]
"""A size in voxels or channels: far above any real one, far below what overflows."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Sizes = Annotated[tuple[Extent, ...], Field(min_length=2, max_length=3)]


class Spec(BaseModel):
    """Base of every part: unknown fields are faults, values never change, NaN is refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )


def refuse_syntax(value: Any) -> None:
    """Refuse text that MONAI's config parser would run, look up or replace.

    MONAI evaluates strings that start with ``$``, resolves ``@`` and ``%`` references, and
    instantiates objects with ``_target_`` keys. Values that travel from a bundle into a MONAI
    config must hold none of these.

    Raises:
        ValueError: If any string or key in ``value`` is such text, or a number is not finite.
    """
    if isinstance(value, str):
        if value.lstrip()[:1] in ("$", "%") or any(mark in value for mark in ("@", "#", "::")):
            raise ValueError(
                f"'{value[:40]}': text with $, @, %, # or :: could run as code and is refused"
            )
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no finite number")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", key):
                raise ValueError(
                    f"'{str(key)[:40]}': names are letters, digits and _, a letter first"
                )
            refuse_syntax(item)
    elif isinstance(value, list | tuple):
        for item in value:
            refuse_syntax(item)


def _each(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,)


def _per_axis(size: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,) * dims


def _refuse_repeats(what: str, values: list[Any]) -> None:
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"two labels have the same {what}: {', '.join(repeated)}")


Contradiction = tuple[tuple[str, ...], str, str]
"""The sections a fault is about, where to mend it, and what is wrong."""


class ContradictionError(ValueError):
    """Sections that are fine by themselves do not fit each other."""

    def __init__(self, found: Sequence[Contradiction]) -> None:
        self.found = tuple(found)
        super().__init__("; ".join(f"{where}: {what}" for _, where, what in found))


class ChannelSpec(Spec):
    """One input channel of the network."""

    name: ShortText
    """Its name, for people: `T1`, `CT`, `red`."""
    modality: ShortText = "OT"
    """DICOM modality of the scans it comes from: `CT`, `MR`, `PT`; `OT` for others."""


class LabelSpec(Spec):
    """One structure to segment."""

    index: Annotated[PositiveInt, Field(le=65535)]
    """Its value in the label maps medseg writes: 1, 2, … without gaps; 0 is background."""
    name: ShortText
    """Its name in tables and reports."""
    value: Annotated[PositiveInt, Field(le=2**31 - 1)] | None = None
    """Its value in the label files trained from; the index unless given."""
    colour: tuple[Byte, Byte, Byte] | None = None
    """RGB for display and in colour-coded label pictures."""
    code: Annotated[str, Field(pattern=r"^[A-Z0-9]{1,16}:[A-Za-z0-9.\-]{1,64}$")] | None = None
    """Coded meaning `SCHEME:VALUE`, for example `SCT:10200004` (liver)."""


class DataSpec(Spec):
    """Where the training cases are and how they are split."""

    root: ShortText = "."
    """The data folder, relative to the bundle. `--data` wins."""
    format: Literal["auto", "msd", "nnunet", "folders", "csv"] = "auto"
    """How the folder lists its cases: `msd` (dataset.json with a `training` list), `nnunet`
    (imagesTr with `_0000` channels), `folders` (images/ and labels/), `csv` (cases.csv)."""
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    """Parts for cross-validation; fold K is validated on, the others are trained on."""
    group_by: ShortText | None = None
    """Field of the data list whose equal values stay in one fold (`patient`)."""
    group_pattern: ShortText | None = None
    """Regular expression whose first group, found in a case's name, stays in one fold."""
    seed: Seed = 0
    """Seed of the split, where the data list does not name folds itself."""

    @field_validator("group_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"not a regular expression: {error}") from None
            if groups < 1:
                raise ValueError("needs one group in brackets, which names the patient")
        return pattern


class ZScore(Spec):
    """Subtract the image's mean and divide by its standard deviation, per channel."""

    kind: Literal["zscore"] = "zscore"
    nonzero: bool = False
    """Take mean and deviation over non-zero voxels only (skull-stripped images)."""
    clip_percentiles: tuple[Fraction, Fraction] | None = None
    """First clip to these quantiles of the image, for example `[0.005, 0.995]`."""

    @model_validator(mode="after")
    def _ordered(self) -> ZScore:
        if self.clip_percentiles and self.clip_percentiles[0] >= self.clip_percentiles[1]:
            raise ValueError("clip_percentiles: the first quantile must be below the second")
        return self


class Window(Spec):
    """Clip to [low, high], then subtract `mean` and divide by `std` (CT in HU)."""

    kind: Literal["window"] = "window"
    low: float
    """Lowest intensity kept, in the scan's unit (HU for CT)."""
    high: float
    """Highest intensity kept."""
    mean: float | None = None
    """Subtracted after clipping; the middle of the window unless given."""
    std: PositiveFloat | None = None
    """Divided by after clipping; half the window's width unless given."""

    @model_validator(mode="after")
    def _ordered(self) -> Window:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        return self

    @property
    def range(self) -> tuple[float, float]:
        """Values that ``low`` and ``high`` become."""
        mean = (self.low + self.high) / 2 if self.mean is None else self.mean
        std = (self.high - self.low) / 2 if self.std is None else self.std
        return (self.low - mean) / std, (self.high - mean) / std


class MinMax(Spec):
    """Scale the image's own range to 0…1, per channel."""

    kind: Literal["minmax"] = "minmax"


def _one_or_list(value: Any) -> str:
    return "list" if isinstance(value, list | tuple) else "one"


def _spelled_out(intensity: Any) -> Any:
    """Let ``"zscore"`` stand for ``{"kind": "zscore"}``."""
    return {"kind": intensity} if isinstance(intensity, str) else intensity


Intensity = Annotated[
    Annotated[ZScore | Window | MinMax, Field(discriminator="kind")],
    BeforeValidator(
        _spelled_out,
        json_schema_input_type=Literal["zscore", "minmax"] | ZScore | Window | MinMax,
    ),
]
Intensities = Annotated[
    Annotated[Intensity, Tag("one")] | Annotated[tuple[Intensity, ...], Tag("list")],
    Discriminator(_one_or_list),
]
Size = Annotated[
    Annotated[Extent, Tag("one")] | Annotated[tuple[Extent, ...], Tag("list")],
    Discriminator(_one_or_list),
]
"""One number for all axes, or one per axis."""
Levels = Annotated[tuple[Size, ...], Field(min_length=3, max_length=10)]
LevelChannels = Annotated[
    Annotated[Extent, Tag("one")]
    | Annotated[tuple[Extent, ...], Field(min_length=3, max_length=10), Tag("list")],
    Discriminator(_one_or_list),
]


class PreprocessingSpec(Spec):
    """How a scan becomes the network's input; the same for training and inference."""

    input: Literal["volume", "picture"] = "volume"
    """`volume`: NIfTI, NRRD, MHA or DICOM in patient space. `picture`: PNG, TIFF or JPEG."""
    spacing_mm: (
        Annotated[tuple[PositiveFloat | None, ...], Field(min_length=3, max_length=3)] | None
    ) = None
    """Voxel size the network sees, along right, anterior and superior; `null` for an axis keeps
    the scan's own, `null` for all keeps the scan's own grid."""
    intensity: Intensities = ZScore()
    """Normalisation; one for all channels, or a list with one per channel."""
    crop_above: float | None = None
    """Look only at the box of voxels above this intensity (0 for skull-stripped MR, about -500
    HU for a body in CT); voxels outside it are background."""


class UNetSpec(Spec):
    """A U-Net of MONAI's DynUNet blocks, 2D or 3D."""

    kind: Literal["unet"] = "unet"
    dims: Literal[2, 3] = 3
    """2: slice by slice (along the third axis); 3: volumes."""
    channels: LevelChannels = 32
    """Channels of each level from the top; one number doubles on the way down (up to 320 in
    3D and 512 in 2D)."""
    strides: Levels = (1, 2, 2, 2)
    """Downsampling on entering each level, from the top; a list gives each axis its own."""
    kernel_sizes: Levels | None = None
    """Convolution kernel of each level, 3 unless given; a list gives each axis its own."""
    residual: bool = False
    """Residual blocks instead of plain ones."""
    norm: Literal["instance", "batch", "group"] = "instance"
    """Normalisation inside the blocks."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped while training."""
    deep_supervision: bool = True
    """Also score the coarser levels' outputs while training."""

    @model_validator(mode="after")
    def _consistent(self) -> UNetSpec:
        depth = len(self.strides)
        if isinstance(self.channels, tuple) and len(self.channels) != depth:
            raise ValueError(
                f"channels has {len(self.channels)} levels and strides {depth}; "
                "both need one entry per level"
            )
        if self.kernel_sizes is not None and len(self.kernel_sizes) != depth:
            raise ValueError(
                f"kernel_sizes has {len(self.kernel_sizes)} levels and strides {depth}; "
                "both need one entry per level"
            )
        for field in ("strides", "kernel_sizes"):
            for level, size in enumerate(getattr(self, field) or ()):
                if isinstance(size, tuple) and len(size) != self.dims:
                    raise ValueError(
                        f"{field}.{level}: {self.dims} numbers are needed in {self.dims}D, "
                        f"got {list(size)}"
                    )
                if field == "kernel_sizes" and any(n % 2 == 0 for n in _each(size)):
                    raise ValueError(f"{field}.{level}: kernel sizes are odd, got {size}")
        if any(n != 1 for n in _each(self.strides[0])):
            raise ValueError(
                "strides.0 must be 1: the top level keeps the input's size, so that every voxel "
                "gets a label"
            )
        if self.norm == "group" and any(n % GROUPS for n in self.level_channels):
            raise ValueError(f"norm 'group' needs channels divisible by {GROUPS}")
        return self

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level from the top."""
        if isinstance(self.channels, tuple):
            return self.channels
        most = max(self.channels, 320 if self.dims == 3 else 512)
        return tuple(min(self.channels * 2**level, most) for level in range(len(self.strides)))

    @property
    def level_strides(self) -> tuple[tuple[int, ...], ...]:
        """Stride of each level, per axis."""
        return tuple(_per_axis(stride, self.dims) for stride in self.strides)

    @property
    def level_kernels(self) -> tuple[tuple[int, ...], ...]:
        """Kernel size of each level, per axis."""
        kernels = self.kernel_sizes or (3,) * len(self.strides)
        return tuple(_per_axis(kernel, self.dims) for kernel in kernels)

    @property
    def divisor(self) -> tuple[int, ...]:
        """What a patch's size must be divisible by, per axis."""
        return tuple(math.prod(axis) for axis in zip(*self.level_strides, strict=True))


GROUPS = 8
"""Groups of a group norm."""


class MonaiNetworkSpec(Spec):
    """Any network class of `monai.networks.nets`, by name, with arguments that are data."""

    kind: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$")]
    """Class name: `SegResNet`, `SwinUNETR`, `MedNeXt`, …"""
    dims: Literal[2, 3] = 3
    """2: slice by slice; 3: volumes. Passed as `spatial_dims`."""
    args: dict[str, Any] = {}
    """The other arguments. medseg passes spatial_dims, in_channels and out_channels itself."""

    @field_validator("args")
    @classmethod
    def _is_inert(cls, args: dict[str, Any]) -> dict[str, Any]:
        refuse_syntax(args)
        return args

    @property
    def divisor(self) -> tuple[int, ...]:
        """Not known for a foreign class; its output is tried on the patch instead."""
        return (1,) * self.dims


def _network_tag(network: Any) -> str:
    kind = network.get("kind") if isinstance(network, dict) else getattr(network, "kind", "unet")
    kind = "unet" if kind is None else kind
    return "unet" if kind == "unet" else "monai"


NetworkSpec = Annotated[
    Annotated[UNetSpec, Tag("unet")] | Annotated[MonaiNetworkSpec, Tag("monai")],
    Discriminator(_network_tag),
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
    noise: Fraction = 0.1
    """Probability of Gaussian noise."""
    blur: Fraction = 0.2
    """Probability of Gaussian blur."""
    brightness: Fraction = 0.15
    """Probability of a change of brightness."""
    contrast: Fraction = 0.15
    """Probability of a change of contrast."""
    low_resolution: Fraction = 0.25
    """Probability of lost resolution."""
    gamma: Fraction = 0.3
    """Probability of a gamma curve."""
    bias_field: Fraction = 0.1
    """Probability of a smooth bias field."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentationSpec:
        if self.scaling_range[0] > self.scaling_range[1]:
            raise ValueError("scaling_range: the first number must not be above the second")
        return self


AUGMENTATIONS: dict[str, AugmentationSpec] = {
    "none": AugmentationSpec(
        mirror_axes=(), rotation=0, scaling=0, noise=0, blur=0, brightness=0, contrast=0,
        low_resolution=0, gamma=0, bias_field=0,
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


class TrainingSpec(Spec):
    """How the network learns."""

    patch: Sizes
    """Size of the training patches and inference windows, in voxels of the network's grid."""
    batch_size: Annotated[PositiveInt, Field(le=4096)] = 2
    """Patches per step."""
    steps: Count = 10000
    """Optimiser steps."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`sgd` with Nesterov momentum 0.99, or `adamw`."""
    learning_rate: PositiveFloat = 0.01
    """Highest learning rate."""
    weight_decay: NonNegativeFloat = 3e-5
    """Decay of the weights."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """How the learning rate falls over the steps (poly: power 0.9)."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate first rises from 0."""
    gradient_clip: PositiveFloat | None = 12.0
    """Largest norm of the gradient; `null` for no limit."""
    dice_weight: NonNegativeFloat = 1.0
    """Weight of the Dice loss."""
    ce_weight: NonNegativeFloat = 1.0
    """Weight of the cross-entropy loss."""
    foreground_share: Fraction = 0.5
    """Share of patches centred on a labelled voxel, each label equally often."""
    augmentation: Annotated[
        AugmentationSpec,
        BeforeValidator(
            _named_augmentation,
            json_schema_input_type=Literal["none", "standard"] | AugmentationSpec,
        ),
    ] = AUGMENTATIONS["standard"]
    """`none`, `standard`, or an object with the fields to change."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate and keep an exponential moving average of the weights with this decay."""
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
            raise ValueError("dice_weight and ce_weight are both 0; one must be above it")
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps ({self.warmup_steps}) must be below steps ({self.steps})"
            )
        return self


class InferenceSpec(Spec):
    """How whole scans are segmented."""

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share by which neighbouring windows overlap."""
    batch_size: Annotated[PositiveInt, Field(le=4096)] = 4
    """Windows per forward pass."""
    keep_largest: tuple[ShortText, ...] = ()
    """Names of the labels of which only the largest connected component is kept."""


class TrackingSpec(Spec):
    """Where the run appears in MLflow."""

    experiment: Name | None = None
    """MLflow experiment; the bundle's name unless given."""
    register_model: bool = True
    """Register the trained bundle as an MLflow model under the bundle's name."""


class BundleSpec(Spec):
    """A medseg bundle: what to train, or what was trained."""

    schema_: Annotated[str, Field(max_length=500)] | None = Field(default=None, alias="$schema")
    """Where editors find this schema."""
    name: Name
    """Letters, digits, `_` and `-`; names run folders, experiments and models."""
    version: Annotated[str, Field(pattern=r"^[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}$")] = "0.1.0"
    """Version of the bundle."""
    description: Text = ""
    """What it segments, in one sentence."""
    intended_use: Text = "Research only; not a medical device."
    """For the model card."""
    authors: Text = "unknown"
    """For the model card."""
    licence: Text = "unknown"
    """Licence of the weights, which may follow from the data's."""
    references: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    """Publications and sources of the data."""
    channels: Annotated[tuple[ChannelSpec, ...], Field(min_length=1, max_length=64)]
    """The network's input channels, in order."""
    labels: Annotated[tuple[LabelSpec, ...], Field(min_length=1, max_length=1000)]
    """The structures to segment."""
    data: DataSpec = DataSpec()
    preprocessing: PreprocessingSpec = PreprocessingSpec()
    network: NetworkSpec = UNetSpec()
    training: TrainingSpec
    inference: InferenceSpec = InferenceSpec()
    tracking: TrackingSpec = TrackingSpec()

    @field_validator("labels")
    @classmethod
    def _labels_are_distinct(cls, labels: tuple[LabelSpec, ...]) -> tuple[LabelSpec, ...]:
        indices = [label.index for label in labels]
        if sorted(indices) != list(range(1, len(labels) + 1)):
            raise ValueError(
                f"indices must be 1 to {len(labels)} without gaps, got {indices}; where label "
                "files hold other numbers, give each label its 'value'"
            )
        _refuse_repeats("name", [label.name.lower() for label in labels])
        if any(label.name.lower() == "mean" for label in labels):
            raise ValueError("no label can be named 'mean': tables have the mean under this name")
        _refuse_repeats("value", [label.value or label.index for label in labels])
        colours = [label.colour for label in labels if label.colour]
        _refuse_repeats("colour", colours)
        if BACKGROUND_COLOUR in colours:
            raise ValueError("colour [0, 0, 0] is background")
        return tuple(sorted(labels, key=lambda label: label.index))

    @model_validator(mode="after")
    def _consistent(self) -> BundleSpec:
        found = [*self._patch_faults(), *self._preprocessing_faults(), *self._label_faults()]
        if found:
            raise ContradictionError(found)
        return self

    def _patch_faults(self) -> Iterator[Contradiction]:
        patch, dims, divisor = self.training.patch, self.network.dims, self.network.divisor
        about, where = ("training", "network"), "training.patch"
        if len(patch) != dims:
            yield about, where, f"has {len(patch)} sizes and network.dims is {dims}"
        elif any(size % by for size, by in zip(patch, divisor, strict=True)):
            nearest = [math.ceil(size / by) * by for size, by in zip(patch, divisor, strict=True)]
            what = (
                f"{list(patch)} must be divisible by {list(divisor)}, the product of "
                f"network.strides; {nearest} is"
            )
            yield about, where, what
        elif isinstance(self.network, UNetSpec) and tuple(patch) == divisor:
            what = (
                f"{list(patch)} shrinks to one voxel at the lowest level, which cannot be "
                f"normalised; make an axis larger than {list(divisor)}"
            )
            yield about, where, what

    def _preprocessing_faults(self) -> Iterator[Contradiction]:
        prep, count = self.preprocessing, len(self.channels)
        if isinstance(prep.intensity, tuple) and len(prep.intensity) != count:
            what = f"lists {len(prep.intensity)} normalisations for {count} channels"
            yield ("preprocessing", "channels"), "preprocessing.intensity", what
        if prep.input == "picture" and self.network.dims != 2:
            what = "'picture' needs network.dims 2"
            yield ("preprocessing", "network"), "preprocessing.input", what
        if prep.input == "picture" and prep.spacing_mm is not None:
            what = "must be null for pictures, which have no spacing in mm"
            yield ("preprocessing",), "preprocessing.spacing_mm", what

    def _label_faults(self) -> Iterator[Contradiction]:
        unknown = sorted(set(self.inference.keep_largest) - {label.name for label in self.labels})
        if unknown:
            what = f"no label of this bundle is named {', '.join(unknown)}"
            yield ("inference", "labels"), "inference.keep_largest", what

    @property
    def label_set(self) -> LabelSet:
        """The labels with every default filled in."""
        return LabelSet(
            [
                Label(
                    index=label.index,
                    name=label.name,
                    value=label.value or label.index,
                    colour=label.colour or default_colour(label.index),
                    code=label.code,
                )
                for label in self.labels
            ]
        )

    @property
    def intensities(self) -> tuple[ZScore | Window | MinMax, ...]:
        """The normalisation of each channel."""
        intensity = self.preprocessing.intensity
        return intensity if isinstance(intensity, tuple) else (intensity,) * len(self.channels)
