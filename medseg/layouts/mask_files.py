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
        smaller_wins: Whether a voxel that several masks claim is of the one with the fewest
            voxels, so that a structure inside another stays; else such masks are refused. Of
            masks of one size, the first by name has it.
    """

    files: tuple[tuple[Path, str], ...]
    values: Mapping[str, int]
    smaller_wins: bool = False

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
        """Read them as one label map on the image's grid; one mask at a time is in memory.

        Returns:
            Unsigned integers, shape ``(1, i, j, k)``.

        Raises:
            ScanError: If a file cannot be read or is no mask, or two masks overlap and must not.
            GeometryError: If a mask does not lie on the image.
        """
        labels = make_empty_labels(image, self.values)
        sizes: dict[int, int] = {}
        overlaps = False
        warnings: list[str] = []
        for file, name in self.files:
            stored = read_labels(file)
            mask = image.reorder_to_grid(stored, "the image and a mask")
            inside = _find_inside(mask)
            if self.smaller_wins:
                value = self.values[name]
                overlaps |= _paint(labels, inside, value, sizes)
            else:
                self._refuse_overlap(labels[inside], name)
                labels[inside] = self.values[name]
            warnings += mask.warnings
        if overlaps:
            warnings.append(
                "masks of structures overlap; each voxel that several claim is of the structure "
                "with the fewest voxels"
            )
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


def _paint(
    labels: LabelArray,
    inside: npt.NDArray[np.bool_],
    value: int,
    sizes: dict[int, int],
) -> bool:
    """Paint a mask where no smaller one lies; tell whether others claim voxels of it, too.

    Args:
        labels: The label map so far, changed in place.
        inside: Where the mask is.
        value: Its value in the label map.
        sizes: Voxels of each mask so far, by value; takes this one's.
    """
    size = int(np.count_nonzero(inside))
    sizes[value] = size
    claimed = labels[inside]
    larger = [other for other, voxels in sizes.items() if voxels > size]
    is_free = np.isin(claimed, [0, *larger])
    overlaps = bool(claimed.any())
    claimed[is_free] = value
    labels[inside] = claimed
    return overlaps


def _find_inside(mask: Volume) -> npt.NDArray[np.bool_]:
    """Return where a mask is, shape ``(i, j, k)``.

    Raises:
        ScanError: If it is no mask.
    """
    values = np.unique(mask.array)
    count = np.count_nonzero(values)
    if len(mask.array) > 1 or count > 1:
        raise ScanError(
            f"is a mask by its name and holds {count} values besides 0; a mask holds one. In BIDS "
            "a label map is called _dseg",
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
