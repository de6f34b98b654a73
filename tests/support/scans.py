"""Scans on odd grids and pictures in odd modes, made up for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

TURNED = [[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]


def affine_of(
    spacing: Sequence[float], turn: Any = None, flips: Sequence[int] = ()
) -> Any:
    """Return an affine of given spacing, turned and with some axes reversed."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else np.array(turn)) @ np.diag(
        spacing
    )
    for axis in flips:
        affine[:3, axis] *= -1
    affine[:3, 3] = [-31.5, 12.25, 40.0]
    return affine


def write_scan(
    file: Path, seed: int, shape: Sequence[int], affine: Any
) -> None:
    """Write blobs and noise in HU as NIfTI."""
    rng = np.random.default_rng(seed)
    grid = np.stack(
        np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    )
    inside = (grid**2).sum(axis=0) < rng.uniform(0.5, 0.9)
    voxels = np.where(inside, 60 + 80 * np.sin(4 * grid[0] + 3 * grid[1]), -900)
    voxels = voxels + rng.normal(0, 20, shape)
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.rint(voxels).astype(np.int16), affine), file)


def write_volumes(folder: Path, channels: int = 1) -> None:
    """Write scans on three kinds of grids: plain, oblique, and anisotropic with axes swapped."""
    swapped = affine_of((1.0, 1.0, 1.0))
    swapped[:3, :3] = [[0, 0, 4.0], [-1.3, 0, 0], [0, 1.1, 0]]
    grids = {
        "plain": ((20, 22, 18), affine_of((3.0, 3.0, 3.0))),
        "oblique": (
            (18, 21, 16),
            affine_of((2.5, 3.5, 4.0), TURNED, flips=(0, 1)),
        ),
        "swapped": ((30, 34, 9), swapped),
    }
    for number, (name, (shape, affine)) in enumerate(grids.items()):
        for channel in range(channels):
            ending = f"_{channel:04d}.nii.gz" if channels > 1 else ".nii.gz"
            write_scan(
                folder / f"{name}{ending}", 10 * number + channel, shape, affine
            )


def write_pictures(folder: Path) -> None:
    """Write one grey drawing in every way PNG files keep grey."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:37, 0:45]
    grey = (
        120 + 90 * np.sin(x / 6) * np.cos(y / 5) + rng.normal(0, 8, x.shape)
    ).clip(0, 255)
    picture = Image.fromarray(grey.astype(np.uint8))
    picture.save(folder / "grey.png")
    picture.convert("RGB").save(folder / "as_colour.png")
    picture.convert("RGBA").save(folder / "opaque.png")
    picture.convert("LA").save(folder / "grey_alpha.png")
    picture.convert("P").save(folder / "palette.png")
    Image.fromarray((grey * 250).astype(np.uint16)).save(folder / "deep.png")
