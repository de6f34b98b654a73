"""Chooses patch, batch, depth, strides, kernels and width, from the memory and time there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medseg.planning.constraints import RESIDUAL, Constraints, Notes
from medseg.planning.grid import Grid

SLIM_CHANNELS = (16, 32, 64, 128, 256, 256)
"""Channels of the slim network's levels. It halves the image at once, because the full size costs
most."""
WIDE_STEP_FACTOR = 16.0
"""How many times as long a step of the wide network takes, measured on a CPU in 2D and 3D."""
STEPS_SHARE = 0.75
"""Share of a time budget that goes into steps; the rest into preprocessing and validation."""

_MIN_LEVELS, _MAX_LEVELS = 3, 6
_MIN_LEVEL_VOXELS = 4
"""Voxels that the lowest level has at least, per axis."""
_MIN_PATCH = 24
_SHRINKING = 0.9
"""Factor of one step towards a smaller patch."""
_MIN_BATCH = {2: 4, 3: 2}
_MAX_BATCH = {(2, False): 8, (3, False): 4, (2, True): 32, (3, True): 12}
"""By dimensions and whether there is a GPU."""

_BASE_CHANNELS = 32
_MAX_CHANNELS = {2: 512, 3: 320}
"""Of the wide network, as in nnU-Net, by dimensions."""

_ENOUGH_STEPS = 1500
"""Up to so many steps, more of them are worth more than a larger batch."""
_MIN_STEPS = {2: _ENOUGH_STEPS, 3: 600}
"""Steps that a time budget must allow whatever the patch; a smaller patch sees less context. In
2D, many steps of some patches were worth more than whole pictures, two at a time."""
_MIN_SPARE_FOR_WIDE = 2 * WIDE_STEP_FACTOR
"""How many times 1500 steps the slim network must manage before the wide one pays."""

_ARRAYS_PER_CHANNEL = 14
"""Arrays of a level's size and channels that a training step holds, on the way down and up."""
RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6)
"""Residual blocks of each level, as in nnU-Net's ResEnc presets."""
_ARRAYS_PER_BLOCK, _ARRAYS_BESIDE_BLOCKS = 6, 8
"""Arrays of a level's size that a training step holds for each block, and for the way up."""
_ARRAYS_PER_CLASS = 9
"""Arrays of the full size and as many channels as classes, in the loss above all."""
_BYTES_PER_VALUE = 4

_UNTIMED_VOXELS = {True: math.inf, False: 1.2e6}
"""Voxels per step without a time budget, with and without a GPU."""

Sizes = tuple[int, ...]
"""One number per axis."""


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """A network and what it trains on.

    Attributes:
        patch: Voxels along each axis.
        batch: Patches per step.
        slim: Whether it is the network for little time.
        residual: Whether it is nnU-Net's residual encoder.
        strides: Of each level; the first level's are 1.
        kernels: Of each level; the slim network has 3 throughout.
    """

    patch: Sizes
    batch: int
    slim: bool
    strides: tuple[Sizes, ...]
    kernels: tuple[Sizes, ...]
    residual: bool = False

    @property
    def voxels_per_step(self) -> int:
        """Of all patches of a batch."""
        return self.batch * math.prod(self.patch)

    def make_section(self) -> dict[str, Any]:
        """Return the section ``network`` of a bundle."""
        dims = len(self.patch)
        if self.slim:
            return define_slim_network(dims, self.strides[1:])
        section: dict[str, Any] = {
            "kind": RESIDUAL if self.residual else "unet",
            "dims": dims,
            "channels": _BASE_CHANNELS,
        }
        section["strides"] = _abbreviate_levels(self.strides)
        kernels = _abbreviate_levels(self.kernels)
        if any(kernel != 3 for kernel in kernels):
            section["kernel_sizes"] = kernels
        return section


def define_slim_network(dims: int, strides: Sequence[Sizes]) -> dict[str, Any]:
    """Return the section ``network`` for MONAI's ``UNet``, which halves an image at once.

    Args:
        dims: 2 or 3.
        strides: Of each halving.
    """
    arguments = {
        "channels": list(SLIM_CHANNELS[: len(strides) + 1]),
        "strides": _abbreviate_levels(strides),
        "num_res_units": 2,
    }
    return {"kind": "UNet", "dims": dims, "args": arguments}


def compute_max_patch_voxels(
    constraints: Constraints, dims: int, classes: int
) -> float:
    """Return how many voxels a patch can have, so that time and memory allow enough of them.

    Args:
        constraints: What the plan has to fit.
        dims: 2 or 3.
        classes: Channels of the output.
    """
    return (
        _compute_max_step_voxels(constraints, dims, classes, _MIN_STEPS[dims])
        / _MIN_BATCH[dims]
    )


