"""Scores that obey clicks, also where the network does not follow them.

A click says of one voxel whether a label is there. Where the network finds otherwise, it probably
errs about the voxels around, too, the more so the nearer they are and the less sure it is of them.
That is regression by a Gaussian process whose mean is the network's margin: what is true at the
clicks is given, and what is added is the most probable field that explains it (Zhou et al.,
Interactive Segmentation as Gaussian Process Classification, CVPR 2023; here with distances in place
of their deep features).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medseg.volume import Array

REACH = 5.0
"""Voxels over which a click's influence falls to 1/e, in units of the finest axis."""

_LEAST_MARGIN = 0.5
"""By which a label is to win or lose, at least, where a click says so: a logit."""

Points = npt.NDArray[np.float64]


def obey_clicks(
    scores: Array,
    index: int,
    inside: Points,
    outside: Points,
    voxel: Sequence[float],
) -> Array:
    """Return what to add to a label's scores so that it wins where clicks say that it lies.

    A click lies in the middle of what is wrong. So where the network's margin says the opposite of
    a click, it is turned round: as sure as it was that the label is not there, it becomes that it
    is. What is as far behind the click as the border is before it then lies about on the new one.
    Where the network follows a click, it is held to what it finds there.

    Args:
        scores: Logits of a window, ``(classes, x, y, z)``.
        index: The label's.
        inside: Clicks inside it, ``(n, 3)``, in voxels of the window; those outside the window are
            left out.
        outside: Clicks outside of it.
        voxel: Size of a voxel along each axis, in any unit.

    Returns:
        ``(x, y, z)``, 0 where no click is near or all are followed.
    """
    shape = scores.shape[1:]
    points = np.concatenate([inside, outside]).reshape(-1, 3)
    wanted = np.repeat([1.0, -1.0], [len(inside), len(outside)])
    voxels = np.floor(points + 0.5).astype(int)
    is_here = ((voxels >= 0) & (voxels < shape)).all(axis=1)
    # Of two clicks on one voxel the one inside counts, which comes first.
    voxels, first = np.unique(voxels[is_here], axis=0, return_index=True)
    wanted = wanted[is_here][first]
    missing = _find_missing(scores, index, voxels, wanted)
    field = np.zeros(shape, np.float32)
    if not missing.any():
        return field
    scale = np.array(voxel) / (min(voxel) * REACH)
    placed = voxels * scale
    distances = np.linalg.norm(placed[:, None] - placed[None], axis=2)
    weights = np.linalg.solve(np.exp(-distances), missing)
    for centre, weight in zip(placed, weights, strict=True):
        field += weight * _draw_influence(centre, shape, scale)
    return field


def _find_missing(
    scores: Array, index: int, voxels: npt.NDArray[np.int_], wanted: Array
) -> Array:
    """Return what the label's margin at each click lacks to what the click says."""
    at_clicks = scores[(slice(None), *voxels.T)]
    others = np.delete(at_clicks, index, axis=0)
    margin = at_clicks[index] - others.max(axis=0)
    target = wanted * np.maximum(np.abs(margin), _LEAST_MARGIN)
    missing: Array = target - margin
    return missing


def _draw_influence(centre: Array, shape: Sequence[int], scale: Array) -> Array:
    squared = np.zeros((1, 1, 1), np.float32)
    for axis, length in enumerate(shape):
        along = np.arange(length) * scale[axis] - centre[axis]
        view = [-1 if axis == n else 1 for n in range(3)]
        squared = squared + np.square(along, dtype=np.float32).reshape(view)
    influence: Array = np.exp(-np.sqrt(squared))
    return influence
