"""The fields of nnU-Net's plans files, as far as networks and preprocessing follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
)

_MOST_LEVELS = 32
_MOST_DIGITS = 5
DEFAULT_RESAMPLING = "resample_data_or_seg_to_shape"
"""The function that resamples in plans that name none."""

Axes = Annotated[tuple[PositiveInt, ...], Field(min_length=2, max_length=3)]
Sizes = PositiveInt | Axes
"""A size for every axis, or one per axis."""
Counts = Annotated[tuple[PositiveInt, ...], Field(max_length=_MOST_LEVELS)]
"""One number per level."""


class PlansModel(BaseModel):
    """Base of what is read; fields that nnU-Net adds to it are no fault."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Intensities(PlansModel):
    """Intensities of one channel inside the labels, over all training cases."""

    mean: float
    std: Annotated[float, Field(ge=0)]
    percentile_00_5: float
    percentile_99_5: float


class Arguments(PlansModel):
    """Arguments of the network's class; those of other classes stay in ``model_extra``."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    features_per_stage: Counts
    kernel_sizes: Annotated[tuple[Sizes, ...], Field(max_length=_MOST_LEVELS)]
    strides: Annotated[tuple[Sizes, ...], Field(max_length=_MOST_LEVELS)]
    n_stages: PositiveInt | None = None
    n_conv_per_stage: PositiveInt | Counts | None = None
    n_blocks_per_stage: PositiveInt | Counts | None = None
    n_conv_per_stage_decoder: PositiveInt | Counts = 2
    conv_op: str | None = None
    conv_bias: bool = False
    norm_op: str | None = None
    norm_op_kwargs: Mapping[str, Any] | None = None
    nonlin: str | None = None
    nonlin_kwargs: Mapping[str, Any] | None = None
    dropout_op: str | None = None
    dropout_op_kwargs: Mapping[str, Any] | None = None
    deep_supervision: bool = True


class Resampling(PlansModel):
    """Arguments of a function that resamples."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    is_seg: bool = False
    order: int = 3
    order_z: int = 0
    force_separate_z: bool | None = None


class Architecture(PlansModel):
    """A network's class and its arguments."""

    network_class_name: str
    arch_kwargs: Arguments


class Configuration(PlansModel):
    """One of ``configurations``, with what it inherits; axes in nnU-Net's order."""

    batch_size: PositiveInt
    patch_size: Axes
    spacing: Annotated[
        tuple[PositiveFloat, ...], Field(min_length=2, max_length=3)
    ]
    normalization_schemes: Annotated[tuple[str, ...], Field(min_length=1)]
    use_mask_for_norm: tuple[bool, ...] = ()
    batch_dice: bool = False
    architecture: Architecture
    preprocessor_name: str = "DefaultPreprocessor"
    resampling_fn_data: str = DEFAULT_RESAMPLING
    resampling_fn_data_kwargs: Resampling = Resampling(order=3)
    resampling_fn_probabilities: str = DEFAULT_RESAMPLING
    resampling_fn_probabilities_kwargs: Resampling = Resampling(order=1)
    previous_stage: str | None = None


class PlansFile(PlansModel):
    """A whole plans file; its configurations are checked when one is chosen."""

    dataset_name: str = ""
    image_reader_writer: str = ""
    transpose_forward: tuple[int, ...] = (0, 1, 2)
    label_manager: str = "LabelManager"
    configurations: dict[str, dict[str, Any]]
    foreground_intensity_properties_per_channel: dict[str, Intensities] = Field(
        default={}
    )
    foreground_intensity_properties_by_modality: dict[str, Intensities] = Field(
        default={}
    )

    def intensities(self) -> dict[int, Intensities]:
        """Return the intensities of each channel, by its number; of the older name, too."""
        by_key = (
            self.foreground_intensity_properties_per_channel
            or self.foreground_intensity_properties_by_modality
        )
        channels = {}
        for key, values in by_key.items():
            if key.isdecimal() and len(key) < _MOST_DIGITS:
                channels[int(key)] = values
        return channels
