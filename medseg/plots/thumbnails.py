"""Small pictures of segmented scans for reports: three planes with the labels' outlines.

Drawn voxel by voxel, because a batch draws one per scan and a plotting library takes longer for
it than a GPU for the scan.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from medseg.labels import LabelSet
from medseg.plots.planes import (
    DisplayOrientation,
    Plane,
    compute_intensity_window,
    select_display_channels,
    show_planes,
)
from medseg.volume import Array, Volume

HEIGHT = 384
"""Of the picture, in pixels."""

REFERENCE, PREDICTION = (63, 208, 255), (255, 159, 28)
"""Colours of the two sides of a comparison, which most people can tell apart."""

_WIDEST = 768
_GAP = 6
_FILL = 0.22
_OUTLINE = ((0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (1, 3), (3, 1), (3, 3))
"""Neighbours that are compared with a pixel, from the corner of a border of two pixels."""
_QUALITY = 82
_EFFORT = 2
"""Of 0 to 6. The usual 4 takes three times as long, beside a network, for 5 % smaller files."""

Picture = npt.NDArray[np.uint8]


def draw_thumbnail(volume: Volume, labels: Array, label_set: LabelSet) -> bytes:
    """Draw the planes of a volume with most labelled voxels, or the one slice of a picture.

    Planes are turned as radiologists see them and have the right proportions. Nothing but
    pixels is in the file.

    Args:
        volume: Shape ``(channels, i, j, k)``.
        labels: Label indices on its grid, shape ``(i, j, k)``.
        label_set: Their colours.

    Returns:
        A WebP file.
    """
    panels = []
    for shown in show_planes(volume, labels):
        panel = _draw_panel(
            shown.plane, shown.image, shown.labels, shown.window, label_set
        )
        panels.append(panel)
    return _join_panels(panels)


def draw_comparison(
    volume: Volume, reference: Array, prediction: Array
) -> bytes:
    """Draw a reference and a prediction over the planes in which they differ most.

    Outlines of the reference are ``REFERENCE``, those of the prediction ``PREDICTION``; where one
    of the two has another label than the other, the place is filled faintly.

    Args:
        volume: Shape ``(channels, i, j, k)``; all 0 where there is no image to show.
        reference: Label indices on its grid, shape ``(i, j, k)``.
        prediction: The same.

    Returns:
        A WebP file.
    """
    image = select_display_channels(volume.array)
    # Where there is nothing to see, lines stand out best on black.
    window = compute_intensity_window(image) if image.any() else (0.0, 1.0)
    display = DisplayOrientation.from_grid(volume.affine, volume.shape)
    oriented_image = display.orient(image)
    expected = display.orient(reference)
    predicted = display.orient(prediction)
    differs = expected != predicted
    panels = []
    for plane in display.planes(differs if differs.any() else expected):
        grey = _draw_grey(plane, plane.extract(oriented_image), window)
        rows, columns = grey.shape[:2]
        truth = _resize_labels(plane.extract(expected), rows, columns)
        result = _resize_labels(plane.extract(predicted), rows, columns)
        panels.append(_centre(_compare(grey, truth, result)))
    return _join_panels(panels)


def _compare(grey: Picture, truth: Array, result: Array) -> Picture:
    image = _to_colours(grey).astype(np.float32)
    differs = truth != result
    layers = (
        (REFERENCE, _FILL * (differs & (truth > 0))),
        (PREDICTION, _FILL * (differs & (result > 0))),
        (REFERENCE, 1.0 * _find_outline(truth.astype(np.intp))),
        (PREDICTION, 1.0 * _find_outline(result.astype(np.intp))),
    )
    for colour, opacity in layers:
        share = opacity[..., None]
        image = image * (1 - share) + np.array(colour, np.float32) * share
    return image.astype(np.uint8)


def _join_panels(panels: Sequence[Picture]) -> bytes:
    """Put panels side by side into one WebP file."""
    gap = np.zeros((HEIGHT, _GAP, 3), np.uint8)
    row: list[Picture] = []
    for panel in panels:
        if row:
            row.append(gap)
        row.append(panel)
    picture = Image.fromarray(np.concatenate(row, axis=1))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=_QUALITY, method=_EFFORT)
    return file.getvalue()


def _draw_panel(
    plane: Plane,
    image: Array,
    labels: Array,
    window: tuple[float, float],
    label_set: LabelSet,
) -> Picture:
    """Draw one plane, ``HEIGHT`` pixels high, with black at its sides or above and below."""
    grey = _draw_grey(plane, image, window)
    rows, columns = grey.shape[:2]
    resized_labels = _resize_labels(labels, rows, columns)
    return _centre(_overlay(grey, resized_labels, label_set))


def _draw_grey(
    plane: Plane, image: Array, window: tuple[float, float]
) -> Picture:
    """Draw the intensities of one plane as large as its panel takes them."""
    width, height = plane.size
    scale = min(HEIGHT / height, _WIDEST / width)
    columns = max(1, round(width * scale))
    rows = max(1, round(height * scale))
    grey = Image.fromarray(_apply_window(image, window))
    resized = grey.resize((columns, rows), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def _centre(image: Picture) -> Picture:
    """Put black above and below what is not ``HEIGHT`` pixels high."""
    rows, columns = image.shape[:2]
    panel = np.zeros((HEIGHT, columns, 3), np.uint8)
    top = (HEIGHT - rows) // 2
    panel[top : top + rows] = image
    return panel


def _resize_labels(labels: Array, rows: int, columns: int) -> Array:
    """Resize by taking voxels as they are: a value between two labels is no label."""
    down = np.arange(rows) * labels.shape[0] // rows
    right = np.arange(columns) * labels.shape[1] // columns
    resized: Array = labels[down[:, None], right]
    return resized


def _apply_window(image: Array, window: tuple[float, float]) -> Picture:
    low, high = window
    finite = np.nan_to_num(image, nan=low, posinf=high, neginf=low)
    share = (finite - low) / (high - low)
    brightness = np.clip(share, 0, 1) * 255
    grey: Picture = brightness.astype(np.uint8)
    return grey


def _overlay(grey: Picture, labels: Array, label_set: LabelSet) -> Picture:
    """Lay the labels' colours over an image: filled faintly, their outlines full."""
    image = _to_colours(grey)
    colours = np.zeros((label_set.classes, 3), np.float32)
    for label in label_set:
        colours[label.index] = label.colour
    is_known = labels < label_set.classes
    known = np.where(is_known, labels, 0).astype(np.intp)
    strength = np.where(_find_outline(known), 1.0, _FILL)
    opacity = strength * (known > 0)
    opacity = opacity[..., None]
    mixed = image * (1 - opacity) + colours[known] * opacity
    picture: Picture = mixed.astype(np.uint8)
    return picture


def _to_colours(grey: Picture) -> Picture:
    if grey.ndim == 2:
        return np.repeat(grey[..., None], 3, axis=2)
    return grey


def _find_outline(labels: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Return which pixels have another label within two pixels of them."""
    padded = np.pad(labels, 2)
    rows, columns = labels.shape
    edge = np.zeros(labels.shape, bool)
    for down, right in _OUTLINE:
        neighbours = padded[down : down + rows, right : right + columns]
        edge |= neighbours != labels
    return edge
