"""Brings scans and their label maps onto the network's grid, for training."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor

from medseg._support.memory import is_out_of_memory
from medseg.bundle.spec import BundleSpec
from medseg.errors import ScanError
from medseg.preprocessing.departures import find_departures
from medseg.preprocessing.foreground import build_empty_scan_error
from medseg.preprocessing.grid import compute_network_grid, crop_input
from medseg.preprocessing.network_input import NetworkInput
from medseg.preprocessing.resampling import resample_nearest
from medseg.preprocessing.transforms import (
    IMAGE,
    LABEL,
    build_chain,
    choose_selection,
    preprocessing_steps,
    turning_steps,
)
from medseg.volume import Affine, Array, Volume

Example = dict[str, MetaTensor]


class Preprocessing:
    """The bundle's preprocessing as something to call.

    Args:
        spec: The bundle.
        with_label: Whether a label map travels along.

    Attributes:
        chain: The MONAI transforms. Where they are not exactly the bundle's, or know nothing of
            padding or of the affine of turned axes, what is done to scans that are segmented is
            done instead.
    """

    def __init__(self, spec: BundleSpec, with_label: bool = False) -> None:
        keys = (IMAGE, LABEL) if with_label else (IMAGE,)
        steps = preprocessing_steps(spec, keys)
        self.chain = build_chain(steps)
        self._prep = spec.preprocessing
        is_turned = bool(turning_steps(self._prep, keys))
        looks_late = self._prep.crop_on == "input"
        is_other = is_turned or looks_late or bool(find_departures(spec))
        self._is_stock = not is_other
        self._make_input = NetworkInput(spec)
        crops = choose_selection(self._prep) is not None
        self._looks_at_padding = crops or self._make_input.takes_statistics

    def __call__(self, volume: Volume, label: Array | None = None) -> Example:
        """Bring a scan (and its label map) onto the network's grid.

        Args:
            volume: The scan, ``(channels, i, j, k)``.
            label: Label indices on the scan's grid, ``(i, j, k)``.

        Returns:
            ``image`` float32 ``(channels, x, y, z)`` and, if given, ``label`` ``(1, x, y, z)``.

        Raises:
            ScanError: If the scan cannot be brought onto the grid, or has no voxel that the bundle
                looks at.
        """
        is_stock = self._is_stock
        if volume.padding:
            # MONAI would take statistics of it, and for a part of the body.
            is_stock = is_stock and not self._looks_at_padding
        try:
            if is_stock:
                return self._run_chain(volume, label)
            return self._place(volume, label)
        except (MemoryError, RuntimeError, ValueError) as error:
            raise _explain(error, volume) from error

    def _run_chain(self, volume: Volume, label: Array | None) -> Example:
        self._refuse_empty(volume)
        data = {IMAGE: _copy(volume.array, volume.affine)}
        if label is not None:
            data[LABEL] = _copy(label[None], volume.affine)
        return self.chain(data)  # type: ignore[no-any-return]

    def _refuse_empty(self, volume: Volume) -> None:
        select = choose_selection(self._prep)
        if select is None:
            return
        if not any(select(channel).any() for channel in volume.array):
            raise build_empty_scan_error(self._prep, volume)

    def _place(self, volume: Volume, label: Array | None) -> Example:
        """Do what is done to scans that are segmented; labels are those of the nearest voxels."""
        grid = compute_network_grid(volume, self._prep)
        image = self._make_input(volume, grid)
        image, grid = crop_input(image, grid, self._prep, volume)
        image = image.contiguous()
        affine = torch.from_numpy(grid.affine)
        data = {IMAGE: MetaTensor(image, affine=affine)}
        if label is not None:
            in_box = grid.crop(label[None])[0]
            placed = resample_nearest(in_box, grid.scan_to_network)
            data[LABEL] = _copy(placed[None], grid.affine)
        return data


def _explain(error: Exception, volume: Volume) -> ScanError:
    """Return what is wrong with a scan that cannot be brought onto the network's grid."""
    spacing = tuple(round(mm, 3) for mm in volume.spacing)
    scan = f"a scan of shape {volume.shape} and spacing {spacing} mm"
    # MONAI wraps whatever went wrong in a RuntimeError naming the transform.
    cause = error.__cause__ or error
    if is_out_of_memory(cause):
        return ScanError(
            f"{scan} does not fit the memory on the network's grid; check its voxel size, crop "
            "it, or make preprocessing.spacing_mm coarser",
            source=volume.source or None,
        )
    return ScanError(
        f"{scan} cannot be preprocessed",
        source=volume.source or None,
        detail=str(cause),
    )


def _copy(array: Array, affine: Affine) -> MetaTensor:
    # A copy, because some of MONAI's transforms change their input in place.
    tensor = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    return MetaTensor(tensor, affine=torch.as_tensor(np.array(affine)))
