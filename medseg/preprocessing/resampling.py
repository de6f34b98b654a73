"""From one grid of voxels to another by linear interpolation, exactly where MONAI samples.

``spacing_maps`` says where MONAI's ``Spacing`` puts its voxels; ``resample`` takes the values
there. A scan is read a few planes at a time, whatever its type, byte order and strides, so that
no copy of it in another type is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from medseg.errors import GeometryError
from medseg.volume import Affine, Array

Shape = tuple[int, int, int]

STRAIGHT_VOXELS = 2e-4
"""How far, in voxels, an affine's rounding to float32 may bend a grid that counts as straight."""

_READ_AT_ONCE = 1 << 21
"""Voxels of the source read at a time: large enough to be fast, small beside any scan."""


class Taps(NamedTuple):
    """What linear interpolation reads along one axis, for each of some voxels of the target.

    Attributes:
        lower: Index of the neighbour below, int64.
        upper: Index of the neighbour above; the same where the position is that of a voxel.
        below: Weight of the neighbour below, 0 to 1, float32.
        above: Weight of the neighbour above. Both are rounded from float64, because what is left
            of 1 decides whether a neighbour counts at all.
    """

    lower: torch.Tensor
    upper: torch.Tensor
    below: torch.Tensor
    above: torch.Tensor

    def at(self, index: torch.Tensor | slice) -> Taps:
        """Return the taps of some of the voxels."""
        return Taps(
            self.lower[index],
            self.upper[index],
            self.below[index],
            self.above[index],
        )


@dataclass(frozen=True, slots=True, eq=False)
class GridMap:
    """Where the voxels of a target grid lie in a source grid.

    Attributes:
        matrix: 4×4, voxel index in the target → voxel index in the source. Upper triangular:
            a target plane along the third axis lies in one plane of the source.
        source: Voxels of the source along its axes.
        target: Voxels of the target along its axes.
    """

    matrix: npt.NDArray[np.float64]
    source: Shape
    target: Shape

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        # In exact arithmetic there is nothing below the diagonal.
        linear = np.triu(matrix[:3, :3])
        off_diagonal = np.abs(np.triu(linear, 1))
        slant = off_diagonal @ np.array(self.target)
        if (slant <= STRAIGHT_VOXELS).all():
            linear = np.diag(np.diag(linear))
        matrix[:3, :3] = linear
        object.__setattr__(self, "matrix", matrix)

    @property
    def is_identity(self) -> bool:
        """Whether every voxel stays where it is."""
        return self.source == self.target and np.array_equal(
            self.matrix, np.eye(4)
        )

    @property
    def is_axis_aligned(self) -> bool:
        """Whether each axis maps by itself, by a scale and an offset."""
        linear = self.matrix[:3, :3]
        diagonal = np.diag(np.diag(linear))
        return np.array_equal(linear, diagonal)

    def axis_taps(self, axis: int, device: torch.device | str = "cpu") -> Taps:
        """Return the taps along an axis that maps by itself, one for each index of the target.

        Rounding is MONAI's too: a voxel that it puts 1e-16 beside a zero is not zero for it, and
        a normalisation may leave out zeros.
        """
        length = self.source[axis]
        if self.is_identity:
            index = torch.arange(self.target[axis], device=device)
            return compute_taps(index.double(), length)
        normalised = self._normalised_positions(axis)
        # From torch's -1…1, which spans the voxels' outer edges, to indices.
        position = ((normalised + 1) * length - 1) / 2
        return compute_taps(position.to(device), length)

    def _normalised_positions(self, axis: int) -> torch.Tensor:
        """Return where the target's indices along an axis lie in the source, in torch's -1…1."""
        from monai.networks.utils import to_norm_affine

        matrix = torch.from_numpy(self.matrix)
        theta = to_norm_affine(matrix[None], self.source, self.target)
        backwards = [2, 1, 0, 3]  # torch names the last axis first
        theta = theta[:, backwards]
        theta = theta[:, :, backwards]
        # One line of voxels along the axis says it all, as no axis depends on another.
        size = [1, 1, 1, 1, 1]
        size[2 + axis] = self.target[axis]
        grid = functional.affine_grid(theta[:, :3], size, align_corners=False)
        positions: torch.Tensor = grid[..., 2 - axis]
        return positions.reshape(-1)

    def taps(self, axis: int, *index: torch.Tensor) -> Taps:
        """Return what voxels anywhere in the target read along one axis of the source.

        Args:
            axis: 0, 1 or 2.
            index: The voxels' indices along each of the three axes, broadcastable.

        Returns:
            Taps of the broadcast shape.
        """
        return compute_taps(self.position(axis, *index), self.source[axis])

    def position(self, axis: int, *index: torch.Tensor) -> torch.Tensor:
        """Return where voxels of the target lie along one axis of the source.

        Args:
            axis: 0, 1 or 2.
            index: The voxels' indices along each of the three axes, broadcastable.

        Returns:
            float64, of the broadcast shape; it may lie outside the source.
        """
        *scales, offset = self.matrix[axis].tolist()
        position = torch.full(
            (), offset, dtype=torch.float64, device=index[0].device
        )
        for along, scale in zip(index, scales, strict=True):
            if (
                scale
            ):  # most are 0, and a term of zeros would broadcast for nothing
                term = along.double() * scale
                position = position + term
        return position


