"""Makes what a network sees of a scan, without copies of the scan."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from medseg._support.memory import is_out_of_memory
from medseg.bundle.spec import BundleSpec
from medseg.errors import ScanError
from medseg.preprocessing.cubic import resample_cubic
from medseg.preprocessing.extent import ExtentMap
from medseg.preprocessing.grid import NetworkGrid
from medseg.preprocessing.grid_map import GridMap
from medseg.preprocessing.normalisation import Normalisation
from medseg.preprocessing.resampling import resample_linear
from medseg.volume import Array, Volume

_AT_ONCE = 1 << 22
"""Voxels normalised at a time."""


class Resampled(NamedTuple):
    """A scan on a network's grid.

    Attributes:
        image: float32 ``(channels, *grid.shape)``, with any strides.
        padding: The share of padding in each voxel, where it is left out of statistics.
    """

    image: torch.Tensor
    padding: torch.Tensor | None = None


class NetworkInput:
    """Makes what the network sees of a scan.

    Args:
        spec: The bundle.

    Attributes:
        takes_statistics: Whether what a voxel becomes depends on others.
    """

    def __init__(self, spec: BundleSpec) -> None:
        self._normalise = Normalisation(spec)
        self.takes_statistics = self._normalise.takes_statistics
        prep = spec.preprocessing
        self._normalises_first = prep.normalise == "before_resampling"
        self._is_cubic = prep.resampling.interpolation == "cubic"

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
        return self.normalise(volume, self.resample(volume, grid, device))

    def resample(
        self,
        volume: Volume,
        grid: NetworkGrid,
        device: torch.device | str = "cpu",
    ) -> Resampled:
        """Bring a scan onto the network's grid, normalised only if that comes first.

        Raises:
            ScanError: If the intensities cannot be normalised.
        """
        box = grid.crop(volume.array)
        padding = None
        if volume.padding and self.takes_statistics:
            padding = grid.crop(volume.padding.get_mask())
        grid_map = grid.scan_to_network
        if self._normalises_first:
            with _explain(volume):
                box = self._normalise_copy(box, padding).numpy()
            return Resampled(self._resample(box, grid_map, device))
        image = self._resample(box, grid_map, device)
        share = None
        if padding is not None:
            share = resample_linear(padding, grid_map, device)
        return Resampled(image, share)

    def normalise(self, volume: Volume, resampled: Resampled) -> torch.Tensor:
        """Normalise what ``resample`` made, in place.

        Raises:
            ScanError: If the intensities cannot be normalised.
        """
        if self._normalises_first:
            return resampled.image
        with _explain(volume):
            return self._normalise_in_memory_order(
                resampled.image, resampled.padding
            )

    def _resample(
        self, array: Array, grid_map: GridMap, device: torch.device | str
    ) -> torch.Tensor:
        if grid_map.is_identity or not self._is_cubic:
            return resample_linear(array, grid_map, device)
        if not isinstance(grid_map, ExtentMap):
            raise TypeError("cubic interpolation is that of one extent")
        return resample_cubic(array, grid_map, device)

    def _normalise_copy(
        self, box: Array, padding: Array | None
    ) -> torch.Tensor:
        """Return the box of a scan, normalised; its memory runs as the scan's."""
        image = torch.from_numpy(np.array(box, np.float32, order="K"))
        share = None
        if padding is not None:
            share = torch.from_numpy(padding.astype(np.float32))
        return self._normalise_in_memory_order(image, share)

    def _normalise_in_memory_order(
        self, image: torch.Tensor, share: torch.Tensor | None
    ) -> torch.Tensor:
        if share is not None:
            return self._normalise(image, share)
        # The slowest axis in memory first: then planes are taken that lie together.
        order = sorted((1, 2, 3), key=image.stride, reverse=True)
        normalised = self._normalise_in_place(image.permute(0, *order))
        back = [1 + order.index(axis) for axis in (1, 2, 3)]
        return normalised.permute(0, *back)

    def _normalise_in_place(self, image: torch.Tensor) -> torch.Tensor:
        if self.takes_statistics:
            return self._normalise(image)
        voxels_per_plane = math.prod(image.shape[2:])
        planes_at_once = max(1, _AT_ONCE // voxels_per_plane)
        for first in range(0, image.shape[1], planes_at_once):
            planes = image[:, first : first + planes_at_once]
            planes.copy_(self._normalise(planes))
        return image


@contextlib.contextmanager
def _explain(volume: Volume) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        # MONAI wraps whatever went wrong in a RuntimeError naming the transform.
        cause = error.__cause__ or error
        if is_out_of_memory(cause):
            raise
        raise ScanError(
            f"a scan of shape {volume.shape} cannot be normalised",
            source=volume.source or None,
            detail=str(cause),
        ) from error
