"""Small pictures show the labels where they are, as radiologists look, and nothing else."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medseg.labels import Label, LabelSet
from medseg.plots.thumbnails import HEIGHT, draw_thumbnail
from medseg.testing import make_phantom
from medseg.volume import Volume

LABELS = LabelSet(
    [Label(1, "a", 1, (255, 0, 0)), Label(2, "b", 2, (0, 0, 255))]
)


def drawn(volume: Volume, labels: np.ndarray) -> np.ndarray:
    return np.asarray(
        Image.open(io.BytesIO(draw_thumbnail(volume, labels, LABELS)))
    ).astype(int)


def redness(picture: np.ndarray) -> np.ndarray:
    return picture[..., 0] - picture[..., 2]


def test_the_patients_right_is_on_the_left_and_anterior_is_up() -> None:
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[28:34, 28:34, 18:22] = (
        1  # right and anterior in RAS+: high i is the patient's right…
    )
    volume = Volume(
        np.random.default_rng(0).random((1, 40, 40, 40), np.float32), np.eye(4)
    )
    axial = redness(drawn(volume, labels))[:, :HEIGHT]
    rows, columns = np.nonzero(axial > 100)
    # … and RAS+ counts towards the right, which is drawn on the left.
    assert columns.max() < 0.5 * HEIGHT
    assert rows.max() < 0.5 * HEIGHT


def test_proportions_are_those_of_the_patient() -> None:
    labels = np.zeros((30, 20, 10), np.uint8)
    volume = Volume(
        np.random.default_rng(0).random((1, 30, 20, 10), np.float32),
        np.diag([1, 1.5, 6, 1]),
    )
    height, width, _ = drawn(volume, labels).shape
    gaps = 2 * 6
    assert height == HEIGHT
    # Axial 30×30 mm; coronal 30×60; sagittal 30×60.
    assert width == pytest.approx(HEIGHT * (1 + 0.5 + 0.5) + gaps, abs=2)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((400, 2, 2), (1, 1, 1)), ((2, 2, 500), (1, 1, 9))]
)
def test_long_thin_scans_make_pictures_of_bounded_size(shape, spacing) -> None:
    volume = Volume(
        np.random.default_rng(0).random((1, *shape), np.float32),
        np.diag([*spacing, 1]),
    )
    height, width, _ = drawn(volume, np.ones(shape, np.uint8)).shape
    assert height == HEIGHT
    assert width <= 3 * 2 * HEIGHT + 12


def test_pictures_keep_their_colours_and_their_one_slice() -> None:
    colours = np.zeros((3, 60, 30, 1), np.float32)
    colours[1] = np.linspace(0, 255, 60)[:, None, None]
    labels = np.zeros((60, 30, 1), np.uint8)
    labels[40:50, 5:12] = 1
    picture = drawn(Volume(colours, np.eye(4)), labels)
    assert picture.shape[:2] == (HEIGHT, 2 * HEIGHT)
    rows, columns = np.nonzero(redness(picture) > 100)
    assert rows.mean() == pytest.approx(8.5 / 30 * HEIGHT, abs=8)
    assert columns.mean() == pytest.approx(45 / 60 * 2 * HEIGHT, abs=8)
    assert picture[-20:, -20:, 1].mean() > 150


@pytest.mark.parametrize("fill", [0.0, np.nan, np.inf, -np.inf, 1e30])
def test_odd_intensities_are_drawn_somehow(fill: float) -> None:
    array = np.random.default_rng(0).random((1, 9, 9, 9), np.float32)
    array[0, :5] = fill
    assert (
        drawn(Volume(array, np.eye(4)), np.zeros((9, 9, 9), np.uint8)).shape[0]
        == HEIGHT
    )


def test_the_file_is_small_and_holds_pixels_alone() -> None:
    volume, labels = make_phantom(0, (112, 96, 80), 2.0)
    content = draw_thumbnail(volume, labels, LABELS)
    assert len(content) < 30_000
    assert not Image.open(io.BytesIO(content)).getexif()
    assert b"phantom" not in content
