"""Probabilities of every class on the scan's own grid, for who asks for them.

Labels never need them, so they are the one result whose memory grows with classes × voxels.
"""

from __future__ import annotations

import math

import numpy as np

from medseg.errors import MedsegError
from medseg.labels import LabelSet
from medseg.volume import Array

MAX_BYTES = 8 << 30
"""Most memory that the probabilities of a scan may take: a CT of 512×512×400 with 20 classes."""

_BYTES_PER_NUMBER = 4


def allocate_probabilities(
    shape: tuple[int, int, int], label_set: LabelSet
) -> Array:
    """Return what the network answers where it does not look: background.

    Args:
        shape: Voxels of the scan.
        label_set: What the classes are.

    Returns:
        float32 ``(classes, i, j, k)``; ``(regions, i, j, k)`` where the bundle has regions. Each
        class lies in memory as label maps do.

    Raises:
        MedsegError: If it would take more than ``MAX_BYTES``.
    """
    classes = label_set.channels
    size = _BYTES_PER_NUMBER * classes * math.prod(shape)
    if size > MAX_BYTES:
        raise MedsegError(
            f"the probabilities of {classes} classes on {'×'.join(map(str, shape))} voxels take "
            f"{size / 1e9:.1f} GB; at most {MAX_BYTES / 1e9:.1f} GB are made. Crop the scan, or "
            "take error_map, which is one number per voxel"
        )
    backwards = (classes, *shape[::-1])
    probabilities = np.zeros(backwards, np.float32).transpose(0, 3, 2, 1)
    if not label_set.has_regions:
        probabilities[0] = 1
    return probabilities