def _compute_max_step_voxels(
    constraints: Constraints, dims: int, classes: int, steps: int
) -> float:
    """Return how many voxels a step can have, so that time allows ``steps`` and memory one."""
    by_time = _UNTIMED_VOXELS[constraints.on_gpu]
    speed = constraints.voxels_per_second
    if constraints.budget_minutes is not None and speed is not None:
        seconds = 60 * constraints.budget_minutes * STEPS_SHARE
        if constraints.is_residual and not constraints.on_gpu:
            seconds /= WIDE_STEP_FACTOR  # the speed is the slim network's
        by_time = seconds * speed / steps
    residual = constraints.is_residual
    slim = not (constraints.on_gpu or residual)
    bytes_per_voxel = _estimate_bytes_per_voxel(
        dims, _MAX_LEVELS, classes, slim=slim, residual=residual
    )
    by_memory = constraints.memory_gb * 1e9 / bytes_per_voxel
    return min(by_time, by_memory)


def choose_network(
    grid: Grid, constraints: Constraints, notes: Notes, classes: int = 2
) -> NetworkPlan:
    """Choose the network, its patch and its batch.

    Args:
        grid: The grid that it works on.
        constraints: What the plan has to fit.
        notes: Takes the reasons.
        classes: Channels of the output.
    """
    dims, on_gpu = grid.dims, constraints.on_gpu
    allowed = compute_max_patch_voxels(constraints, dims, classes)
    patch, topology, holds_whole_image = _choose_patch(grid, allowed)
    spacious = _compute_max_step_voxels(
        constraints, dims, classes, _ENOUGH_STEPS
    )
    patch_voxels = math.prod(patch)
    batch = int(min(spacious / patch_voxels, _MAX_BATCH[dims, on_gpu]))
    batch = max(batch, _MIN_BATCH[dims])
    spare = spacious / (batch * patch_voxels)
    has_budget = constraints.budget_minutes is not None
    has_time_for_wide = has_budget and spare >= _MIN_SPARE_FOR_WIDE
    residual = constraints.is_residual
    slim = not (on_gpu or has_time_for_wide or residual)
    plan = NetworkPlan(
        patch, batch, slim, topology.strides, topology.kernels, residual
    )
    _explain_patch(plan, grid, constraints, holds_whole_image, notes)
    _explain_batch(plan, constraints, classes, notes)
    _explain_levels(plan, grid, notes)
    return plan


@dataclass(frozen=True, slots=True)
class _Topology:
    """Strides and kernels of each level."""

    strides: tuple[Sizes, ...]
    kernels: tuple[Sizes, ...]

    def round_up(self, patch: Sequence[int]) -> Sizes:
        """Return the smallest patch of at least this size that can be halved at each level."""
        divisors = multiply_strides(self.strides)
        rounded = []
        for voxels, divisor in zip(patch, divisors, strict=True):
            windows = math.ceil(voxels / divisor)
            rounded.append(windows * divisor)
        return tuple(rounded)


def _choose_patch(grid: Grid, allowed: float) -> tuple[Sizes, _Topology, bool]:
    """Return a patch of the allowed size, its topology, and whether it holds a whole image."""
    least = 2 * _MIN_LEVEL_VOXELS
    whole_image = [max(least, math.ceil(n)) for n in grid.shape]
    patch = list(whole_image)
    while True:
        topology = _choose_topology(patch, grid)
        rounded = topology.round_up(patch)
        if math.prod(rounded) <= allowed:
            break
        axis = _longest_shrinkable_axis(patch, grid)
        if axis is None:
            break
        shrunk = math.floor(patch[axis] * _SHRINKING)
        patch[axis] = max(_MIN_PATCH, shrunk)
    return rounded, topology, patch == whole_image


def _longest_shrinkable_axis(patch: Sequence[int], grid: Grid) -> int | None:
    """Return the axis along which a patch is longest in mm; ``None`` if it is small throughout."""
    longest, longest_mm = None, 0.0
    for axis, (voxels, mm) in enumerate(
        zip(patch, grid.axis_spacing, strict=True)
    ):
        extent_mm = voxels * mm
        if voxels > _MIN_PATCH and extent_mm > longest_mm:
            longest, longest_mm = axis, extent_mm
    return longest


def _choose_topology(patch: Sequence[int], grid: Grid) -> _Topology:
    """Halve a patch level by level, as long as some axis has enough voxels left."""
    size, spacing = list(patch), list(grid.axis_spacing)
    unit_stride = (1,) * grid.dims
    stride = unit_stride
    strides: list[Sizes] = []
    kernels: list[Sizes] = []
    while len(strides) < _MAX_LEVELS:
        strides.append(stride)
        kernels.append(_choose_kernel(spacing))
        stride = _choose_stride(size, spacing)
        if stride == unit_stride and len(strides) >= _MIN_LEVELS:
            break
        for axis, by in enumerate(stride):
            size[axis] = math.ceil(size[axis] / by)
            spacing[axis] *= by
    return _Topology(tuple(strides), tuple(kernels))


