"""Labels that are structures in DICOM objects: which files hold a case's, and what each becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medseg.errors import ScanError
from medseg.io.dicom.structures import read_structures
from medseg.volume import Volume


@dataclass(frozen=True, slots=True)
class DicomStructures:
    """The labels of one scan.

    Attributes:
        files: SEG and RTSTRUCT files, each with the names of the structures to take from it.
        values: Name → value in the label map.
    """

    files: tuple[tuple[Path, tuple[str, ...]], ...]
    values: Mapping[str, int]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file."""
        return tuple(file for file, _ in self.files)

    @property
    def key(self) -> str:
        """Text that differs where the label map would, with the same files' content."""
        names = [name for _, names in self.files for name in names]
        return repr(sorted((name, self.values[name]) for name in names))

    def read_label_map(self, image: Volume) -> Volume:
        """Read them as one label map on the scan's grid.

        Returns:
            Unsigned integers, shape ``(1, i, j, k)``.

        Raises:
            ScanError: If a file cannot be read, or two structures overlap.
            GeometryError: If a file does not lie on the scan.
        """
        highest = max(self.values.values(), default=0)
        labels = np.zeros(image.shape, np.min_scalar_type(highest), order="F")
        warnings: list[str] = []
        for file, names in self.files:
            structures = read_structures(file, image, names)
            added = self._values_of(structures.array[0], names, labels.dtype)
            _refuse_overlap(labels, added, file)
            labels = np.maximum(labels, added)
            warnings += structures.warnings
        return Volume(labels[None], image.affine, self.files[0][0].name, tuple(warnings))

    def _values_of(
        self,
        numbers: npt.NDArray[np.unsignedinteger],
        names: Sequence[str],
        dtype: np.dtype[np.unsignedinteger],
    ) -> npt.NDArray[np.unsignedinteger]:
        """Turn the numbers 1, 2, … of structures in one file into the label map's values."""
        table = np.array([0, *(self.values[name] for name in names)], dtype)
        values: npt.NDArray[np.unsignedinteger] = table[numbers]
        return values


def _refuse_overlap(
    labels: npt.NDArray[np.unsignedinteger], added: npt.NDArray[np.unsignedinteger], file: Path
) -> None:
    count = np.count_nonzero((labels > 0) & (added > 0))
    if count:
        raise ScanError(
            f"its structures overlap those of the case's other files in {count} voxels, and a "
            "label map holds one label per voxel; keep one file, or name fewer labels in the "
            "bundle",
            source=file,
        )
