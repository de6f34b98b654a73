"""Patch, depth, strides, kernels, width and batch, from the memory and the time there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medseg.planning.constraints import Constraints, Notes
from medseg.planning.grid import Grid

_MOST_LEVELS = 6
_LEAST_LEVELS = 3
_SMALLEST = 4
"""Voxels of the lowest level at least, per axis."""
_LEAST_PATCH = 24
_LEAST_BATCH = {2: 4, 3: 2}
_MOST_BATCH = {(2, False): 8, (3, False): 4, (2, True): 32, (3, True): 12}
"""By dimensions and whether there is a GPU."""
SLIM = (16, 32, 64, 128, 256, 256)
"""Channels where time is short, from the first halving on: at the full size they cost most."""
_WIDE = 32
_MOST_CHANNELS = {2: 512, 3: 320}
_STEPS = 1500
"""Steps up to which more of them are worth more than a larger batch."""
_LEAST_STEPS = {2: _STEPS, 3: 600}
"""Steps that a time budget must allow whatever the patch; a smaller patch sees less around it.
In 2D many steps of some patches were worth more than whole pictures, two at a time."""
_AT_STEPS = 0.75
"""Share of a budget that goes into steps; the rest into preprocessing and validations."""
WIDE_TAKES = 16.0
"""How many times as long the wide network takes, measured on a CPU in 2D and 3D."""
_SPARE_FOR_WIDE = 2 * WIDE_TAKES
"""How many times 1500 steps the slim network must manage before a wide one pays."""
_VOLUMES = 14
"""Arrays of a level's size and channels that a training step holds, both ways down and up."""
_OUTPUTS = 9
"""Arrays of the full size and as many channels as there are classes, in the loss above all."""
_UNTIMED = {True: math.inf, False: 1.2e6}
"""Voxels per step where nothing is said of time, with and without a GPU."""


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """A network and what it trains on.

    Attributes:
        patch: Voxels.
        batch: Patches per step.
        slim: Whether it is made for little time.
        strides: Of each level.
        kernels: Of each level; the slim network has 3 throughout.
    """

    patch: tuple[int, ...]
    batch: int
    slim: bool
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]

    @property
    def voxels(self) -> int:
        """Per step."""
        return self.batch * math.prod(self.patch)

    def network(self) -> dict[str, Any]:
        """Return the ``network`` section."""
        dims = len(self.patch)
        if self.slim:
            return slim_network(dims, self.strides[1:])
        section: dict[str, Any] = {"kind": "unet", "dims": dims, "channels": _WIDE}
        section["strides"] = [_short(stride) for stride in self.strides]
        if any(any(n != 3 for n in kernel) for kernel in self.kernels):
            section["kernel_sizes"] = [_short(kernel) for kernel in self.kernels]
        return section