def compute_taps(position: torch.Tensor, length: int) -> Taps:
    """Return what linear interpolation reads at positions along an axis of some voxels."""
    position = position.clamp(0, length - 1)  # outside, the border is repeated
    lower = position.floor()
    above = position - lower
    below = 1 - above
    return Taps(
        lower.long(), position.ceil().long(), below.float(), above.float()
    )


def compute_spacing_maps(
    affine: Affine,
    shape: Shape,
    spacing_mm: Sequence[float | None] | None,
    tolerance: float = 0.0,
) -> tuple[GridMap, GridMap]:
    """Return the maps that MONAI's ``Spacing`` and its inverse follow.

    The rule is that of ``monai.transforms.Spacing`` with ``align_corners=False``: first and last
    voxel stay in place, axes keep their directions, shear is removed.

    Args:
        affine: Of the scan, 4×4, voxel → mm.
        shape: Voxels of the scan.
        spacing_mm: Wanted voxel size; ``None`` keeps that of the scan, per axis or for all.
        tolerance: Share by which the scan's may differ from it and be kept, too.

    Returns:
        The map that makes the new grid from the scan's, and the map back.

    Raises:
        GeometryError: If the affine cannot be decomposed into axes and voxel sizes.

    Examples:
        >>> scan_to_network, _ = compute_spacing_maps(np.diag([2.0, 2, 5, 1]), (9, 9, 5), (1, 1, 5))
        >>> scan_to_network.target
        (17, 17, 5)
    """
    unchanged = GridMap(np.eye(4), shape, shape)
    if spacing_mm is None:
        return unchanged, unchanged
    try:
        spaced, target = _apply_spacing(affine, shape, spacing_mm, tolerance)
        there: Affine = np.linalg.solve(affine, spaced).astype(np.float64)
        back: Affine = np.linalg.solve(spaced, affine).astype(np.float64)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise GeometryError(
            f"the affine of this scan cannot be brought to a voxel size of {list(spacing_mm)} mm; "
            "its geometry is broken",
            detail=str(error),
        ) from error
    # MONAI resamples in neither direction where its own tolerance sees no difference.
    if target == shape and _is_unmoved(affine, spaced, there):
        return unchanged, unchanged
    if target == shape and _is_unmoved(spaced, affine, back):
        return GridMap(there, shape, target), unchanged
    return GridMap(there, shape, target), GridMap(back, target, shape)


