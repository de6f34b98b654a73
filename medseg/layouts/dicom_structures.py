"""Labels that are structures in DICOM objects: which files hold a case's, and what each becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.dicom_labels.structures import read_structures
from medseg.errors import ScanError
from medseg.layouts.mask_files import LabelArray, make_empty_labels
from medseg.volume import Volume

StructureFile = tuple[Path, tuple[str, ...]]
"""A SEG or RTSTRUCT file, and the names of the structures to take from it."""


@dataclass(frozen=True, slots=True)
class DicomStructures:
    """The labels of one scan.

    Attributes:
        files: SEG and RTSTRUCT files, each with the names of the structures to take from it.
        values: Name → value in the label map.
    """

    files: tuple[StructureFile, ...]
    values: Mapping[str, int]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file."""
        return tuple(file for file, _ in self.files)

    @property
    def key(self) -> str:
        """Text that differs where the label map would, with the same files' content."""
        values: list[tuple[str, int]] = []
        for _, names in self.files:
            values.extend((name, self.values[name]) for name in names)
        return repr(sorted(values))

    def read_label_map(self, image: Volume) -> Volume:
        """Read them as one label map on the scan's grid.

        Returns:
            Unsigned integers, shape ``(1, i, j, k)``.

        Raises:
            ScanError: If a file cannot be read, or two structures overlap.
            GeometryError: If a file does not lie on the scan.
        """
        labels = make_empty_labels(image, self.values)
        warnings: list[str] = []
        for file, names in self.files:
            structures = read_structures(file, image, names)
            added = self._values_of(structures.array[0], names, labels.dtype)
            _refuse_overlap(labels, added, file)
            labels = np.maximum(labels, added)
            warnings += structures.warnings
        first_file, _ = self.files[0]
        return Volume(
            labels[None], image.affine, first_file.name, tuple(warnings)
        )

    def _values_of(
        self,
        numbers: LabelArray,
        names: Sequence[str],
        dtype: np.dtype[np.unsignedinteger],
    ) -> LabelArray:
        """Turn the numbers 1, 2, … of structures in one file into the label map's values."""
        values = [self.values[name] for name in names]
        table = np.array([0, *values], dtype)
        found: LabelArray = table[numbers]
        return found


def _refuse_overlap(labels: LabelArray, added: LabelArray, file: Path) -> None:
    in_both = (labels > 0) & (added > 0)
    count = np.count_nonzero(in_both)
    if count:
        raise ScanError(
            f"its structures overlap those of the case's other files in {count} voxels, and a "
            "label map holds one label per voxel; keep one file, or name fewer labels in the "
            "bundle",
            source=file,
        )
