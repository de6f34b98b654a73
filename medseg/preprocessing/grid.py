"""Where a network looks at a scan: reoriented to RAS, cropped to a box, at the bundle's spacing.

The steps are those of the bundle's MONAI chain (``transforms.preprocessing_steps``), stated as
numbers: reorienting and cropping are views of the scan's array, and only resampling makes new
voxels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch

from medseg.bundle.spec import BundleSpec, PreprocessingSpec
from medseg.errors import GeometryError, ScanError
from medseg.io.formats import MAX_VOXELS
from medseg.preprocessing.normalisation import (
    normalise_shown,
    takes_statistics,
)
from medseg.preprocessing.resampling import (
    GridMap,
    Shape,
    compute_spacing_maps,
    find_memory_order,
    resample_linear,
)
from medseg.preprocessing.transforms import (
    IMAGE,
    build_chain,
    build_empty_scan_error,
    normalisation_steps,
)
from medseg.volume import Affine, Array, Volume

Box = tuple[slice, slice, slice]
Flags = npt.NDArray[np.bool_]

_AS_STORED = np.array([[0.0, 1], [1, 1], [2, 1]])
"""nibabel's orientation that leaves every axis where it is."""
_AT_ONCE = 1 << 22
"""Voxels compared or normalised at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class NetworkGrid:
    """The grid on which a network sees one scan.

    Attributes:
        orientation: nibabel's orientation (axis and direction of each scan axis) that makes it
            RAS.
        box: The part of the reoriented scan that is looked at.
        scan_to_network: Makes the network's grid of the box.
        network_to_scan: Makes the box of the network's grid.
    """

    orientation: npt.NDArray[np.float64]
    box: Box
    scan_to_network: GridMap
    network_to_scan: GridMap

    @property
    def shape(self) -> Shape:
        """Voxels of the network's grid."""
        return self.scan_to_network.target

    def crop(self, array: Array) -> Array:
        """Return the box of an array ``(…, i, j, k)`` on the scan's grid, as a view.

        The view is ``(…, x, y, z)``; what is written into it lands in the array.
        """
        return _reorient(array, self.orientation)[(..., *self.box)]


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
    orientation = _find_orientation(volume, prep)
    reorientation = nib.orientations.inv_ornt_aff(orientation, volume.shape)
    reoriented = _reorient(volume.array, orientation)
    box = _find_box(reoriented, prep, volume)
    corner = [part.start for part in box]
    i, j, k = (part.stop - part.start for part in box)
    affine = volume.affine @ reorientation @ _translation(corner)
    try:
        scan_to_network, network_to_scan = compute_spacing_maps(
            affine, (i, j, k), prep.spacing_mm
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
    return NetworkGrid(orientation, box, scan_to_network, network_to_scan)


class NetworkInput:
    """Makes what the network sees of a scan: the bundle's chain without copies of the scan.

    Args:
        spec: The bundle.
    """

    def __init__(self, spec: BundleSpec) -> None:
        self._normalise = build_chain(normalisation_steps(spec))
        self._intensities = spec.intensities
        self._takes_statistics = takes_statistics(spec.intensities)

    def __call__(
        self,
        volume: Volume,
        grid: NetworkGrid,
        device: torch.device | str = "cpu",
    ) -> torch.Tensor:
        """Resample and normalise a scan.

        Args:
            volume: The scan.
            grid: Where the network looks.
            device: Where the result shall lie.

        Returns:
            float32 ``(channels, *grid.shape)``, with any strides.

        Raises:
            ScanError: If the intensities cannot be normalised.
        """
        image = resample_linear(
            grid.crop(volume.array), grid.scan_to_network, device
        )
        if volume.padding and self._takes_statistics:
            mask = grid.crop(volume.padding.get_mask())
            share = resample_linear(mask, grid.scan_to_network, device)
            return normalise_shown(image, share, self._intensities)
        # The slowest axis in memory first: then planes are taken that lie together.
        order = sorted((1, 2, 3), key=image.stride, reverse=True)
        try:
            normalised = self._normalise_in_place(image.permute(0, *order))
        except (RuntimeError, ValueError) as error:
            # MONAI wraps whatever went wrong in a RuntimeError naming the transform.
            raise ScanError(
                f"a scan of shape {volume.shape} cannot be normalised",
                source=volume.source or None,
                detail=str(error.__cause__ or error),
            ) from error
        back = [1 + order.index(axis) for axis in (1, 2, 3)]
        return normalised.permute(0, *back)

    def _normalise_in_place(self, image: torch.Tensor) -> torch.Tensor:
        if self._takes_statistics:
            return self._normalise_all(image)
        voxels_per_plane = math.prod(image.shape[2:])
        planes_at_once = max(1, _AT_ONCE // voxels_per_plane)
        for first in range(0, image.shape[1], planes_at_once):
            planes = image[:, first : first + planes_at_once]
            planes.copy_(self._normalise_all(planes))
        return image

    def _normalise_all(self, image: torch.Tensor) -> torch.Tensor:
        normalised: Mapping[str, Any] = self._normalise({IMAGE: image})
        return normalised[IMAGE].as_tensor()  # type: ignore[no-any-return]


def _find_orientation(
    volume: Volume, prep: PreprocessingSpec
) -> npt.NDArray[np.float64]:
    if prep.input == "picture":
        return _AS_STORED
    ras = nib.orientations.axcodes2ornt("RAS")
    own = nib.orientations.io_orientation(volume.affine)
    orientation: npt.NDArray[np.float64] = nib.orientations.ornt_transform(
        own, ras
    )
    return orientation


def _reorient(array: Array, orientation: npt.NDArray[np.float64]) -> Array:
    """Return a reoriented view of an array ``(…, i, j, k)``."""
    # nibabel turns the first axes, the spatial ones are the last.
    spatial_first = np.moveaxis(array, (-3, -2, -1), (0, 1, 2))
    reoriented = nib.orientations.apply_orientation(spatial_first, orientation)
    return np.moveaxis(reoriented, (0, 1, 2), (-3, -2, -1))


def _translation(voxels: Sequence[int]) -> Affine:
    affine: Affine = np.eye(4)
    affine[:3, 3] = voxels
    return affine


def _find_box(array: Array, prep: PreprocessingSpec, volume: Volume) -> Box:
    """Return the part of the reoriented scan that is looked at: all, or what holds the body."""
    if prep.crop_above is not None:
        return _find_foreground(array, prep.crop_above, volume)
    i, j, k = array.shape[1:]
    return slice(0, i), slice(0, j), slice(0, k)


def _find_foreground(array: Array, threshold: float, volume: Volume) -> Box:
    """Return the smallest box that holds every voxel above ``threshold`` in any channel."""
    occupied = [np.zeros(n, bool) for n in array.shape[1:]]
    # Plane by plane as they lie in memory, so that no mask of the whole scan is made.
    order = find_memory_order(array)
    in_order = [occupied[axis] for axis in order]
    for channel in array:
        _mark_occupied(channel.transpose(order), threshold, in_order)
    x, y, z = occupied
    if not x.any():
        raise build_empty_scan_error(threshold, volume)
    return _extent(x), _extent(y), _extent(z)


def _mark_occupied(
    channel: Array, threshold: float, occupied: Sequence[Flags]
) -> None:
    """Mark along each axis, in place, which indices hold a voxel above the threshold."""
    outer, middle, inner = occupied
    voxels_per_plane = math.prod(channel.shape[1:])
    planes_at_once = max(1, _AT_ONCE // voxels_per_plane)
    for first in range(0, len(channel), planes_at_once):
        planes = slice(first, first + planes_at_once)
        intensities = channel[planes].astype(np.float32, copy=False)
        above: Array = np.greater(intensities, threshold)
        outer[planes] |= above.any(axis=(1, 2))
        through_planes = np.any(above, axis=0)
        middle |= through_planes.any(axis=1)
        inner |= through_planes.any(axis=0)


def _extent(flags: Flags) -> slice:
    """Return from the first true flag to the last."""
    first = int(np.argmax(flags))
    behind_last = int(np.argmax(flags[::-1]))
    return slice(first, len(flags) - behind_last)
