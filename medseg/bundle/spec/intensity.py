"""How intensities are normalised: one act per kind, or several one after the other."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PositiveFloat,
    Tag,
    model_validator,
)

from medseg.bundle.spec.parts import Fraction, Spec, equals, one_or_list


class ZScore(Spec):
    """Subtract the image's mean and divide by its standard deviation, per channel."""

    kind: Literal["zscore"] = "zscore"
    nonzero: bool | Literal["filled"] = False
    """Take mean and deviation over non-zero voxels only (skull-stripped images), and leave zeros
    as they are. `"filled"`: over all that is non-zero in any channel, with its holes filled
    (nnU-Net's `use_mask_for_norm`)."""
    clip_percentiles: tuple[Fraction, Fraction] | None = None
    """First clip to these quantiles of the image, for example `[0.005, 0.995]`."""
    subtract: Annotated[
        Literal["mean", "lowest"], Field(exclude_if=equals("mean"))
    ] = "mean"
    """What becomes 0: the `mean`, or the `lowest` intensity (Auto3DSeg's `pet`)."""

    @model_validator(mode="after")
    def _check_lowest(self) -> ZScore:
        is_plain = not self.nonzero and self.clip_percentiles is None
        if self.subtract == "lowest" and not is_plain:
            raise ValueError(
                "subtract 'lowest' goes with neither nonzero nor clip_percentiles"
            )
        return self

    @model_validator(mode="after")
    def _check_order(self) -> ZScore:
        if (
            self.clip_percentiles
            and self.clip_percentiles[0] >= self.clip_percentiles[1]
        ):
            raise ValueError(
                "clip_percentiles: the first quantile must be below the second"
            )
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
    clip: Annotated[bool, Field(exclude_if=equals(True))] = True
    """Whether to clip; else `low` and `high` only say what is subtracted and divided by."""

    @model_validator(mode="after")
    def _check_order(self) -> Window:
        if self.low >= self.high:
            raise ValueError(
                f"low ({self.low}) must be below high ({self.high})"
            )
        return self

    @property
    def range(self) -> tuple[float, float]:
        """Values that ``low`` and ``high`` become."""
        middle = (self.low + self.high) / 2
        half_width = (self.high - self.low) / 2
        mean = middle if self.mean is None else self.mean
        std = half_width if self.std is None else self.std
        return (self.low - mean) / std, (self.high - mean) / std


FROM_0_TO_1 = (0.0, 1.0)


class MinMax(Spec):
    """Scale the image's own range to 0…1 or another, per channel."""

    kind: Literal["minmax"] = "minmax"
    to: Annotated[
        tuple[float, float], Field(exclude_if=equals(FROM_0_TO_1))
    ] = FROM_0_TO_1
    """What the lowest and the highest intensity become."""

    @model_validator(mode="after")
    def _check_order(self) -> MinMax:
        if self.to[0] >= self.to[1]:
            raise ValueError("to: the first number must be below the second")
        return self


class Squash(Spec):
    """Bend intensities by a curve that flattens out: `sigmoid` to 0…1, `tanh` to ±`scale`."""

    kind: Literal["squash"] = "squash"
    curve: Literal["sigmoid", "tanh"]
    """`sigmoid`: 1 / (1 + exp(-x)). `tanh`: scale × tanh(x / scale)."""
    scale: PositiveFloat = 1.0
    """Of `tanh`: the limit of its values."""


class NoNormalisation(Spec):
    """Leave intensities as the file has them."""

    kind: Literal["none"] = "none"


IntensityStep = Annotated[
    ZScore | Window | MinMax | Squash, Field(discriminator="kind")
]


class IntensitySequence(Spec):
    """Several normalisations one after the other."""

    kind: Literal["sequence"] = "sequence"
    steps: Annotated[
        tuple[IntensityStep, ...], Field(min_length=2, max_length=5)
    ]
    """The normalisations in order."""


def _spell_out(intensity: Any) -> Any:
    """Let ``"zscore"`` stand for ``{"kind": "zscore"}``."""
    return {"kind": intensity} if isinstance(intensity, str) else intensity


Intensity = Annotated[
    Annotated[
        ZScore | Window | MinMax | Squash | NoNormalisation | IntensitySequence,
        Field(discriminator="kind"),
    ],
    BeforeValidator(
        _spell_out,
        json_schema_input_type=Literal["zscore", "minmax", "none"]
        | ZScore
        | Window
        | MinMax
        | Squash
        | NoNormalisation
        | IntensitySequence,
    ),
]
Intensities = Annotated[
    Annotated[Intensity, Tag("one")]
    | Annotated[tuple[Intensity, ...], Tag("list")],
    Discriminator(one_or_list),
]
