"""What several networks see of one scan: what they have in common is made once."""

from __future__ import annotations

import torch

from medseg.bundle.spec import BundleSpec, PreprocessingSpec
from medseg.preprocessing.grid import NetworkGrid, compute_network_grid
from medseg.preprocessing.network_input import NetworkInput, Resampled
from medseg.volume import Volume

_UNUSED = {"intensity", "padding", "normalise"}
"""Fields of preprocessing that say nothing of where a network looks."""


class SharedInput:
    """Makes what networks see of one scan.

    Networks with one grid share it, with one way of resampling the resampled scan, and with the
    same preprocessing the image itself. One of each is kept: ask for those that are alike in turn.

    Args:
        volume: The scan.
    """

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._grid: tuple[object, NetworkGrid] | None = None
        self._resampled: tuple[object, Resampled] | None = None
        self._image: tuple[object, torch.Tensor] | None = None

    def forget(self) -> None:
        """Forget the images made so far: a device has too little memory for them."""
        self._resampled = None
        self._image = None

    def find_grid(self, prep: PreprocessingSpec) -> NetworkGrid:
        """Return the grid on which a network sees the scan.

        Raises:
            ScanError: As ``compute_network_grid``.
            GeometryError: As ``compute_network_grid``.
        """
        key = prep.model_dump(exclude=_UNUSED)
        if self._grid is None or self._grid[0] != key:
            self._grid = key, compute_network_grid(self._volume, prep)
        return self._grid[1]

    def make(
        self, spec: BundleSpec, make_input: NetworkInput, device: torch.device
    ) -> torch.Tensor:
        """Return what a network sees, float32 ``(channels, *grid.shape)``; not to be changed.

        Args:
            spec: Its bundle.
            make_input: Of this bundle.
            device: Where the result shall lie.

        Raises:
            ScanError: If the intensities cannot be normalised.
        """
        key = spec.preprocessing, device
        if self._image is None or self._image[0] != key:
            self._image = None  # its memory is needed for the next one
            resampled = self._resample(spec, make_input, device)
            image = make_input.normalise(self._volume, resampled)
            self._image = key, image
        return self._image[1]

    def _resample(
        self, spec: BundleSpec, make_input: NetworkInput, device: torch.device
    ) -> Resampled:
        prep = spec.preprocessing
        grid = self.find_grid(prep)
        if prep.normalise == "before_resampling":
            return make_input.resample(self._volume, grid, device)
        geometry = prep.model_dump(exclude=_UNUSED)
        key = geometry, device, make_input.takes_statistics
        if self._resampled is None or self._resampled[0] != key:
            self._resampled = None
            made = make_input.resample(self._volume, grid, device)
            self._resampled = key, made
        kept = self._resampled[1]
        # A copy, because it is normalised in place.
        return kept._replace(image=kept.image.clone())
