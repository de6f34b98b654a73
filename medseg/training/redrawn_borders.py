"""Borders as somebody else would have drawn them: bulged where the image gives no reason to.

A network that has learned what the image shows gains little from a click on cases it learns from,
and so does not learn to follow one. Where the reference deviates from the image only the clicks say
where, as they do of what a network has got wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from medseg.volume import Array

MOST_BULGES = 3
"""Most places at which one border is redrawn."""

_HEIGHTS = (1.5, 5.0)
"""How far a bulge moves the border at its middle, in voxels, outwards or inwards."""
_WIDTHS = (2.0, 6.0)
"""Standard deviation of a bulge along the border, in voxels."""
_REACH = 2.5
"""Standard deviations from its middle at which a bulge ends."""


def redraw_border(labels: Array, label: int, rng: np.random.Generator) -> Array:
    """Bulge a label's border at one to three places.

    Args:
        labels: Label indices, of any number of axes; not changed.
        label: The label. What it gives up becomes the nearest other one, background among them.
        rng: Decides where, how far and how widely.

    Returns:
        Label indices of the same shape and type.
    """
    redrawn = labels.copy()
    for _ in range(int(rng.integers(1, MOST_BULGES + 1))):
        is_label = redrawn == label
        border = np.argwhere(is_label & ~ndimage.binary_erosion(is_label))
        if not len(border):
            break
        middle = border[rng.integers(len(border))]
        height = rng.uniform(*_HEIGHTS) * rng.choice([-1.0, 1.0])
        _bulge(redrawn, label, middle, height, rng.uniform(*_WIDTHS))
    return redrawn


def _bulge(
    labels: Array,
    label: int,
    middle: Sequence[int],
    height: float,
    width: float,
) -> None:
    """Move a label's border about a voxel by a Gaussian, within a box around it."""
    reach = int(np.ceil(_REACH * width + abs(height)))
    box = tuple(
        slice(max(centre - reach, 0), centre + reach + 1) for centre in middle
    )
    part = labels[box]
    is_label = part == label
    if is_label.all():
        return
    depth, nearest = ndimage.distance_transform_edt(
        is_label, return_indices=True
    )
    depth -= ndimage.distance_transform_edt(~is_label)
    squared = np.zeros(part.shape)
    for axis, positions in enumerate(np.indices(part.shape)):
        squared += (positions + box[axis].start - middle[axis]) ** 2
    bulge = height * np.exp(-squared / (2 * width**2))
    bulge[squared > (_REACH * width) ** 2] = 0
    # A voxel's middle is half a voxel from the border.
    is_now = depth - 0.5 * np.sign(depth) + bulge > 0
    given_up = is_label & ~is_now
    others = part[tuple(nearest)]
    part[is_now] = label
    part[given_up] = others[given_up]
