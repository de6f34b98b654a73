"""Made-up label maps of a liver and a tumour."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from medseg.labels import Label, LabelSet, default_colour

AFFINE = np.array(
    [[-1.0, 0, 0, 9], [0, 2.0, 0, -4], [0, 0, 2.5, 3], [0, 0, 0, 1]]
)


TWO = LabelSet(
    [
        Label(1, "liver", 1, default_colour(1)),
        Label(2, "tumour", 2, default_colour(2)),
    ]
)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def phantom(shift: int = 0, tumour: bool = True) -> np.ndarray:
    array = np.zeros((16, 14, 12), np.uint8)
    array[3:11, 3 + shift : 10 + shift, 2:9] = 1
    if tumour:
        array[5:8, 5:8, 4:7] = 2
    return array


def in_other_order(
    image: nibabel.Nifti1Image, axes: tuple[int, ...], ends: tuple[int, ...]
) -> nibabel.Nifti1Image:
    """Return an image as nibabel stores it along other axes and from other ends.

    Args:
        image: The image.
        axes: Which axis each of its axes becomes.
        ends: 1, or -1 to begin an axis at its other end.
    """
    return image.as_reoriented(np.array(list(zip(axes, ends, strict=True))))
