"""Boxes around labels, on a scan's own grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg.volume import Array, Volume

Box = tuple[slice, slice, slice]


def find_box_of_labels(labels: Array) -> Box | None:
    """Return the smallest box ``(i, j, k)`` of all that is not 0; ``None`` if nothing is."""
    sides = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        held = np.flatnonzero(labels.any(axis=others))
        if not len(held):
            return None
        sides.append(slice(int(held[0]), int(held[-1]) + 1))
    i, j, k = sides
    return i, j, k


def find_label_box(labels: Array, indices: Sequence[int]) -> Box | None:
    """Return the smallest box that holds some labels; ``None`` if there are none.

    Args:
        labels: Label indices ``(i, j, k)``.
        indices: Which of them.
    """
    is_wanted = np.zeros(int(labels.max(initial=0)) + 1, bool)
    is_wanted[[index for index in indices if index < len(is_wanted)]] = True
    along_i = np.zeros(labels.shape[0], bool)
    along_j = np.zeros(labels.shape[1], bool)
    along_k = np.zeros(labels.shape[2], bool)
    for k in range(labels.shape[2]):
        plane = is_wanted[labels[:, :, k]]
        along_i |= plane.any(axis=1)
        along_j |= plane.any(axis=0)
        along_k[k] = plane.any()
    if not along_k.any():
        return None
    i, j, k_range = (_span(flags) for flags in (along_i, along_j, along_k))
    return i, j, k_range


def _span(flags: Array) -> slice:
    places = np.flatnonzero(flags)
    return slice(int(places[0]), int(places[-1]) + 1)


def grow_box(found: Box, inside: Box, scan: Volume, margin_mm: float) -> Box:
    """Return a box with a margin, in the whole voxels that fit it, within the scan.

    Args:
        found: Counted from the first voxel of ``inside``.
        inside: The box of the scan in which it was found.
        scan: The scan.
        margin_mm: On each side.
    """
    grown = []
    for part, outer, mm, count in zip(
        found, inside, scan.spacing, scan.shape, strict=True
    ):
        # The spacing is computed: 3 mm of 1.5000001 mm are two voxels.
        voxels = int(margin_mm / mm + 1e-3)
        start = outer.start + part.start - voxels
        stop = outer.start + part.stop + voxels
        grown.append(slice(max(0, start), min(count, stop)))
    i, j, k = grown
    return i, j, k


def move_into(inner: Box, outer: Box) -> Box:
    """Return where a part of a part lies in the whole."""
    sides = []
    for part, whole in zip(inner, outer, strict=True):
        sides.append(slice(whole.start + part.start, whole.start + part.stop))
    i, j, k = sides
    return i, j, k