def _apply_spacing(
    affine: Affine,
    shape: Shape,
    spacing_mm: Sequence[float | None],
    tolerance: float,
) -> tuple[Affine, Shape]:
    """Return the affine and the shape of the grid that MONAI's ``Spacing`` makes."""
    from monai.data.utils import (
        AFFINE_TOL,
        affine_to_spacing,
        compute_shape_offset,
        zoom_affine,
    )

    own = affine_to_spacing(affine, 3)
    wanted = np.array([-1.0 if mm is None else mm for mm in spacing_mm])
    is_kept = np.abs(own - wanted) <= AFFINE_TOL + tolerance * np.abs(wanted)
    wanted = np.where(is_kept, own, wanted)
    spaced = zoom_affine(affine, wanted, diagonal=False)
    size, offset = compute_shape_offset(shape, affine, spaced)
    spaced[:3, 3] = offset
    i, j, k = map(int, size)
    return spaced, (i, j, k)


def _is_unmoved(source: Affine, target: Affine, between: Affine) -> bool:
    from monai.data.utils import AFFINE_TOL

    is_same_affine = np.allclose(source, target, atol=AFFINE_TOL)
    return is_same_affine or np.allclose(between, np.eye(4), atol=AFFINE_TOL)


def resample_linear(
    source: Array, grid_map: GridMap, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Take the values of an image on another grid, by linear interpolation.

    Args:
        source: Shape ``(channels, *grid_map.source)``, numbers of any type and strides.
        grid_map: Where the target's voxels lie in it.
        device: Where to compute; only a few planes of the source are there at a time.

    Returns:
        float32, ``(channels, *grid_map.target)``. Its memory runs in the order of the source's:
        plane by plane where the source does.

    Raises:
        RuntimeError: If there is no memory for the result.
    """
    if not grid_map.is_axis_aligned:
        return _resample_slanted(source, grid_map, device)
    order = find_memory_order(source)
    taps: list[Taps | None] = [None, None, None]
    if not grid_map.is_identity:
        taps = [grid_map.axis_taps(axis, device) for axis in order]
    return resample_channels(source, taps, order, grid_map.target, device)


def resample_channels(
    source: Array,
    taps: Sequence[Taps | None],
    order: Sequence[int],
    target: Sequence[int],
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Interpolate images along each axis by itself.

    Args:
        source: ``(channels, i, j, k)``, numbers of any type and strides.
        taps: What is read along each axis, in the order of ``order``; ``None`` where all stays.
        order: The spatial axes in the order in which the source lies in memory.
        target: Voxels of the result along its axes.
        device: Where to compute.

    Returns:
        float32, ``(channels, *target)``.
    """
    size = [target[axis] for axis in order]
    resampled = torch.empty([len(source), *size], device=device)
    for channel, planes in zip(source, resampled, strict=True):
        _resample_channel(channel.transpose(order), planes, taps)
    back = [1 + order.index(axis) for axis in range(3)]
    return resampled.permute(0, *back)


def _resample_channel(
    channel: Array, target: torch.Tensor, taps: Sequence[Taps | None]
) -> None:
    """Fill the target, whose axes are ordered as the channel's are, some planes at a time."""
    voxels_per_plane = math.prod(channel.shape[1:])
    planes_at_once = max(1, _READ_AT_ONCE // voxels_per_plane)
    count = len(target)
    for first in range(0, count, planes_at_once):
        planes = slice(first, min(first + planes_at_once, count))
        target[planes] = _resample_planes(channel, planes, taps, target.device)


def resample_nearest(labels: Array, grid_map: GridMap) -> Array:
    """Take labels on another grid, each from the voxel that is nearest.

    Args:
        labels: Shape ``grid_map.source``, of any type and strides.
        grid_map: Where the target's voxels lie in it.

    Returns:
        Of the same type, shape ``grid_map.target``; the labels themselves where nothing moves.
    """
    if grid_map.is_identity:
        return labels
    rows, columns, planes = grid_map.target
    resampled = np.empty(grid_map.target, labels.dtype, order="F")
    row = torch.arange(rows)[:, None]
    column = torch.arange(columns)[None]
    for k in range(planes):
        plane = torch.tensor([[k]])
        nearest = []
        for axis, length in enumerate(grid_map.source):
            position = grid_map.position(axis, row, column, plane)
            index = position.round().long()
            nearest.append(index.clamp(0, length - 1).numpy())
        resampled[..., k] = labels[tuple(nearest)]
    return resampled


def find_memory_order(array: Array) -> list[int]:
    """Return the spatial axes of ``(channels, i, j, k)``, 0 to 2, the slowest in memory first."""
    strides = [abs(stride) for stride in array.strides[1:]]
    return sorted(range(3), key=lambda axis: (-strides[axis], axis))


def _resample_planes(
    channel: Array,
    planes: slice,
    taps: Sequence[Taps | None],
    device: torch.device | str,
) -> torch.Tensor:
    """Return some planes of the target along its first axis."""
    outer, *inner = taps
    if outer is None:
        return _read(channel[planes], device)
    outer = outer.at(planes)
    first, last = int(outer.lower.min()), int(outer.upper.max())
    image = _read(channel[first : last + 1], device)
    # Within the planes first: of them, fewer are read than made where the target is finer.
    for axis, axis_taps in enumerate(inner, start=1):
        image = _interpolate(image, axis, axis_taps)
    within = outer._replace(
        lower=outer.lower - first, upper=outer.upper - first
    )
    return _interpolate(image, 0, within)


def _read(planes: Array, device: torch.device | str) -> torch.Tensor:
    floats = np.array(planes, dtype=np.float32, order="C")
    return torch.from_numpy(floats).to(device)


def _interpolate(
    image: torch.Tensor, axis: int, taps: Taps | None
) -> torch.Tensor:
    if taps is None:
        return image
    weight_shape = [1] * image.ndim
    weight_shape[axis] = -1
    below = taps.below.view(weight_shape)
    above = taps.above.view(weight_shape)
    interpolated = image.index_select(axis, taps.lower).mul_(below)
    return interpolated.addcmul_(image.index_select(axis, taps.upper), above)


def _resample_slanted(
    source: Array, grid_map: GridMap, device: torch.device | str
) -> torch.Tensor:
    """Resample plane by plane along the third axis, each in float64 as MONAI does."""
    rows, columns, planes = grid_map.target
    resampled = torch.empty([len(source), rows, columns, planes], device=device)
    taps = grid_map.axis_taps(2, device)
    row = torch.arange(rows, device=device)[:, None]
    column = torch.arange(columns, device=device)[None, :]
    for k in range(planes):
        plane = _interpolate_plane(source, taps, k)
        index = torch.tensor(k, device=device)
        i = grid_map.position(0, row, column, index)
        j = grid_map.position(1, row, column, index)
        resampled[..., k] = _sample_plane(plane, i, j)
    return resampled


def _interpolate_plane(source: Array, taps: Taps, k: int) -> torch.Tensor:
    """Return plane ``k`` of the target along the third axis, float64 ``(channels, i, j)``."""
    device = taps.lower.device
    below = _read_plane(source, int(taps.lower[k]), device)
    above = _read_plane(source, int(taps.upper[k]), device)
    below.mul_(taps.below[k])
    above.mul_(taps.above[k])
    return below.add_(above)


def _read_plane(source: Array, k: int, device: torch.device) -> torch.Tensor:
    plane = np.array(source[..., k], dtype=np.float64)
    return torch.from_numpy(plane).to(device)


def _sample_plane(
    plane: torch.Tensor, i: torch.Tensor, j: torch.Tensor
) -> torch.Tensor:
    """Interpolate ``(channels, i, j)`` at positions given along ``i`` and along ``j``."""
    _, rows, columns = plane.shape
    # To torch's -1…1, which spans the outer edges of the first and the last voxel.
    i = (2 * i + 1) / rows - 1
    j = (2 * j + 1) / columns - 1
    size = (len(i), j.shape[1])
    # The last axis first.
    grid = torch.stack([j.expand(size), i.expand(size)], dim=-1)
    sampled = functional.grid_sample(
        plane[None], grid[None], padding_mode="border", align_corners=False
    )
    return sampled[0]
