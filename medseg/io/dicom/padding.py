"""What pixels become that lie outside the image: a scanner pads its round image to a square.

In CT they become air, in other images the lowest value that a pixel of the image has, and they are
left out of statistics. Padding that is background already, air in CT or 0 below a signal, stays as
it is, bit for bit, and counts: a NIfTI copy of the series, from which a bundle may have learned,
holds the same values and knows of no padding.

Source: DICOM PS3.3 C.7.5.1.1.2. By it, no pixel of the image has the padding value, which lies
outside the range of the image; a value inside that range is no padding, whatever the header says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.padding import Padding

Image = npt.NDArray[np.float32]

AIR_HU = -1024.0
"""What padding becomes in CT."""

_AIR_RANGE_HU = (-1100.0, -900.0)
"""Padding inside it is air already."""
_SURELY_BELOW_WATER_HU = -50.0
_FEWEST_BELOW_WATER = 0.01
"""Fat, lung or air are this share of a CT, if it is in HU; else only noise reaches below 0."""


@dataclass(slots=True)
class _Range:
    """The finite values of some voxels.

    Attributes:
        lowest: Infinite where there is none.
        highest: Negative and infinite where there is none.
        count: How many there are.
        below_water: How many of them fat, lung or air have in HU.
    """

    lowest: float = np.inf
    highest: float = -np.inf
    count: int = 0
    below_water: int = 0

    def add(self, values: Image) -> None:
        is_finite = np.isfinite(values)
        finite = values[is_finite]
        if not finite.size:
            return
        lowest = float(finite.min())
        highest = float(finite.max())
        is_below_water = finite < _SURELY_BELOW_WATER_HU
        self.lowest = min(self.lowest, lowest)
        self.highest = max(self.highest, highest)
        self.count += finite.size
        self.below_water += int(is_below_water.sum())

    def is_around(self, other: _Range) -> bool:
        """Tell whether there are values on both sides of others."""
        if self.lowest >= other.lowest:
            return False
        return self.highest > other.highest


def fill_padding(
    image: Image, padding: Padding, *, is_ct: bool
) -> tuple[Padding | None, tuple[str, ...]]:
    """Give padding the value of air, or the lowest of the image, in place.

    Args:
        image: Shape ``(i, j, k)``, rescaled.
        padding: Which of its pixels are padding by their stored values.
        is_ct: Whether intensities are HU, if the header is right.

    Returns:
        What shows nothing, ``None`` if all does: padding whose value was replaced; and a warning
        if a CT's header calls values padding that lie among those of tissue.
    """
    if not padding:
        return None, ()
    inside, outside = _measure(image, padding)
    if not inside.count or not outside.count:
        return None, ()
    fewest = _FEWEST_BELOW_WATER * inside.count
    if is_ct and inside.below_water >= fewest:
        return _fill_hu(image, padding, inside, outside)
    # In a signal 0 is nothing: background that nobody has to replace.
    is_background = outside.lowest >= 0 and outside.highest <= inside.lowest
    if is_background or inside.is_around(outside):
        return None, ()
    _fill(image, padding, inside.lowest)
    return padding, ()


def _fill_hu(
    image: Image, padding: Padding, inside: _Range, outside: _Range
) -> tuple[Padding | None, tuple[str, ...]]:
    lowest_air, highest_air = _AIR_RANGE_HU
    is_below_tissue = outside.highest <= highest_air
    if is_below_tissue and outside.lowest >= lowest_air:
        return None, ()
    if not is_below_tissue and inside.is_around(outside):
        warning = (
            f"the header calls {outside.count} voxels padding, but their value lies among those "
            "of tissue, so they were read as they are"
        )
        return None, (warning,)
    _fill(image, padding, AIR_HU)
    return padding, ()


def _measure(image: Image, padding: Padding) -> tuple[_Range, _Range]:
    """Return the values of the image, and those of its padding."""
    inside = _Range()
    outside = _Range()
    for k in range(image.shape[2]):
        slab = image[:, :, k]
        is_padding = padding.get(k)
        padded = slab[is_padding]
        outside.add(padded)
        others = slab[~is_padding]
        inside.add(others)
    return inside, outside


def _fill(image: Image, padding: Padding, value: float) -> None:
    for k in range(image.shape[2]):
        slab = image[:, :, k]
        is_padding = padding.get(k)
        slab[is_padding] = value
