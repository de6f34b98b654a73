"""Where a network looks at a scan: along its axes, cropped to a box, at the bundle's spacing.

The steps are those of the bundle's MONAI chain (``transforms.preprocessing_steps``), stated as
numbers: reorienting and cropping are views of the scan's array, and only resampling makes new
voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from medseg.bundle.spec import PreprocessingSpec
from medseg.errors import GeometryError, ScanError
from medseg.io.formats import MAX_VOXELS
from medseg.preprocessing.extent import compute_extent_maps
from medseg.preprocessing.foreground import Box, find_box, select_all
from medseg.preprocessing.grid_map import GridMap, Shape, compute_spacing_maps
from medseg.volume import Affine, Array, Volume

_AS_STORED = np.array([[0.0, 1], [1, 1], [2, 1]])
"""nibabel's orientation that leaves every axis where it is."""


@dataclass(frozen=True, slots=True, eq=False)
class NetworkGrid:
    """The grid on which a network sees one scan.

    Attributes:
        orientation: nibabel's orientation (axis and direction of each scan axis) that makes it
            the network's.
        box: The part of the reoriented scan that is looked at.
        scan_to_network: Makes the network's grid of the box.
        network_to_scan: Makes the box of the network's grid.
        affine: Of the network's grid, voxel → patient mm.
    """

    orientation: npt.NDArray[np.float64]
    box: Box
    scan_to_network: GridMap
    network_to_scan: GridMap
    affine: Affine

    @property
    def shape(self) -> Shape:
        """Voxels of the network's grid."""
        return self.scan_to_network.target

    def crop(self, array: Array) -> Array:
        """Return the box of an array ``(…, i, j, k)`` on the scan's grid, as a view.

        The view is ``(…, x, y, z)``; what is written into it lands in the array.
        """
        return _reorient(array, self.orientation)[(..., *self.box)]

    def narrow(self, part: Box) -> NetworkGrid:
        """Return the grid of a part of what the network sees.

        Of the scan, those voxels are left that lie in the part or less than one of the network's
        voxels beside it.
        """
        back = self.network_to_scan
        i, j, k = (_find_between(back, axis, part[axis]) for axis in range(3))
        on_scan = (i, j, k)
        x, y, z = (
            slice(whole.start + along.start, whole.start + along.stop)
            for whole, along in zip(self.box, on_scan, strict=True)
        )
        return NetworkGrid(
            self.orientation,
            (x, y, z),
            _narrow_map(self.scan_to_network, on_scan, part),
            _narrow_map(back, part, on_scan),
            self.affine @ _translation([along.start for along in part]),
        )

    def locate(self, part: Box, shape: Shape) -> Box:
        """Return where a part of the scan lies in the view that ``crop`` returns.

        Args:
            part: A box ``(i, j, k)`` on the scan's grid, inside the box that is looked at.
            shape: Voxels of the scan.
        """
        located = [slice(0)] * 3
        for side, length, (axis, direction) in zip(
            part, shape, self.orientation, strict=True
        ):
            start, stop = side.start, side.stop
            if direction < 0:
                start, stop = length - stop, length - start
            first = self.box[int(axis)].start
            located[int(axis)] = slice(start - first, stop - first)
        x, y, z = located
        return x, y, z


def compute_network_grid(
    volume: Volume, prep: PreprocessingSpec
) -> NetworkGrid:
    """Find the grid on which the network sees a scan.

    Args:
        volume: The scan.
        prep: The bundle's preprocessing.

    Raises:
        ScanError: If no voxel is above ``crop_above``, or the grid would be absurdly large.
        GeometryError: If the scan's affine cannot be resampled.
    """
    import nibabel as nib

    orientation = _find_orientation(volume, prep)
    reorientation = nib.orientations.inv_ornt_aff(orientation, volume.shape)
    reoriented = _reorient(volume.array, orientation)
    is_padding = None
    if volume.padding:
        is_padding = _reorient(volume.padding.get_mask(), orientation)
    if prep.crop_on == "scan":
        box = find_box(reoriented, prep, volume, is_padding)
    else:
        box = select_all(reoriented)
    corner = [part.start for part in box]
    i, j, k = _measure(box)
    affine = volume.affine @ reorientation @ _translation(corner)
    try:
        scan_to_network, network_to_scan = _compute_maps(
            affine, (i, j, k), prep
        )
    except GeometryError as error:
        raise GeometryError(
            error.message, source=volume.source or "scan", detail=error.detail
        ) from error
    if math.prod(scan_to_network.target) > MAX_VOXELS:
        spacing = tuple(round(mm, 3) for mm in volume.spacing)
        raise ScanError(
            f"at the bundle's voxel size it has {scan_to_network.target} voxels, more than "
            f"{MAX_VOXELS:,}; the voxel size in its header ({spacing} mm) is wrong, or the bundle "
            "is not made for such scans",
            source=volume.source or "scan",
        )
    return NetworkGrid(
        orientation,
        box,
        scan_to_network,
        network_to_scan,
        affine @ scan_to_network.matrix,
    )


