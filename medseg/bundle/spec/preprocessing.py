"""How a scan becomes the network's input."""

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

from medseg.bundle.spec.parts import Fraction, Spec, one_or_list


class ZScore(Spec):
    """Subtract the image's mean and divide by its standard deviation, per channel."""

    kind: Literal["zscore"] = "zscore"
    nonzero: bool = False
    """Take mean and deviation over non-zero voxels only (skull-stripped images)."""
    clip_percentiles: tuple[Fraction, Fraction] | None = None
    """First clip to these quantiles of the image, for example `[0.005, 0.995]`."""

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


class MinMax(Spec):
    """Scale the image's own range to 0…1, per channel."""

    kind: Literal["minmax"] = "minmax"


def _spell_out(intensity: Any) -> Any:
    """Let ``"zscore"`` stand for ``{"kind": "zscore"}``."""
    return {"kind": intensity} if isinstance(intensity, str) else intensity


Intensity = Annotated[
    Annotated[ZScore | Window | MinMax, Field(discriminator="kind")],
    BeforeValidator(
        _spell_out,
        json_schema_input_type=Literal["zscore", "minmax"]
        | ZScore
        | Window
        | MinMax,
    ),
]
Intensities = Annotated[
    Annotated[Intensity, Tag("one")]
    | Annotated[tuple[Intensity, ...], Tag("list")],
    Discriminator(one_or_list),
]


class PreprocessingSpec(Spec):
    """How a scan becomes the network's input; the same for training and inference."""

    input: Literal["volume", "picture"] = "volume"
    """`volume`: NIfTI, NRRD, MHA or DICOM in patient space. `picture`: PNG, TIFF or JPEG."""
    spacing_mm: (
        Annotated[
            tuple[PositiveFloat | None, ...], Field(min_length=3, max_length=3)
        ]
        | None
    ) = None
    """Voxel size the network sees, along right, anterior and superior; `null` for an axis keeps
    the scan's own, `null` for all keeps the scan's own grid."""
    intensity: Intensities = ZScore()
    """Normalisation; one for all channels, or a list with one per channel."""
    crop_above: float | None = None
    """Look only at the box of voxels above this intensity (0 for skull-stripped MR, about -500
    HU for a body in CT); voxels outside it are background."""
