"""Where the voxels of one grid lie in another, as MONAI's ``Spacing`` puts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from medseg.errors import GeometryError
from medseg.preprocessing.sending import send
from medseg.volume import Affine

Shape = tuple[int, int, int]

STRAIGHT_VOXELS = 2e-4
"""How far, in voxels, an affine's rounding to float32 may bend a grid that counts as straight."""


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
        if isinstance(index, slice):
            return Taps(*(each[index] for each in self))
        # Several times as fast as indexing.
        return Taps(*(each.index_select(0, index) for each in self))

    def after(self, first: int) -> Taps:
        """Return the taps where a part is read that begins with this index."""
        return self._replace(lower=self.lower - first, upper=self.upper - first)


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
        return compute_taps(send(position, device), length)

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
