"""Where a network looks at a scan: turned to RAS, cut to a box, at the bundle's voxel size.

The steps are those of the bundle's MONAI chain (``transforms.preprocessing_steps``), stated as
numbers: turning and cutting are views of the scan's array, and only resampling makes new voxels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import monai.transforms
import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch

from medseg.bundle.spec import BundleSpec, PreprocessingSpec, Window
from medseg.errors import GeometryError, ScanError
from medseg.io.formats import MAX_VOXELS
from medseg.preprocessing.resampling import GridMap, compute_spacing_maps, resample_linear
from medseg.preprocessing.transforms import IMAGE, preprocessing_steps
from medseg.volume import Affine, Array, Volume

Box = tuple[slice, slice, slice]

_GEOMETRY = ("Orientationd", "CropForegroundd", "Spacingd")
_AT_ONCE = 1 << 22
"""Voxels compared or normalised at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class NetworkGrid:
    """The grid on which a network sees one scan.

    Attributes:
        turn: nibabel's orientation (axis and direction of each scan axis) that makes it RAS.
        box: The part of the turned scan that is looked at.
        there: Where the network's voxels lie in the box.
        back: Where the box' voxels lie in the network's grid.
    """

    turn: npt.NDArray[np.float64]
    box: Box
    there: GridMap
    back: GridMap

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the network's grid."""
        return self.there.target

    def crop(self, array: Array) -> Array:
        """Return the box of an array ``(…, i, j, k)`` on the scan's grid, as a view.

        The view is ``(…, x, y, z)``; what is written into it lands in the array.
        """
        return _turned(array, self.turn)[(..., *self.box)]


def compute_network_grid(volume: Volume, prep: PreprocessingSpec) -> NetworkGrid:
    """Find the grid on which the network sees a scan.

    Args:
        volume: The scan.
        prep: The bundle's preprocessing.

    Raises:
        ScanError: If no voxel is above ``crop_above``, or the grid would be absurdly large.
        GeometryError: If the scan's affine cannot be resampled.
    """
    turn = np.array([[0.0, 1], [1, 1], [2, 1]])
    if prep.input == "volume":
        ras = nib.orientations.axcodes2ornt("RAS")
        turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(volume.affine), ras)
    affine = volume.affine @ nib.orientations.inv_ornt_aff(turn, volume.shape)
    turned = _turned(volume.array, turn)
    box = tuple(slice(0, n) for n in turned.shape[1:])
    if prep.crop_above is not None:
        box = _box_above(turned, prep.crop_above, volume)
        affine = affine @ _shift([part.start for part in box])
    size = tuple(part.stop - part.start for part in box)
    try:
        there, back = compute_spacing_maps(affine, (size[0], size[1], size[2]), prep.spacing_mm)
    except GeometryError as error:
        raise GeometryError(f"{volume.source or 'scan'}: {error}") from error
    if math.prod(there.target) > MAX_VOXELS:
        raise ScanError(
            f"{volume.source or 'scan'}: at the bundle's voxel size it has {there.target} voxels, "
            f"more than {MAX_VOXELS:,}; the voxel size in its header "
            f"({tuple(round(mm, 3) for mm in volume.spacing)} mm) is wrong, or the bundle is not "
            "made for such scans"
        )
    return NetworkGrid(turn, (box[0], box[1], box[2]), there, back)


class NetworkInput:
    """Makes what the network sees of a scan: the bundle's chain without copies of the scan.

    Args:
        spec: The bundle.
    """

    def __init__(self, spec: BundleSpec) -> None:
        self._normalise = monai.transforms.Compose(
            [
                _build(step)
                for step in preprocessing_steps(spec)
                if step["_target_"] not in _GEOMETRY
            ]
        )
        # A window maps each voxel by itself; everything else needs the whole image.
        self._voxel_by_voxel = all(isinstance(it, Window) for it in spec.intensities)

    def __call__(
        self, volume: Volume, grid: NetworkGrid, device: torch.device | str = "cpu"
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
        image = resample_linear(grid.crop(volume.array), grid.there, device)
        order = sorted(range(1, 4), key=image.stride, reverse=True)
        by_plane = image.permute(0, *order)
        try:
            made = self._normalised(by_plane)
        except (RuntimeError, ValueError) as error:
            # MONAI wraps whatever went wrong in a RuntimeError naming the transform.
            raise ScanError(
                f"{volume.source or 'scan'} of shape {volume.shape} cannot be normalised: "
                f"{error.__cause__ or error}"
            ) from error
        return made.permute(0, *(1 + order.index(axis) for axis in range(1, 4)))

    def _normalised(self, image: torch.Tensor) -> torch.Tensor:
        if not self._voxel_by_voxel:
            return self._chain(image)
        at_once = max(1, _AT_ONCE // math.prod(image.shape[2:]))
        for first in range(0, image.shape[1], at_once):
            planes = image[:, first : first + at_once]
            planes.copy_(self._chain(planes))
        return image

    def _chain(self, image: torch.Tensor) -> torch.Tensor:
        made: Mapping[str, Any] = self._normalise({IMAGE: image})
        return made[IMAGE].as_tensor()  # type: ignore[no-any-return]


def _build(step: Mapping[str, Any]) -> Any:
    arguments = {name: value for name, value in step.items() if name != "_target_"}
    return getattr(monai.transforms, step["_target_"])(**arguments)


def _turned(array: Array, turn: npt.NDArray[np.float64]) -> Array:
    last = np.moveaxis(array, range(-3, 0), range(3))
    return np.moveaxis(nib.orientations.apply_orientation(last, turn), range(3), range(-3, 0))


def _shift(voxels: list[int]) -> Affine:
    shift: Affine = np.eye(4)
    shift[:3, 3] = voxels
    return shift


def _box_above(array: Array, threshold: float, volume: Volume) -> Box:
    """Return the smallest box that holds every voxel above ``threshold`` in any channel."""
    found = [np.zeros(n, dtype=bool) for n in array.shape[1:]]
    order = sorted(range(3), key=lambda axis: -abs(array.strides[1 + axis]))
    outer, middle, inner = (found[axis] for axis in order)
    by_plane = array.transpose(0, *(1 + axis for axis in order))
    at_once = max(1, _AT_ONCE // math.prod(by_plane.shape[2:]))
    for channel in by_plane:
        for first in range(0, len(channel), at_once):
            here = slice(first, first + at_once)
            above = channel[here].astype(np.float32, copy=False) > threshold
            outer[here] |= above.any(axis=(1, 2))
            rows = above.any(axis=0)
            middle |= rows.any(axis=1)
            inner |= rows.any(axis=0)
    if not outer.any():
        raise ScanError(
            f"{volume.source or 'scan'}: no voxel is above {threshold:g}, and the bundle looks "
            "only at what is (preprocessing.crop_above); is the scan empty, or in another unit?"
        )
    ends = [(int(np.argmax(flags)), len(flags) - int(np.argmax(flags[::-1]))) for flags in found]
    return slice(*ends[0]), slice(*ends[1]), slice(*ends[2])
