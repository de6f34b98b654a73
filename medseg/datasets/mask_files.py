"""Labels that are masks, each in a file of its own: joined on the grid of their image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medseg.errors import ScanError
from medseg.io import read_labels
from medseg.volume import Volume

LabelArray = npt.NDArray[np.unsignedinteger]
"""A label map, shape ``(i, j, k)``; 0 is background."""


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """The labels of one image.

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

    @property
    def key(self) -> str:
        """Text that differs where the label map would, with the same files' content in order."""
        values = [(name, self.values[name]) for _, name in self.files]
        return repr(values)

    def read_label_map(self, image: Volume) -> Volume:
        """Read them as one label map on the image's grid.

        Returns:
            Unsigned integers, shape ``(1, i, j, k)``.

        Raises:
            ScanError: If a file cannot be read or is no mask, or two masks overlap.
            GeometryError: If a mask does not lie on the image.
        """
        labels = make_empty_labels(image, self.values)
        warnings: list[str] = []
        for file, name in self.files:
            stored = read_labels(file)
            mask = image.reorder_to_grid(stored, "the image and a mask")
            inside = _find_inside(mask)
            self._refuse_overlap(labels[inside], name)
            labels[inside] = self.values[name]
            warnings += mask.warnings
        first_file, _ = self.files[0]
        return Volume(
            labels[None], image.affine, first_file.name, tuple(warnings)
        )

    def _refuse_overlap(self, covered: LabelArray, name: str) -> None:
        """Refuse a mask where ``covered``, the label map so far inside it, is not empty."""
        taken = covered[covered > 0]
        if not taken.size:
            return
        names = {self.values[name]: name for _, name in self.files}
        other = names[int(taken[0])]
        raise ScanError(
            f"two masks overlap in {taken.size} voxels, and a label map holds one label per voxel; "
            "correct one of the two files, or name only one of the two labels in the bundle",
            detail=f"the masks of '{other}' and '{name}'",
        )


def _find_inside(mask: Volume) -> npt.NDArray[np.bool_]:
    """Return where a mask is, shape ``(i, j, k)``.

    Raises:
        ScanError: If it is no mask.
    """
    values = np.unique(mask.array)
    count = np.count_nonzero(values)
    if len(mask.array) > 1 or count > 1:
        raise ScanError(
            f"is called a mask and holds {count} values besides 0; a mask holds one, and a label "
            "map is called _dseg",
            source=mask.source,
        )
    inside: npt.NDArray[np.bool_] = mask.array[0] > 0
    return inside


def make_empty_labels(image: Volume, values: Mapping[str, int]) -> LabelArray:
    """Return a label map of background on the image's grid, in a type that holds the values.

    Args:
        image: The image.
        values: Name → value in the label map.
    """
    highest = max(values.values(), default=0)
    dtype = np.min_scalar_type(highest)
    return np.zeros(image.shape, dtype, order="F")
