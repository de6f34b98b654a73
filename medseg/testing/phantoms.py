"""Phantoms that look a little like a CT of the trunk, and data sets of them.

Nothing here is measured from a patient. The same seed gives the same phantom everywhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medseg._support.files import write_atomically
from medseg.volume import Affine, Array, Volume

LIVER, KIDNEY = 1, 2
"""Label indices of the phantom's organs."""

Point = tuple[float, float, float]


class _Organ(NamedTuple):
    """A labelled organ: one ellipsoid or several (centre, radii), in coordinates from -1 to 1."""

    label: int
    hu: float
    ellipsoids: tuple[tuple[Point, Point], ...]


_LIVER = _Organ(LIVER, 105, (((0.35, 0.15, 0.35), (0.33, 0.4, 0.45)),))
_KIDNEYS = _Organ(
    KIDNEY,
    175,
    (
        ((0.4, -0.28, -0.35), (0.19, 0.2, 0.38)),
        ((-0.4, -0.28, -0.25), (0.19, 0.2, 0.38)),
    ),
)
_AIR_HU, _FAT_HU, _MUSCLE_HU, _BONE_HU, _BOWEL_HU = -1000.0, -90, 45, 350, 5
_NOISE_HU = 25


def make_phantom(
    seed: int, shape: tuple[int, int, int] = (56, 48, 40), spacing: float = 4.0
) -> tuple[Volume, Array]:
    """Make one phantom: a body with a large organ, a pair of small ones, a spine and a bowel.

    Args:
        seed: Decides sizes, positions, intensities and noise.
        shape: Voxels along right, anterior and superior.
        spacing: Voxel size in mm.

    Returns:
        The image, ``(1, i, j, k)`` float32 in HU, and its labels ``(i, j, k)`` uint8: 1 liver,
        2 kidney.

    Examples:
        >>> volume, labels = make_phantom(0, shape=(28, 24, 20), spacing=8.0)
        >>> volume.shape, labels.max().item() == KIDNEY
        ((28, 24, 20), True)
    """
    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, n) for n in shape]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    image = np.full(shape, _AIR_HU)
    labels = np.zeros(shape, np.uint8)
    # The order is that of the random numbers drawn: another one would be another phantom.
    image[_ellipsoid(grid, (0, 0, 0), (0.85, 0.8, 3.0), rng, 0.03)] = _FAT_HU
    image[_ellipsoid(grid, (0, 0, 0), (0.76, 0.7, 3.0), rng, 0.03)] = _MUSCLE_HU
    image[_ellipsoid(grid, (0, -0.5, 0), (0.12, 0.14, 3.0), rng, 0.02)] = (
        _BONE_HU
    )
    image[_ellipsoid(grid, (0, 0.35, -0.4), (0.4, 0.2, 0.45), rng, 0.08)] = (
        _BOWEL_HU
    )
    for organ in (_LIVER, _KIDNEYS):
        for centre, radii in organ.ellipsoids:
            inside = _ellipsoid(grid, centre, radii, rng, 0.06)
            image[inside] = organ.hu + rng.normal(0, 10)
            labels[inside] = organ.label
    image += rng.normal(0, _NOISE_HU, shape)
    affine: Affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -0.5 * spacing * np.array(shape)
    volume = Volume(
        image[None].astype(np.float32), affine, source=f"phantom {seed}"
    )
    return volume, labels


def _ellipsoid(
    grid: npt.NDArray[np.float64],
    centre: Point,
    radii: Point,
    rng: np.random.Generator,
    wobble: float,
) -> npt.NDArray[np.bool_]:
    """Return which voxels lie in an ellipsoid whose centre and radii vary at random."""
    moved = np.array(centre) + rng.normal(0, wobble, 3)
    scaled = np.array(radii) * (1 + rng.normal(0, wobble, 3))
    distance = ((grid - moved) / scaled) ** 2
    inside: npt.NDArray[np.bool_] = distance.sum(axis=-1) < 1
    return inside


def write_dataset(
    root: Path,
    cases: int,
    seed: int = 0,
    *,
    shape: tuple[int, int, int] = (56, 48, 40),
    spacing: float = 4.0,
) -> Path:
    """Write phantoms as a data set in the layout of the Medical Segmentation Decathlon.

    Args:
        root: The folder to write; made if needed.
        cases: How many.
        seed: Of the first phantom; the others follow.
        shape: Voxels of each.
        spacing: Voxel size in mm.

    Returns:
        ``root``, with ``imagesTr``, ``labelsTr`` and ``dataset.json``.
    """
    images, label_maps = root / "imagesTr", root / "labelsTr"
    images.mkdir(parents=True, exist_ok=True)
    label_maps.mkdir(parents=True, exist_ok=True)
    training = []
    for number in range(cases):
        volume, labels = make_phantom(seed + number, shape, spacing)
        affine = np.array(volume.affine)
        name = f"phantom_{number:03d}.nii.gz"
        image = np.rint(volume.array[0]).astype(np.int16)
        nib.save(nib.Nifti1Image(image, affine), images / name)
        nib.save(nib.Nifti1Image(labels, affine), label_maps / name)
        training.append(
            {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"}
        )
    description = {
        "name": "phantom",
        "made_up": True,
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "kidney"},
        "training": training,
    }
    text = json.dumps(description, indent=1)
    write_atomically(root / "dataset.json", text + "\n")
    return root
