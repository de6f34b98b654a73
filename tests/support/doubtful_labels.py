"""Label files that their reader can only read with a warning."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from medseg.testing import write_dataset

WARNING = "label: sform and qform differ by up to 30 mm; the sform is used"


def move_qform(file: Path, distance: float = 30.0) -> None:
    """Let the qform of a NIfTI file lie elsewhere than its sform."""
    image = nib.load(file)
    array, affine = np.asarray(image.dataobj), np.array(image.affine)
    moved = nib.Nifti1Image(array, affine)
    moved.set_sform(affine, 1)
    affine[0, 3] += distance
    moved.set_qform(affine, 1)
    nib.save(moved, file)


def write_doubtful_dataset(root: Path, cases: int = 2) -> Path:
    """Write phantoms; qform and sform of the first one's label differ by 30 mm."""
    data = write_dataset(root, cases, shape=(24, 20, 16), spacing=9.0)
    move_qform(data / "labelsTr" / "phantom_000.nii.gz")
    return data
