"""Reading what was drawn, and volumes whose orientation can be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    ornt_transform,
)
from PIL import Image

NASTY_NAMES = [
    "$x_{$", "a$b$c", "\\frac{1}", "_hidden", "肝臓", "line\nbreak", "x" * 500, "", "%s {}",
]  # fmt: skip


def read_pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def find_colour(path: Path, colour: tuple[int, int, int]) -> np.ndarray:
    """Return rows and columns of the pixels of this very colour (lines, legend)."""
    return np.argwhere((read_pixels(path) == colour).all(-1))


def marked_volume(codes: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume with a corner at right, anterior, superior, stored in any orientation."""
    array = np.zeros((8, 10, 12), np.uint8)
    array[5:, 6:, 7:] = 1
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    return apply_orientation(array, turn), affine @ inv_ornt_aff(
        turn, array.shape
    )
