"""Small pictures of segmented scans for reports: three planes with the labels' outlines.

Drawn voxel by voxel, because a batch draws one per scan and a plotting library takes longer for
it than a GPU for the scan.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from medseg.labels import LabelSet
from medseg.plots.planes import (
    DisplayOrientation,
    Plane,
    compute_intensity_window,
    select_display_channels,
)
from medseg.volume import Array, Volume

HEIGHT = 384
"""Of the picture, in pixels."""

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
    image = select_display_channels(volume.array)
    window = compute_intensity_window(image)
    display = DisplayOrientation.from_grid(volume.affine, volume.shape)
    oriented_image = display.orient(image)
    oriented_labels = display.orient(labels)
    gap = np.zeros((HEIGHT, _GAP, 3), np.uint8)
    row: list[Picture] = []
    for plane in display.planes(oriented_labels):
        if row:
            row.append(gap)
        shown = plane.extract(oriented_image)
        row.append(
            _draw_panel(
                plane, shown, plane.extract(oriented_labels), window, label_set
            )
        )
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
    width, height = plane.size
    scale = min(HEIGHT / height, _WIDEST / width)
    columns = max(1, round(width * scale))
    rows = max(1, round(height * scale))
    grey = Image.fromarray(_apply_window(image, window))
    resized = grey.resize((columns, rows), Image.Resampling.BILINEAR)
    resized_labels = _resize_labels(labels, rows, columns)
    panel = np.zeros((HEIGHT, columns, 3), np.uint8)
    top = (HEIGHT - rows) // 2
    bottom = top + rows
    panel[top:bottom] = _overlay(np.asarray(resized), resized_labels, label_set)
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
    image = grey
    if grey.ndim == 2:
        image = np.repeat(grey[..., None], 3, axis=2)
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


def _find_outline(labels: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Return which pixels have another label within two pixels of them."""
    padded = np.pad(labels, 2)
    rows, columns = labels.shape
    edge = np.zeros(labels.shape, bool)
    for down, right in _OUTLINE:
        neighbours = padded[down : down + rows, right : right + columns]
        edge |= neighbours != labels
    return edge
