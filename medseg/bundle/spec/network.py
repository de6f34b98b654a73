"""Which network learns."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from medseg.bundle.spec.parts import Extent, Size, Spec, one_or_list, refuse_syntax

Levels = Annotated[tuple[Size, ...], Field(min_length=3, max_length=10)]
LevelChannels = Annotated[
    Annotated[Extent, Tag("one")]
    | Annotated[tuple[Extent, ...], Field(min_length=3, max_length=10), Tag("list")],
    Discriminator(one_or_list),
]


GROUPS = 8
"""Groups of a group norm."""


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


class MonaiNetworkSpec(Spec):
    """Any network class of `monai.networks.nets`, by name, with arguments that are data."""

    kind: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$")]
    """Class name: `SegResNet`, `SwinUNETR`, `MedNeXt`, …"""
    dims: Literal[2, 3] = 3
    """2: slice by slice; 3: volumes. Passed as `spatial_dims`."""
    args: dict[str, Any] = Field(default={})
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


def _each(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,)


def _per_axis(size: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,) * dims
