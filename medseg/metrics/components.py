"""The connected components of a mask, numbered."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from medseg.metrics.confusion import Counts, Mask

_CORNERS_TOUCH: Literal[26] = 26
"""Voxels that share a corner belong to one component, as for MONAI."""

_THIN = 4
"""Voxels along an axis of fewer than which cc3d provides for too few components."""


def number_components(
    mask: Mask,
) -> tuple[npt.NDArray[np.unsignedinteger], int]:
    """Number the connected components of a mask, in the order in which it lies in memory.

    Args:
        mask: ``(i, j, k)``; neighbours touch at faces, edges or corners.

    Returns:
        Of each voxel the number of its component, from 1 on, 0 outside the mask; and how many
        there are.
    """
    import cc3d

    i, j, k = mask.shape
    if min(mask.shape) < _THIN:
        # Of 1 0 1 in a line it says that there cannot be two components.
        order: Literal["C", "F"] = "F" if mask.flags.f_contiguous else "C"
        wider = np.zeros((i + 1, j + 1, k + 1), bool, order)
        wider[:i, :j, :k] = mask
        mask = wider
    components, count = cc3d.connected_components(
        mask,
        connectivity=_CORNERS_TOUCH,
        binary_image=True,
        return_N=True,
    )
    return components[:i, :j, :k], count


def count_component_voxels(
    components: npt.NDArray[np.unsignedinteger], mask: Mask
) -> Counts:
    """Return how many voxels each component has, ``(1 + components,)``; 0 for what is outside."""
    # Transposed, a mask of a label map lies in memory as numpy goes through it.
    return np.bincount(components.T[mask.T])
