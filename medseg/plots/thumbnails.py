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

HEIGHT = 240
"""Of the picture, in pixels."""

_WIDEST = 480
_GAP = 6
_FILL = 0.22
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
    view = DisplayOrientation.of(volume.affine, volume.shape)
    turned, found = view.orient(image), view.orient(labels)
    window = compute_intensity_window(image)
    panels = [_panel(plane, turned, found, window, label_set) for plane in view.planes(found)]
    gap = np.zeros((HEIGHT, _GAP, 3), np.uint8)
    row = [part for panel in panels for part in (panel, gap)][:-1]
    file = io.BytesIO()
    Image.fromarray(np.concatenate(row, axis=1)).save(
        file, "WEBP", quality=_QUALITY, method=_EFFORT
    )
    return file.getvalue()


def _panel(
    plane: Plane, image: Array, labels: Array, window: tuple[float, float], label_set: LabelSet
) -> Picture:
    """Draw one plane, ``HEIGHT`` pixels high, with black at its sides or above and below."""
    width, height = plane.size
    scale = min(HEIGHT / height, _WIDEST / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    low, high = window
    cut = np.nan_to_num(plane.cut(image), nan=low, posinf=high, neginf=low)
    grey = (np.clip((cut - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    shown = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR))
    rows, columns = shown.shape[:2]
    # Labels are taken voxel by voxel: a value between two labels is no label.
    down = np.arange(rows) * cut.shape[0] // rows
    right = np.arange(columns) * cut.shape[1] // columns
    coloured = _coloured(shown, plane.cut(labels)[down[:, None], right], label_set)
    panel = np.zeros((HEIGHT, max(columns, 1), 3), np.uint8)
    top = (HEIGHT - rows) // 2
    panel[top : top + rows] = coloured
    return panel


def _coloured(grey: Picture, labels: Array, label_set: LabelSet) -> Picture:
    image = grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2)
    table = np.zeros((label_set.classes, 3), np.float32)
    for label in label_set:
        table[label.index] = label.colour
    known = np.where(labels < label_set.classes, labels, 0).astype(np.intp)
    opacity = np.where(_outline(known), 1.0, _FILL) * (known > 0)
    mixed = image * (1 - opacity[..., None]) + table[known] * opacity[..., None]
    picture: Picture = mixed.astype(np.uint8)
    return picture


def _outline(labels: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Tell which pixels have another label within two pixels of them."""
    padded = np.pad(labels, 2)
    rows, columns = labels.shape
    edge = np.zeros(labels.shape, bool)
    for down, right in ((0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (1, 3), (3, 1), (3, 3)):
        edge |= padded[down : down + rows, right : right + columns] != labels
    return edge
