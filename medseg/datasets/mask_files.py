"""Labels that are masks, each in a file of its own: joined on the grid of their image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError, ScanError
from medseg.io import read_labels
from medseg.volume import Volume


@dataclass(frozen=True, slots=True)
class Masks:
    """The labels of one scan.

    Attributes:
        files: Each label's mask with its name, sorted by name.
        values: Name → value in the label map.
    """

    files: tuple[tuple[Path, str], ...]
    values: Mapping[str, int]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file."""
        return tuple(file for file, _ in self.files)

    def on(self, scan: Volume) -> Volume:
        """Read them as one label map on the scan's grid.

        Returns:
            Unsigned integers, shape ``(1, i, j, k)``.

        Raises:
            ScanError: If a file cannot be read or is no mask, or two masks overlap.
            GeometryError: If a mask does not lie on the scan.
        """
        most = max(self.values.values(), default=0)
        labels = np.zeros(scan.shape, np.min_scalar_type(most), order="F")
        warnings: list[str] = []
        for file, name in self.files:
            mask = read_labels(file)
            inside = _inside(mask, scan)
            self._refuse_overlap(labels[inside], name)
            labels[inside] = self.values[name]
            warnings += mask.warnings
        return Volume(labels[None], scan.affine, self.files[0][0].name, tuple(warnings))

    def _refuse_overlap(self, there: npt.NDArray[np.unsignedinteger], name: str) -> None:
        taken = there[there > 0]
        if not taken.size:
            return
        other = next(each for _, each in self.files if self.values[each] == taken[0])
        raise ScanError(
            f"the masks of '{other}' and '{name}' overlap in {taken.size} voxels, and a label map "
            "holds one label per voxel; correct one of the two files, or name only one of the two "
            "labels in the bundle"
        )

    @property
    def key(self) -> str:
        """Text that differs where the label map would, with the same files' content in order."""
        return repr([(name, self.values[name]) for _, name in self.files])


def _inside(mask: Volume, scan: Volume) -> npt.NDArray[np.bool_]:
    if mask.shape != scan.shape:
        raise GeometryError(
            f"the mask {mask.source} has {_times(mask.shape)} voxels and the image "
            f"{_times(scan.shape)}; they must lie on one grid"
        )
    if not scan.on_same_grid(mask):
        raise GeometryError(
            f"the mask {mask.source} lies up to {scan.grid_distance(mask):.3g} mm away from the "
            "image, though they have as many voxels; they must lie on one grid"
        )
    values = np.unique(mask.array)
    if len(mask.array) > 1 or np.count_nonzero(values) > 1:
        raise ScanError(
            f"{mask.source}: is called a mask and holds {np.count_nonzero(values)} values besides "
            "0; a mask holds one, and a label map is called _dseg"
        )
    inside: npt.NDArray[np.bool_] = mask.array[0] > 0
    return inside


def _times(shape: tuple[int, int, int]) -> str:
    return "×".join(str(size) for size in shape)
