"""Made-up street scenes: what is where, and the colours that show it in masks."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Scene = npt.NDArray[np.uint8]
"""Label of each pixel, ``(rows, columns)``; from 1, in the order of ``COLOURS``."""

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "Sky": (128, 128, 128),
    "Road": (128, 64, 128),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "Pole": (192, 192, 128),
}
"""As in CamVid."""

SKY, ROAD, BUILDING, CAR, POLE = range(1, 6)


def make_scene(seed: int, rows: int = 72, columns: int = 96) -> Scene:
    """Make one scene: sky above a road, two houses, a car and a pole."""
    random = np.random.default_rng(seed)
    scene = np.full((rows, columns), SKY, np.uint8)
    horizon = rows // 2 + int(random.integers(-rows // 12, rows // 12))
    scene[horizon:] = ROAD
    wide = columns // 5
    left = int(random.integers(0, columns // 4))
    scene[rows // 6 : horizon, left : left + wide] = BUILDING
    scene[rows // 4 : horizon, columns - wide :] = BUILDING
    y, x = np.mgrid[:rows, :columns]
    across = (x - columns * random.uniform(0.35, 0.65)) / (columns / 8)
    along = (y - rows * 0.78) / (rows / 9)
    scene[across**2 + along**2 < 1] = CAR
    at = int(random.integers(columns // 2, columns * 3 // 5))
    thick = max(3, columns // 24)
    scene[rows // 5 : horizon + rows // 10, at : at + thick] = POLE
    return scene


def paint(scene: Scene, colours: dict[str, Colour] = COLOURS) -> Image.Image:
    """Return a scene as a mask in colours."""
    palette = np.array([(0, 0, 0), *colours.values()], np.uint8)
    return Image.fromarray(palette[scene])


def paint_smoothly(seed: int, rows: int = 72, columns: int = 96) -> Image.Image:
    """Return the mask of a scene with edges as drawing programs smooth them."""
    large = paint(make_scene(seed, rows * 4, columns * 4))
    return large.resize((columns, rows), Image.Resampling.BOX)


def as_jpeg(picture: Image.Image, quality: int = 90) -> Image.Image:
    """Return what JPEG makes of a picture."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling=0)
    return Image.open(io.BytesIO(file.getvalue()))


def photograph(scene: Scene, seed: int) -> Image.Image:
    """Return how a scene looks: each label in a shade of its own, with noise."""
    shades = np.array(
        [
            (0, 0, 0),
            (150, 190, 230),
            (70, 70, 75),
            (160, 110, 80),
            (30, 60, 160),
            (220, 210, 90),
        ],
        np.float32,
    )
    noise = np.random.default_rng(seed).normal(0, 12, (*scene.shape, 3))
    return Image.fromarray((shades[scene] + noise).clip(0, 255).astype("uint8"))


def write_class_dict(
    folder: Path, colours: dict[str, Colour] = COLOURS
) -> None:
    """Write ``class_dict.csv`` as CamVid's."""
    with (folder / "class_dict.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "r", "g", "b"])
        writer.writerows([name, *colour] for name, colour in colours.items())


def write_street_scenes(
    folder: Path, count: int = 6, *, smooth: bool = True, suffix: str = ".png"
) -> Path:
    """Write scenes and their masks in colours as ``images/`` and ``masks/``."""
    images, labels = folder / "images", folder / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    for seed in range(count):
        scene = make_scene(seed)
        photograph(scene, seed).save(images / f"frame_{seed:02d}.png")
        mask = paint_smoothly(seed) if smooth else paint(scene)
        if suffix == ".jpg":
            mask.save(
                labels / f"frame_{seed:02d}.jpg", quality=90, subsampling=0
            )
        else:
            mask.save(labels / f"frame_{seed:02d}{suffix}")
    return folder
