"""nnU-Net's way from a scan to a label map, written plainly from its definition, in float64.

Slow, and all at once in memory: what medseg does is compared with it. Axes are those of the array
given, whatever their order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import (
    binary_fill_holes,
    find_objects,
    gaussian_filter,
    map_coordinates,
)
from skimage.transform import resize

Floats = npt.NDArray[np.float64]
Box = tuple[slice, slice, slice]
Scheme = Callable[[Floats, npt.NDArray[np.bool_]], Floats]


def standardise(image: Floats, _: Any) -> Floats:
    return (image - image.mean()) / max(image.std(), 1e-8)


def standardise_within(image: Floats, mask: npt.NDArray[np.bool_]) -> Floats:
    inside = image[mask]
    made = image.copy()
    made[mask] = (inside - inside.mean()) / max(inside.std(), 1e-8)
    return made


def ct(low: float, high: float, mean: float, std: float) -> Scheme:
    return lambda image, _: (image.clip(low, high) - mean) / std


def find_nonzero(data: Floats) -> tuple[npt.NDArray[np.bool_], Box]:
    """Return the body's mask and its box."""
    mask = binary_fill_holes(np.any(data != 0, axis=0))
    (box,) = find_objects(mask.astype(int))
    return mask, box


def choose_apart(old: Sequence[float], new: Sequence[float]) -> int | None:
    """Return the axis that is resampled apart."""
    for spacing in (old, new):
        if max(spacing) / min(spacing) > 3:
            coarsest = [a for a, mm in enumerate(spacing) if mm == max(spacing)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def resample(
    data: Floats,
    shape: Sequence[int],
    old: Sequence[float],
    new: Sequence[float],
    order: int,
) -> Floats:
    """Resize channels ``(c, …)`` to a shape."""
    shape = tuple(shape)
    if data.shape[1:] == shape:
        return data
    arguments = {"order": order, "mode": "edge", "anti_aliasing": False}
    apart = choose_apart(old, new)
    if apart is None:
        return np.stack([resize(each, shape, **arguments) for each in data])
    made = []
    for channel in np.moveaxis(data, apart + 1, 1):
        in_plane = tuple(n for a, n in enumerate(shape) if a != apart)
        slices = np.stack(
            [resize(one, in_plane, **arguments) for one in channel]
        )
        if len(slices) != shape[apart]:
            step = len(slices) / shape[apart]
            at = step * (np.arange(shape[apart]) + 0.5) - 0.5
            places = np.meshgrid(at, *map(np.arange, in_plane), indexing="ij")
            slices = map_coordinates(slices, places, order=0, mode="nearest")
        made.append(np.moveaxis(slices, 0, apart))
    return np.stack(made)


def preprocess(
    data: Floats,
    spacing: Sequence[float],
    wanted: Sequence[float | None],
    schemes: Sequence[Scheme],
) -> tuple[Floats, Box, Sequence[float]]:
    """Crop, normalise, resample; return the box and the spacing aimed at, too."""
    mask, box = find_nonzero(data)
    cropped = data[(slice(None), *box)].astype(np.float64)
    normalised = np.stack(
        [
            scheme(channel, mask[box])
            for scheme, channel in zip(schemes, cropped, strict=True)
        ]
    )
    target = [
        own if mm is None else mm
        for own, mm in zip(spacing, wanted, strict=True)
    ]
    shape = [
        round(old / mm * n)
        for old, mm, n in zip(spacing, target, cropped.shape[1:], strict=True)
    ]
    return resample(normalised, shape, spacing, target, 3), box, target


def slide(
    image: Floats,
    size: Sequence[int],
    network: Callable[[Floats], Floats],
    step_size: float = 0.5,
) -> Floats:
    """Return the scores of an image by windows with a Gaussian about voxel ``n // 2``.

    Sums have half precision, as nnU-Net's have.
    """
    margins = [
        max(0, s - n) for s, n in zip(size, image.shape[1:], strict=True)
    ]
    pads = [(margin // 2, margin - margin // 2) for margin in margins]
    padded = np.pad(image, [(0, 0), *pads])
    peak = np.zeros(tuple(size))
    peak[tuple(n // 2 for n in size)] = 1
    weights = gaussian_filter(peak, [n / 8 for n in size], mode="constant")
    weights = (weights / weights.max() * 10).astype(np.float16)
    weights[weights == 0] = weights[weights > 0].min()
    starts = []
    for n, s in zip(padded.shape[1:], size, strict=True):
        count = int(np.ceil((n - s) / (s * step_size))) + 1
        gap = (n - s) / max(count - 1, 1)
        starts.append([int(np.round(gap * i)) for i in range(count)])
    total: Any = None
    count = np.zeros(padded.shape[1:], np.float16)
    # nnU-Net goes along the first axis last; here the last does, as in medseg: in half precision
    # the order counts.
    for z, x, y in itertools.product(starts[2], starts[0], starts[1]):
        corner = (x, y, z)
        at = tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))
        scores = network(padded[(slice(None), *at)]) * weights.astype(float)
        if total is None:
            total = np.zeros((len(scores), *padded.shape[1:]), np.float16)
        total[(slice(None), *at)] += scores
        count[at] += weights
    total = (total / count).astype(float)
    inside = tuple(
        slice(before, before + n)
        for (before, _), n in zip(pads, image.shape[1:], strict=True)
    )
    return total[(slice(None), *inside)]


def segment(
    data: Floats,
    spacing: Sequence[float],
    wanted: Sequence[float | None],
    schemes: Sequence[Scheme],
    size: Sequence[int],
    network: Callable[[Floats], Floats],
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the label map on the scan's grid, and by how much each voxel's label won."""
    image, box, target = preprocess(data, spacing, wanted, schemes)
    scores = slide(image, size, network)
    shape = [part.stop - part.start for part in box]
    scores = resample(scores, shape, target, spacing, 1)
    scores = scores.astype(np.float16).astype(float)
    ordered = np.sort(scores, axis=0)
    labels = np.zeros(data.shape[1:], np.int64)
    labels[box] = scores.argmax(axis=0)
    lead = np.full(data.shape[1:], np.inf)
    lead[box] = ordered[-1] - ordered[-2]
    return labels, lead
