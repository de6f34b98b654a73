"""Labels that are structures in DICOM objects: which files hold a case's, and what each becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.errors import ScanError
from medseg.io.dicom.structures import read_structures
from medseg.volume import Volume


@dataclass(frozen=True, slots=True)
class Structures:
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

    def on(self, scan: Volume) -> Volume:
        """Read them as one label map on the scan's grid.

        Returns:
            Unsigned integers, shape ``(1, i, j, k)``.

        Raises:
            ScanError: If a file cannot be read, or two structures overlap.
            GeometryError: If a file does not lie on the scan.
        """
        most = max(self.values.values(), default=0)
        labels = np.zeros(scan.shape, np.min_scalar_type(most), order="F")
        warnings: list[str] = []
        for file, names in self.files:
            read = read_structures(file, scan, names)
            table = np.array([0, *(self.values[name] for name in names)], labels.dtype)
            found = table[read.array[0]]
            both = (labels > 0) & (found > 0)
            if both.any():
                raise ScanError(
                    f"{file.name}: its structures overlap those of the case's other files in "
                    f"{np.count_nonzero(both)} voxels, and a label map holds one label per voxel; "
                    "keep one file, or name fewer labels in the bundle"
                )
            labels = np.maximum(labels, found)
            warnings += read.warnings
        return Volume(labels[None], scan.affine, self.files[0][0].name, tuple(warnings))

    @property
    def key(self) -> str:
        """Text that differs where the label map would, with the same files' content."""
        return repr(sorted((name, self.values[name]) for _, names in self.files for name in names))