def _choose_stride(size: Sequence[int], spacing: Sequence[float]) -> Sizes:
    """Return the next level's stride: 2 along axes less than twice as coarse as the finest.

    A coarse axis waits until the others are as coarse, as in nnU-Net.
    """
    divisible = [
        axis for axis, n in enumerate(size) if n >= 2 * _MIN_LEVEL_VOXELS
    ]
    if not divisible:
        return (1,) * len(size)
    finest = min(spacing[axis] for axis in divisible)
    stride = [1] * len(size)
    for axis in divisible:
        if spacing[axis] < 2 * finest:
            stride[axis] = 2
    return tuple(stride)


def _choose_kernel(spacing: Sequence[float]) -> Sizes:
    """Return a level's kernel: 1 along axes that are at least twice as coarse as the finest."""
    finest = min(spacing)
    return tuple(3 if mm < 2 * finest else 1 for mm in spacing)


def multiply_strides(strides: Sequence[Sequence[int]]) -> Sizes:
    """Return by how much all levels together shrink each axis."""
    return tuple(math.prod(axis) for axis in zip(*strides, strict=True))


def _estimate_bytes_per_voxel(
    dims: int,
    levels: int,
    classes: int,
    *,
    slim: bool,
    residual: bool = False,
) -> float:
    """Return the memory of a training step for each voxel of its patches."""
    if slim:
        channels = list(SLIM_CHANNELS[:levels])
    else:
        most = _MAX_CHANNELS[dims]
        channels = [
            min(_BASE_CHANNELS * 2**level, most) for level in range(levels)
        ]
    # The slim network's first level is halved already.
    first_halving = 1 if slim else 0
    values = 0.0
    for halvings, count in enumerate(channels, start=first_halving):
        per_channel = _ARRAYS_PER_CHANNEL
        if residual:
            blocks = RESIDUAL_BLOCKS[halvings]
            per_channel = _ARRAYS_PER_BLOCK * blocks + _ARRAYS_BESIDE_BLOCKS
        values += per_channel * count / 2.0 ** (dims * halvings)
    arrays = values + _ARRAYS_PER_CLASS * classes
    return float(_BYTES_PER_VALUE * arrays)


def _explain_patch(
    plan: NetworkPlan,
    grid: Grid,
    constraints: Constraints,
    whole: bool,
    notes: Notes,
) -> None:
    typical = _format_sizes(grid.shape)
    if whole:
        notes["training.patch"] = (
            f"Holds a typical image as a whole ({typical} voxels)"
        )
        return
    limit = "memory" if constraints.budget_minutes is None else "time"
    notes["training.patch"] = (
        f"The largest that {limit} allows in a batch of {_MIN_BATCH[grid.dims]}; a typical image "
        f"has {typical} voxels"
    )


def _explain_batch(
    plan: NetworkPlan, constraints: Constraints, classes: int, notes: Notes
) -> None:
    dims, levels = len(plan.patch), len(plan.strides)
    bytes_per_voxel = _estimate_bytes_per_voxel(
        dims, levels, classes, slim=plan.slim, residual=plan.residual
    )
    gigabytes = plan.voxels_per_step * bytes_per_voxel / 1e9
    notes["training.batch_size"] = (
        f"At least {_MIN_BATCH[dims]}; more where {_ENOUGH_STEPS} steps remain possible. Needs "
        f"about {gigabytes:.1g} of {constraints.memory_gb:.1f} GB"
    )


def _explain_levels(plan: NetworkPlan, grid: Grid, notes: Notes) -> None:
    section = "network.args" if plan.slim else "network"
    divisors = multiply_strides(plan.strides)
    lowest = [n // by for n, by in zip(plan.patch, divisors, strict=True)]
    reason = (
        f"Halved as long as {_MIN_LEVEL_VOXELS} voxels are left; the lowest level has "
        f"{_format_sizes(lowest)}"
    )
    if not grid.pictures:
        reason += ". A coarse axis waits until the others are as coarse"
    notes[f"{section}.strides"] = reason
    if plan.slim:
        notes[f"{section}.channels"] = (
            "Halves an image at once, because the full size costs most: takes several times as "
            "many steps in the same time"
        )
    elif plan.residual:
        notes[f"{section}.kind"] = (
            "As requested: nnU-Net's residual encoder; its presets M, L and XL differ in memory "
            "alone, 10, 24 and 40 GB"
        )
    else:
        notes[f"{section}.channels"] = (
            "As in nnU-Net: there is enough time and memory for it"
        )


def _format_sizes(sizes: Sequence[float]) -> str:
    return " × ".join(f"{n:.0f}" for n in sizes)


def _abbreviate_levels(levels: Sequence[Sizes]) -> list[int | list[int]]:
    """Return the sizes of each level; one number where all axes have the same."""
    abbreviated: list[int | list[int]] = []
    for sizes in levels:
        first = sizes[0]
        if all(size == first for size in sizes):
            abbreviated.append(first)
        else:
            abbreviated.append(list(sizes))
    return abbreviated