def slim_network(dims: int, strides: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Return the ``network`` section of MONAI's ``UNet``, which halves an image at once.

    Args:
        dims: 2 or 3.
        strides: Of each halving.
    """
    arguments = {
        "channels": list(SLIM[: len(strides) + 1]),
        "strides": [_short(stride) for stride in strides],
        "num_res_units": 2,
    }
    return {"kind": "UNet", "dims": dims, "args": arguments}


def max_patch_voxels(wishes: Constraints, dims: int, classes: int) -> float:
    """Return how many voxels a patch can have, so that time and memory allow enough of them.

    Args:
        wishes: What the plan has to fit.
        dims: 2 or 3.
        classes: Channels of the output.
    """
    return _step_voxels(wishes, dims, classes, _LEAST_STEPS[dims]) / _LEAST_BATCH[dims]


def _step_voxels(wishes: Constraints, dims: int, classes: int, steps: int) -> float:
    """Return how many voxels a step can have, so that time allows ``steps`` and memory one."""
    by_time = _UNTIMED[wishes.on_gpu]
    if wishes.budget_minutes is not None and wishes.voxels_per_second is not None:
        by_time = _seconds(wishes) * wishes.voxels_per_second / steps
    bytes_per_voxel = _bytes_per_voxel(dims, 6, classes, slim=not wishes.on_gpu)
    return min(by_time, wishes.memory_gb * 1e9 / bytes_per_voxel)


def _seconds(wishes: Constraints) -> float:
    return 60 * (wishes.budget_minutes or 0.0) * _AT_STEPS


def choose_network(grid: Grid, wishes: Constraints, notes: Notes, classes: int = 2) -> NetworkPlan:
    """Choose the network, its patch and its batch.

    Args:
        grid: Where it works.
        wishes: What the plan has to fit.
        notes: Takes the reasons.
        classes: Channels of the output.
    """
    allowed = max_patch_voxels(wishes, grid.dims, classes)
    patch = [max(_SMALLEST * 2, math.ceil(n)) for n in grid.shape]
    strides, kernels = _topology(patch, grid)
    whole, spacing = True, grid.spacing[: grid.dims]
    while math.prod(_rounded(patch, strides)) > allowed:
        extents = [n * mm if n > _LEAST_PATCH else 0 for n, mm in zip(patch, spacing, strict=True)]
        if not any(extents):
            break
        longest = extents.index(max(extents))
        patch[longest] = max(_LEAST_PATCH, math.floor(patch[longest] * 0.9))
        strides, kernels = _topology(patch, grid)
        whole = False
    fitted = _rounded(patch, strides)
    spacious = _step_voxels(wishes, grid.dims, classes, _STEPS)
    batch = int(min(spacious / math.prod(fitted), _MOST_BATCH[grid.dims, wishes.on_gpu]))
    batch = max(batch, _LEAST_BATCH[grid.dims])
    spare = spacious / (batch * math.prod(fitted))
    wide = wishes.on_gpu or (wishes.budget_minutes is not None and spare >= _SPARE_FOR_WIDE)
    shape = NetworkPlan(fitted, batch, not wide, strides, kernels)
    gigabytes = shape.voxels * _bytes_per_voxel(grid.dims, len(strides), classes, shape.slim) / 1e9
    _explain(shape, grid, wishes, whole, gigabytes, notes)
    return shape


def _explain(
    shape: NetworkPlan, grid: Grid, wishes: Constraints, whole: bool, gigabytes: float, notes: Notes
) -> None:
    typical = " × ".join(f"{n:.0f}" for n in grid.shape)
    least = _LEAST_BATCH[grid.dims]
    limit = "time" if wishes.budget_minutes is not None else "memory"
    if whole:
        notes["training.patch"] = f"Holds a typical image whole ({typical} voxels)"
    else:
        notes["training.patch"] = (
            f"The most that {limit} allows in a batch of {least}; a typical image has {typical} "
            "voxels"
        )
    notes["training.batch_size"] = (
        f"At least {least}; more where {_STEPS} steps are still possible. Needs about "
        f"{gigabytes:.1g} of {wishes.memory_gb:.1f} GB"
    )
    lowest = [n // s for n, s in zip(shape.patch, _divisor(shape.strides), strict=True)]
    notes["network.args.strides" if shape.slim else "network.strides"] = (
        f"Halved as long as {_SMALLEST} voxels are left; the lowest level has "
        f"{' × '.join(map(str, lowest))}"
        + ("" if grid.pictures else ". A coarse axis waits until the others are as coarse")
    )
    notes["network.args.channels" if shape.slim else "network.channels"] = (
        "Halves an image at once, because the full size costs most: takes several times as many "
        "steps in the same time"
        if shape.slim
        else "As in nnU-Net: there is the time and memory for it"
    )


def _bytes_per_voxel(dims: int, levels: int, classes: int, slim: bool) -> float:
    """Return the memory of a training step for each voxel of its patches."""
    wide = [min(_WIDE * 2**level, _MOST_CHANNELS[dims]) for level in range(levels)]
    top = 1 if slim else 0  # how often the first level is halved already
    of_levels = enumerate(SLIM[:levels] if slim else wide, start=top)
    inside = _VOLUMES * sum(n / 2.0 ** (dims * halved) for halved, n in of_levels)
    return float(4 * (inside + _OUTPUTS * classes))


def _topology(
    patch: Sequence[int], grid: Grid
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Return strides and kernels: an axis is halved once it is no coarser than twice the finest."""
    size, spacing = list(patch), list(grid.spacing[: grid.dims])
    strides, kernels = [(1,) * grid.dims], [_kernel(spacing)]
    while len(strides) < _MOST_LEVELS:
        can = [axis for axis, n in enumerate(size) if n >= 2 * _SMALLEST]
        finest = min((spacing[axis] for axis in can), default=0.0)
        halved = [axis for axis in can if spacing[axis] < 2 * finest]
        if not halved:
            break
        stride = tuple(2 if axis in halved else 1 for axis in range(grid.dims))
        size = [math.ceil(n / by) for n, by in zip(size, stride, strict=True)]
        spacing = [mm * by for mm, by in zip(spacing, stride, strict=True)]
        strides.append(stride)
        kernels.append(_kernel(spacing))
    missing = _LEAST_LEVELS - len(strides)
    strides += [(1,) * grid.dims] * missing
    kernels += [_kernel(spacing)] * missing
    return tuple(strides), tuple(kernels)


def _kernel(spacing: Sequence[float]) -> tuple[int, ...]:
    return tuple(3 if mm < 2 * min(spacing) else 1 for mm in spacing)


def _divisor(strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(math.prod(axis) for axis in zip(*strides, strict=True))


def _rounded(patch: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    by = _divisor(strides)
    return tuple(math.ceil(n / d) * d for n, d in zip(patch, by, strict=True))


def _short(size: tuple[int, ...]) -> int | list[int]:
    return size[0] if len(set(size)) == 1 else list(size)