def crop_input(
    image: torch.Tensor,
    grid: NetworkGrid,
    prep: PreprocessingSpec,
    volume: Volume,
) -> tuple[torch.Tensor, NetworkGrid]:
    """Cut what a network sees to the box that the bundle looks at there, if it does.

    Args:
        image: ``(channels, *grid.shape)``.
        grid: Where it lies.
        prep: The bundle's preprocessing.
        volume: The scan, for messages.

    Raises:
        ScanError: If no voxel is one that the bundle looks at.
    """
    if prep.crop_on == "scan":
        return image, grid
    part = find_box(image.cpu().numpy(), prep, volume)
    return image[(slice(None), *part)], grid.narrow(part)


def _find_between(back: GridMap, axis: int, along: slice) -> slice:
    """Return the voxels of a scan that lie less than a voxel beside a part of the network's grid.

    Args:
        back: Where the scan's voxels lie in the network's grid.
        axis: One of both.
        along: The part along it.
    """
    if not back.is_axis_aligned:
        return slice(0, back.target[axis])
    # By the neighbours that MONAI reads, rounding included.
    taps = back.axis_taps(axis)
    is_near = (taps.upper >= along.start) & (taps.lower < along.stop)
    near = is_near.nonzero()[:, 0]
    if not len(near):
        near = (taps.lower - along.start).abs().argmin()[None]
    return slice(int(near[0]), int(near[-1]) + 1)


def _narrow_map(grid_map: GridMap, source: Box, target: Box) -> GridMap:
    """Return a map from a part of its source to a part of its target."""
    before = [-part.start for part in source]
    behind = [part.start for part in target]
    matrix = _translation(before) @ grid_map.matrix @ _translation(behind)
    return GridMap(matrix, _measure(source), _measure(target))


def _measure(box: Box) -> Shape:
    i, j, k = (part.stop - part.start for part in box)
    return i, j, k


def _compute_maps(
    affine: Affine, shape: Shape, prep: PreprocessingSpec
) -> tuple[GridMap, GridMap]:
    resampling = prep.resampling
    if resampling.grid == "spacing":
        return compute_spacing_maps(
            affine, shape, prep.spacing_mm, resampling.tolerance
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return compute_extent_maps(spacing, shape, prep.spacing_mm, resampling)


def _find_orientation(
    volume: Volume, prep: PreprocessingSpec
) -> npt.NDArray[np.float64]:
    import nibabel as nib

    if prep.input == "picture":
        return _AS_STORED
    if prep.stored_order is not None:
        as_seen = _AS_STORED.copy()
        as_seen[list(prep.stored_order), 0] = range(3)
        return as_seen
    wanted = nib.orientations.axcodes2ornt(prep.axes)
    own = nib.orientations.io_orientation(volume.affine)
    orientation: npt.NDArray[np.float64] = nib.orientations.ornt_transform(
        own, wanted
    )
    return orientation


def find_spacing_of_axes(
    volume: Volume, prep: PreprocessingSpec
) -> tuple[float, float, float]:
    """Return a scan's voxel size in mm along the axes that a network sees."""
    orientation = _find_orientation(volume, prep)
    spacing = [0.0, 0.0, 0.0]
    for mm, axis in zip(volume.spacing, orientation[:, 0], strict=True):
        spacing[int(axis)] = mm
    i, j, k = spacing
    return i, j, k


def make_affine(spacing: Sequence[float], prep: PreprocessingSpec) -> Affine:
    """Return an affine of voxels of a size, along the axes that a network sees.

    Stored axes have no direction before there is a scan; they are taken for those of RAS.
    """
    import nibabel as nib

    affine: Affine = np.diag([*spacing, 1.0])
    if prep.input == "picture":
        return affine
    axes = prep.axes
    if prep.stored_order is not None:
        axes = "".join("RAS"[axis] for axis in prep.stored_order)
    directions = nib.orientations.axcodes2ornt(axes)
    turned: Affine = np.zeros((4, 4))
    turned[3, 3] = 1
    for column, (axis, sign) in enumerate(directions):
        turned[int(axis), column] = sign * spacing[column]
    return turned


def _reorient(array: Array, orientation: npt.NDArray[np.float64]) -> Array:
    """Return a reoriented view of an array ``(…, i, j, k)``."""
    import nibabel as nib

    # nibabel turns the first axes, the spatial ones are the last.
    spatial_first = np.moveaxis(array, (-3, -2, -1), (0, 1, 2))
    reoriented = nib.orientations.apply_orientation(spatial_first, orientation)
    return np.moveaxis(reoriented, (0, 1, 2), (-3, -2, -1))


def _translation(voxels: Sequence[int]) -> Affine:
    affine: Affine = np.eye(4)
    affine[:3, 3] = voxels
    return affine
