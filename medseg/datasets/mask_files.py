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
        return repr([(name, self.values[name]) for _, name in self.files])

    def read_label_map(self, image: Volume) -> Volume:
        """Read them as one label map on the image's grid.

        Returns:
            Unsigned integers, shape ``(1, i, j, k)``.

        Raises:
            ScanError: If a file cannot be read or is no mask, or two masks overlap.
            GeometryError: If a mask does not lie on the image.
        """
        highest = max(self.values.values(), default=0)
        labels = np.zeros(image.shape, np.min_scalar_type(highest), order="F")
        warnings: list[str] = []
        for file, name in self.files:
            mask = read_labels(file)
            inside = _check_mask(mask, image)
            self._refuse_overlap(labels[inside], name)
            labels[inside] = self.values[name]
            warnings += mask.warnings
        return Volume(labels[None], image.affine, self.files[0][0].name, tuple(warnings))

    def _refuse_overlap(self, covered: npt.NDArray[np.unsignedinteger], name: str) -> None:
        """Refuse a mask where ``covered``, the label map so far inside it, is not empty."""
        taken = covered[covered > 0]
        if not taken.size:
            return
        other = next(each for _, each in self.files if self.values[each] == taken[0])
        raise ScanError(
            f"two masks overlap in {taken.size} voxels, and a label map holds one label per voxel; "
            "correct one of the two files, or name only one of the two labels in the bundle",
            detail=f"the masks of '{other}' and '{name}'",
        )


def _check_mask(mask: Volume, image: Volume) -> npt.NDArray[np.bool_]:
    """Return where a mask is, shape ``(i, j, k)``.

    Raises:
        ScanError: If it is no mask.
        GeometryError: If it does not lie on the image.
    """
    image.require_same_grid(mask, "the image and a mask")
    count = np.count_nonzero(np.unique(mask.array))
    if len(mask.array) > 1 or count > 1:
        raise ScanError(
            f"is called a mask and holds {count} values besides 0; a mask holds one, and a label "
            "map is called _dseg",
            source=mask.source,
        )
    inside: npt.NDArray[np.bool_] = mask.array[0] > 0
    return inside
