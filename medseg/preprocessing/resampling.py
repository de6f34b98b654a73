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
from monai.data.utils import AFFINE_TOL, affine_to_spacing, compute_shape_offset, zoom_affine
from monai.networks.utils import to_norm_affine
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
        upper: Index of the neighbour above; the same where the place is that of a voxel.
        below: Share of the neighbour below, 0 to 1, float32.
        above: Share of the neighbour above. Both are rounded from float64, because what is left
            of 1 decides whether a neighbour counts at all.
    """

    lower: torch.Tensor
    upper: torch.Tensor
    below: torch.Tensor
    above: torch.Tensor

    def at(self, index: torch.Tensor | slice) -> Taps:
        """Return the taps of some of the voxels."""
        return Taps(*(part[index] for part in self))


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
        matrix[:3, :3] = np.triu(matrix[:3, :3])
        slant = np.abs(np.triu(matrix[:3, :3], 1)) @ np.array(self.target)
        if (slant <= STRAIGHT_VOXELS).all():
            matrix[:3, :3] = np.diag(np.diag(matrix))[:3, :3]
        object.__setattr__(self, "matrix", matrix)

    @property
    def is_identity(self) -> bool:
        """Whether every voxel stays where it is."""
        return self.source == self.target and np.array_equal(self.matrix, np.eye(4))

    @property
    def is_axis_aligned(self) -> bool:
        """Whether each axis maps by itself, by a scale and an offset."""
        linear = self.matrix[:3, :3]
        return bool((linear == np.diag(np.diag(linear))).all())

    def axis_taps(self, axis: int, device: torch.device | str = "cpu") -> Taps:
        """Return the taps along an axis that maps by itself, one for each index of the target.

        Rounding is MONAI's too: a voxel that it puts 1e-16 beside a zero is not zero for it, and
        a normalisation may leave out zeros.
        """
        if self.is_identity:
            return _taps(torch.arange(self.target[axis], device=device).double(), self.source[axis])
        size = [1, 1, 1]
        size[axis] = self.target[axis]
        theta = to_norm_affine(torch.from_numpy(self.matrix)[None], self.source, self.target)
        backwards = [2, 1, 0, 3]  # torch names the last axis first
        theta = theta[:, backwards][:, :, backwards]
        grid = functional.affine_grid(theta[:, :3], [1, 1, *size], align_corners=False)
        length = self.source[axis]
        place = ((grid[..., 2 - axis].reshape(-1) + 1) * length - 1) / 2
        return _taps(place.to(device), length)

    def taps(self, axis: int, *index: torch.Tensor) -> Taps:
        """Return what voxels anywhere in the target read along one axis of the source.

        Args:
            axis: 0, 1 or 2.
            index: The voxels' indices along each of the three axes, broadcastable.

        Returns:
            Taps of the broadcast shape.
        """
        return _taps(self.place(axis, *index), self.source[axis])

    def place(self, axis: int, *index: torch.Tensor) -> torch.Tensor:
        """Return where voxels of the target lie along one axis of the source.

        Args:
            axis: 0, 1 or 2.
            index: The voxels' indices along each of the three axes, broadcastable.

        Returns:
            float64, of the broadcast shape; it may lie outside the source.
        """
        *scales, offset = self.matrix[axis].tolist()
        place = torch.full((), offset, dtype=torch.float64, device=index[0].device)
        for at, scale in zip(index, scales, strict=True):
            if scale:
                place = place + at.double() * scale
        return place


def _taps(place: torch.Tensor, length: int) -> Taps:
    place = place.clamp(0, length - 1)  # outside, the border is repeated
    lower = place.floor()
    above = place - lower
    return Taps(lower.long(), place.ceil().long(), (1 - above).float(), above.float())


def compute_spacing_maps(
    affine: Affine, shape: Shape, spacing_mm: Sequence[float | None] | None
) -> tuple[GridMap, GridMap]:
    """Return the maps that MONAI's ``Spacing`` and its inverse follow.

    The rule is that of ``monai.transforms.Spacing`` with ``align_corners=False``: first and last
    voxel stay in place, axes keep their directions, shear is removed.

    Args:
        affine: Of the scan, 4×4, voxel → mm.
        shape: Voxels of the scan.
        spacing_mm: Wanted voxel size; ``None`` keeps that of the scan, per axis or for all.

    Returns:
        The map that makes the new grid from the scan's, and the map back.

    Raises:
        GeometryError: If the affine cannot be told apart into axes and voxel sizes.
    """
    nothing = GridMap(np.eye(4), shape, shape), GridMap(np.eye(4), shape, shape)
    if spacing_mm is None:
        return nothing
    try:
        own = affine_to_spacing(affine, 3)
        wanted = np.array([-1.0 if mm is None else mm for mm in spacing_mm])
        wanted = np.where(np.abs(own - wanted) <= AFFINE_TOL, own, wanted)
        spaced = zoom_affine(affine, wanted, diagonal=False)
        size, spaced[:3, 3] = compute_shape_offset(shape, affine, spaced)
        there, back = np.linalg.solve(affine, spaced), np.linalg.solve(spaced, affine)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise GeometryError(
            f"the affine of this scan cannot be brought to a voxel size of {list(spacing_mm)} mm "
            f"({error}); its geometry is broken"
        ) from error
    target = (int(size[0]), int(size[1]), int(size[2]))
    if target == shape and _is_unmoved(affine, spaced, there):
        return nothing
    if target == shape and _is_unmoved(spaced, affine, back):
        return GridMap(there, shape, target), nothing[1]
    return GridMap(there, shape, target), GridMap(back, target, shape)


def _is_unmoved(source: Affine, target: Affine, between: Affine) -> bool:
    return np.allclose(source, target, atol=AFFINE_TOL) or np.allclose(
        between, np.eye(4), atol=AFFINE_TOL
    )


def resample_linear(
    source: Array, there: GridMap, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Take the values of an image on another grid, by linear interpolation.

    Args:
        source: Shape ``(channels, *there.source)``, numbers of any type and strides.
        there: Where the target's voxels lie in it.
        device: Where to compute; only a few planes of the source are there at a time.

    Returns:
        float32, ``(channels, *there.target)``. Its memory runs in the order of the source's:
        plane by plane where the source does.

    Raises:
        RuntimeError: If there is no memory for the result.
    """
    if not there.is_axis_aligned:
        return _resample_slanted(source, there, device)
    order = _memory_order(source)
    by_plane = source.transpose(0, *(1 + axis for axis in order))
    size = [there.target[axis] for axis in order]
    made = torch.empty([len(source), *size], device=device)
    taps = [None if there.is_identity else there.axis_taps(axis, device) for axis in order]
    at_once = max(1, _READ_AT_ONCE // math.prod(by_plane.shape[2:]))
    for channel, into in zip(by_plane, made, strict=True):
        for first in range(0, size[0], at_once):
            here = slice(first, min(first + at_once, size[0]))
            into[here] = _planes(channel, here, taps, device)
    return made.permute(0, *(1 + order.index(axis) for axis in range(3)))


def resample_nearest(labels: Array, there: GridMap) -> Array:
    """Take labels on another grid, each from the voxel that is nearest.

    Args:
        labels: Shape ``there.source``, of any type and strides.
        there: Where the target's voxels lie in it.

    Returns:
        Of the same type, shape ``there.target``; the labels themselves where nothing moves.
    """
    if there.is_identity:
        return labels
    made = np.empty(there.target, labels.dtype, order="F")
    columns, lines = (torch.arange(n) for n in there.target[:2])
    for k in range(there.target[2]):
        index = columns[:, None], lines[None], torch.tensor([[k]])
        places = [there.place(axis, *index).round().long() for axis in range(3)]
        inside = [
            place.clamp(0, n - 1).numpy() for place, n in zip(places, there.source, strict=True)
        ]
        made[..., k] = labels[inside[0], inside[1], inside[2]]
    return made


def _memory_order(array: Array) -> list[int]:
    """Return the spatial axes from the slowest in memory to the fastest."""
    return sorted(range(3), key=lambda axis: (-abs(array.strides[1 + axis]), axis))


def _planes(
    channel: Array, here: slice, taps: Sequence[Taps | None], device: torch.device | str
) -> torch.Tensor:
    if taps[0] is None:
        return _read(channel[here], device)
    outer = taps[0].at(here)
    first, stop = int(outer.lower.min()), int(outer.upper.max()) + 1
    planes = _read(channel[first:stop], device)
    for axis in (1, 2):
        planes = _interpolated(planes, axis, taps[axis])
    return _interpolated(
        planes, 0, outer._replace(lower=outer.lower - first, upper=outer.upper - first)
    )


def _read(planes: Array, device: torch.device | str) -> torch.Tensor:
    return torch.from_numpy(np.array(planes, dtype=np.float32, order="C")).to(device)


def _interpolated(image: torch.Tensor, axis: int, taps: Taps | None) -> torch.Tensor:
    if taps is None:
        return image
    shape = [-1 if n == axis else 1 for n in range(image.ndim)]
    found = image.index_select(axis, taps.lower).mul_(taps.below.view(shape))
    return found.addcmul_(image.index_select(axis, taps.upper), taps.above.view(shape))


def _resample_slanted(source: Array, there: GridMap, device: torch.device | str) -> torch.Tensor:
    """Resample plane by plane along the third axis, each in float64 as MONAI does."""
    made = torch.empty([len(source), *there.target], device=device)
    through = there.axis_taps(2, device)
    rows = torch.arange(there.target[0], device=device)[:, None]
    columns = torch.arange(there.target[1], device=device)[None, :]
    for k in range(there.target[2]):
        below, above = (
            torch.from_numpy(np.array(source[..., int(at[k])], dtype=np.float64)).to(device)
            for at in (through.lower, through.upper)
        )
        plane = below.mul_(through.below[k]).add_(above.mul_(through.above[k]))
        places = [
            there.place(axis, rows, columns, torch.tensor(k, device=device)) for axis in (0, 1)
        ]
        made[..., k] = _sample_plane(plane, places)
    return made


def _sample_plane(plane: torch.Tensor, places: Sequence[torch.Tensor]) -> torch.Tensor:
    """Interpolate ``(channels, i, j)`` at places given along ``i`` and along ``j``."""
    i, j = ((2 * place + 1) / size - 1 for place, size in zip(places, plane.shape[1:], strict=True))
    i, j = i.expand(len(i), j.shape[1]), j.expand(len(i), j.shape[1])
    grid = torch.stack([j, i], dim=-1)  # grid_sample wants the last axis first
    return functional.grid_sample(
        plane[None], grid[None], padding_mode="border", align_corners=False
    )[0]
