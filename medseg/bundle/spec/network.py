"""Which network learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from medseg.bundle.spec.parts import (
    Extent,
    Size,
    Spec,
    equals,
    one_or_list,
    refuse_syntax,
)

Levels = Annotated[tuple[Size, ...], Field(min_length=3, max_length=10)]
LevelChannels = Annotated[
    Annotated[Extent, Tag("one")]
    | Annotated[
        tuple[Extent, ...], Field(min_length=3, max_length=10), Tag("list")
    ],
    Discriminator(one_or_list),
]
Blocks = Annotated[int, Field(ge=1, le=100)]
Counts = Annotated[
    Annotated[Blocks, Tag("one")]
    | Annotated[
        tuple[Blocks, ...], Field(min_length=1, max_length=10), Tag("list")
    ],
    Discriminator(one_or_list),
]
"""One number for all levels, or one per level."""

STAGED = ("resenc", "plainconv")
"""Kinds of ``StagedUNetSpec``."""


GROUPS = 8
"""Groups of a group norm."""

_MOST_CHANNELS = {2: 512, 3: 320}
"""Up to how many channels double, by dimensions, as in nnU-Net (Isensee et al., 2021)."""


class LevelledSpec(Spec):
    """What networks have that halve an image level by level."""

    kind: str
    dims: Literal[2, 3] = 3
    """2: slice by slice (along the third axis); 3: volumes."""
    channels: LevelChannels = 32
    """Channels of each level from the top; one number doubles on the way down (up to 320 in
    3D and 512 in 2D)."""
    strides: Levels = (1, 2, 2, 2)
    """Downsampling on entering each level, from the top; a list gives each axis its own."""
    kernel_sizes: Levels | None = None
    """Convolution kernel of each level, 3 unless given; a list gives each axis its own."""

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        depth = len(self.strides)
        if isinstance(self.channels, tuple):
            self._require_depth("channels", len(self.channels), depth)
        if self.kernel_sizes is not None:
            self._require_depth("kernel_sizes", len(self.kernel_sizes), depth)
            self._check_sizes("kernel_sizes", self.kernel_sizes)
            self._require_odd_kernels(self.kernel_sizes)
        self._check_sizes("strides", self.strides)
        if any(step != 1 for step in _list_sizes(self.strides[0])):
            raise ValueError(
                "strides.0 must be 1: the top level keeps the input's size, so that every voxel "
                "gets a label"
            )
        return self

    def _require_depth(self, field: str, levels: int, depth: int) -> None:
        if levels != depth:
            raise ValueError(
                f"{field} has {levels} levels and strides {depth}; both need one entry per level"
            )

    def _check_sizes(
        self, field: str, levels: Sequence[int | tuple[int, ...]]
    ) -> None:
        for level, size in enumerate(levels):
            if isinstance(size, tuple) and len(size) != self.dims:
                raise ValueError(
                    f"{field}.{level}: {self.dims} numbers are needed in {self.dims}D, "
                    f"got {list(size)}"
                )

    def _require_odd_kernels(
        self, kernels: Sequence[int | tuple[int, ...]]
    ) -> None:
        for level, size in enumerate(kernels):
            if any(length % 2 == 0 for length in _list_sizes(size)):
                raise ValueError(
                    f"kernel_sizes.{level}: kernel sizes are odd, got {size}"
                )

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level from the top."""
        if isinstance(self.channels, tuple):
            return self.channels
        limit = max(self.channels, _MOST_CHANNELS[self.dims])
        channels = []
        for level in range(len(self.strides)):
            doubled = self.channels * 2**level
            channels.append(min(doubled, limit))
        return tuple(channels)

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
        return tuple(
            math.prod(axis) for axis in zip(*self.level_strides, strict=True)
        )


