"""Made-up data for demos and tests: phantoms that look a little like a CT of the trunk.

Nothing here is measured from a patient. The same seed gives the same phantom everywhere.
"""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medseg.volume import Affine, Array, Volume

LIVER, KIDNEY = 1, 2
"""Label indices of the phantom's organs."""


def make_phantom(
    seed: int, shape: tuple[int, int, int] = (56, 48, 40), spacing: float = 4.0
) -> tuple[Volume, Array]:
    """Make one phantom: a body with a large organ, a pair of small ones, a spine and a bowel.

    Args:
        seed: Decides size, place, intensities and noise.
        shape: Voxels along right, anterior and superior.
        spacing: Voxel size in mm.

    Returns:
        The image, ``(1, i, j, k)`` float32 in HU, and its labels ``(i, j, k)`` uint8: 1 liver,
        2 kidney.
    """
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"), axis=-1)
    image = np.full(shape, -1000.0)
    labels = np.zeros(shape, np.uint8)
    image[_ellipsoid(grid, (0, 0, 0), (0.85, 0.8, 3.0), rng, 0.03)] = -90  # fat
    image[_ellipsoid(grid, (0, 0, 0), (0.76, 0.7, 3.0), rng, 0.03)] = 45  # muscle
    image[_ellipsoid(grid, (0, -0.5, 0), (0.12, 0.14, 3.0), rng, 0.02)] = 350  # spine
    image[_ellipsoid(grid, (0, 0.35, -0.4), (0.4, 0.2, 0.45), rng, 0.08)] = 5  # bowel
    for index, hu, places in (
        (LIVER, 105, [((0.35, 0.15, 0.35), (0.33, 0.4, 0.45))]),
        (
            KIDNEY,
            175,
            [
                ((0.4, -0.28, -0.35), (0.19, 0.2, 0.38)),
                ((-0.4, -0.28, -0.25), (0.19, 0.2, 0.38)),
            ],
        ),
    ):
        for centre, radii in places:
            organ = _ellipsoid(grid, centre, radii, rng, 0.06)
            image[organ] = hu + rng.normal(0, 10)
            labels[organ] = index
    image += rng.normal(0, 25, shape)
    affine: Affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -0.5 * spacing * np.array(shape)
    return Volume(image[None].astype(np.float32), affine, source=f"phantom {seed}"), labels


def _ellipsoid(
    grid: npt.NDArray[np.float64],
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    rng: np.random.Generator,
    wobble: float,
) -> npt.NDArray[np.bool_]:
    moved = np.array(centre) + rng.normal(0, wobble, 3)
    scaled = np.array(radii) * (1 + rng.normal(0, wobble, 3))
    inside: npt.NDArray[np.bool_] = (((grid - moved) / scaled) ** 2).sum(axis=-1) < 1
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
    training = []
    for number in range(cases):
        volume, labels = make_phantom(seed + number, shape, spacing)
        name = f"phantom_{number:03d}.nii.gz"
        for folder, array in (
            ("imagesTr", np.rint(volume.array[0]).astype(np.int16)),
            ("labelsTr", labels),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            image = nib.Nifti1Image(array, np.array(volume.affine))
            nib.save(image, root / folder / name)
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    listing = {
        "name": "phantom",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "kidney"},
        "training": training,
    }
    (root / "dataset.json").write_text(json.dumps(listing, indent=1) + "\n")
    return root