class UNetSpec(LevelledSpec):
    """A U-Net of MONAI's DynUNet blocks, 2D or 3D."""

    kind: Literal["unet"] = "unet"
    residual: bool = False
    """Residual blocks instead of plain ones."""
    norm: Literal["instance", "batch", "group"] = "instance"
    """Normalisation inside the blocks."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped while training."""
    deep_supervision: bool = True
    """Also score the coarser levels' outputs while training."""
    upsample_bias: Annotated[bool, Field(exclude_if=equals(False))] = False
    """Whether the transposed convolutions of the way up add a bias, as nnU-Net's do."""

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if self.norm == "group" and any(
            count % GROUPS for count in self.level_channels
        ):
            raise ValueError(
                f"norm 'group' needs channels divisible by {GROUPS}"
            )
        return self


class StagedUNetSpec(LevelledSpec):
    """nnU-Net's own U-Nets, with as many blocks at each level as are asked for, 2D or 3D."""

    kind: Literal["resenc", "plainconv"]
    """`resenc`: residual blocks on the way down (nnU-Net's `ResidualEncoderUNet`: ResEnc M, L, XL).
    `plainconv`: plain convolutions (`PlainConvUNet`)."""
    blocks: Counts = (1, 3, 4, 6, 6, 6, 6, 6, 6, 6)
    """Residual blocks of each level from the top, or its convolutions; one number for all levels.
    Numbers beyond the last level are not used."""
    decoder_convolutions: Counts = 1
    """Convolutions of each level of the way up, from the lowest; one number for all levels."""
    norm: Literal["instance", "batch"] = "instance"
    """Normalisation inside the blocks."""
    deep_supervision: bool = True
    """Also score the coarser levels' outputs while training."""

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        depth = len(self.strides)
        for field, needed in (
            ("blocks", depth),
            ("decoder_convolutions", depth - 1),
        ):
            counts = getattr(self, field)
            if isinstance(counts, tuple) and len(counts) < needed:
                raise ValueError(
                    f"{field} has {len(counts)} numbers; {needed} are needed for {depth} levels"
                )
        return self

    @property
    def level_blocks(self) -> tuple[int, ...]:
        """Blocks of each level from the top."""
        return _per_level(self.blocks, len(self.strides))

    @property
    def level_decoder_convolutions(self) -> tuple[int, ...]:
        """Convolutions of each level of the way up, from the lowest."""
        return _per_level(self.decoder_convolutions, len(self.strides) - 1)


class NamedNetworkSpec(Spec):
    """A network by name, with arguments that are data: any class of `monai.networks.nets`, or one
    that an installed package registers."""

    kind: Annotated[
        str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=100)
    ]
    """MONAI's class name (`SegResNet`, `SwinUNETR`, `MedNeXt`, …) or a registered name, as
    `medseg plugins` lists them."""
    dims: Literal[2, 3] = 3
    """2: slice by slice; 3: volumes. Passed as `spatial_dims`."""
    args: dict[str, Any] = Field(default={})
    """The other arguments. medseg passes spatial_dims, in_channels and out_channels itself."""

    @field_validator("args")
    @classmethod
    def _refuse_syntax(cls, args: dict[str, Any]) -> dict[str, Any]:
        refuse_syntax(args)
        return args

    @property
    def divisor(self) -> tuple[int, ...]:
        """Not known for a class that is not ours; its output is tried on the patch instead."""
        return (1,) * self.dims


def _choose_tag(network: Any) -> str:
    """Tell pydantic which of these a network is meant to be."""
    if isinstance(network, dict):
        kind = network.get("kind")
    else:
        kind = getattr(network, "kind", None)
    if kind in (None, "unet"):
        return "unet"
    return "staged" if kind in STAGED else "named"


NetworkSpec = Annotated[
    Annotated[UNetSpec, Tag("unet")]
    | Annotated[StagedUNetSpec, Tag("staged")]
    | Annotated[NamedNetworkSpec, Tag("named")],
    Discriminator(_choose_tag),
]


def _per_level(counts: int | tuple[int, ...], levels: int) -> tuple[int, ...]:
    return counts[:levels] if isinstance(counts, tuple) else (counts,) * levels


def _list_sizes(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,)


def _per_axis(size: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,) * dims
