"""Voxels that show nothing: what scanners pad an image with, and what is not a number.

They have a value, so that every tool can go on, but they are left out of statistics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from medseg.errors import ScanError

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Shape = tuple[int, int, int, int]
"""Channels, and voxels along i, j and k."""


@dataclass(slots=True, eq=False)
class Padding:
    """Which voxels of an image are padding, slice by slice; eight voxels take a byte.

    Attributes:
        shape: Of the image, ``(channels, i, j, k)``.
    """

    shape: Shape
    _packed: dict[tuple[int, int], npt.NDArray[np.uint8]] = field(
        default_factory=dict
    )

    @classmethod
    def from_mask(cls, is_padding: Mask) -> Self:
        """Return what a mask of shape ``(channels, i, j, k)`` marks."""
        channels, i, j, k = is_padding.shape
        padding = cls((channels, i, j, k))
        for channel, voxels in enumerate(is_padding):
            for plane in range(k):
                padding.add(plane, voxels[:, :, plane], channel)
        return padding

    def __bool__(self) -> bool:
        return bool(self._packed)

    def add(self, k: int, is_padding: Mask, channel: int = 0) -> None:
        """Mark voxels of slice ``k`` that are padding, shape ``(i, j)``."""
        if not is_padding.any():
            return
        marked = np.packbits(is_padding)
        known = self._packed.get((channel, k))
        if known is not None:
            marked |= known
        self._packed[channel, k] = marked

    def get(self, k: int, channel: int = 0) -> Mask:
        """Return which voxels of slice ``k`` are padding, shape ``(i, j)``."""
        _, i, j, _ = self.shape
        packed = self._packed.get((channel, k))
        if packed is None:
            return np.zeros((i, j), bool)
        bits = np.unpackbits(packed, count=math.prod((i, j)))
        is_padding = bits.astype(bool)
        return is_padding.reshape(i, j)

    def get_channel(self, channel: int) -> Mask:
        """Return which voxels of a channel are padding, shape ``(i, j, k)``."""
        is_padding = np.zeros(self.shape[1:], bool, order="F")
        for marked_channel, k in self._packed:
            if marked_channel == channel:
                is_padding[:, :, k] = self.get(k, channel)
        return is_padding

    def get_mask(self) -> Mask:
        """Return which voxels are padding, shape ``(channels, i, j, k)``."""
        masks = [self.get_channel(number) for number in range(self.shape[0])]
        return np.stack(masks)

    def mark(self, image: Array) -> Array:
        """Return an image of shape ``(channels, i, j, k)`` whose padding is NaN."""
        return np.where(self.get_mask(), np.float32(np.nan), image)

    def _shift(self, channels: int) -> Iterator[tuple[tuple[int, int], Array]]:
        for (channel, k), packed in self._packed.items():
            yield (channels + channel, k), packed

    def join(self, other: Padding) -> None:
        """Mark what is padding of the same image by another list, too."""
        for channel, k in other._packed:
            self.add(k, other.get(k, channel), channel)


def join_padding(
    first: Padding | None, second: Padding | None
) -> Padding | None:
    """Return what is padding of an image by either of two lists, of which the first may change."""
    if not first:
        return second
    if second:
        first.join(second)
    return first


def stack_padding(
    parts: Sequence[Padding | None], shapes: Sequence[Sequence[int]]
) -> Padding | None:
    """Return the padding of images whose channels are put into one image.

    Args:
        parts: Of each image.
        shapes: The images', ``(channels, i, j, k)``.
    """
    _, i, j, k = shapes[0]
    total = sum(shape[0] for shape in shapes)
    stacked = Padding((total, i, j, k))
    first = 0
    for padding, shape in zip(parts, shapes, strict=True):
        if padding is not None:
            stacked._packed.update(padding._shift(first))
        first += shape[0]
    return stacked or None


def replace_nonfinite(
    image: Array, source: str | Path | None = None
) -> tuple[Padding | None, tuple[str, ...]]:
    """Set NaN and infinite voxels to the lowest other value of their channel, in place.

    One of them would spoil every normalisation. The lowest value is air in CT, where 0 would be
    water, and the background of most other images. Padding that files declare becomes the same.

    Args:
        image: Shape ``(i, j, k)`` or ``(i, j, k, channels)``.
        source: The file, for the error.

    Returns:
        The voxels that were replaced, which are padding, too, and a warning that counts them; or
        ``None`` and nothing.

    Raises:
        ScanError: If a channel holds nothing else.
    """
    if image.dtype.kind != "f":
        return None, ()
    channels = image[..., None] if image.ndim == 3 else image
    i, j, k, count = channels.shape
    padding = Padding((count, i, j, k))
    replaced = 0
    for number in range(count):
        replaced += _replace_in_channel(
            channels[..., number], number, padding, source
        )
    if not replaced:
        return None, ()
    warning = (
        f"{replaced} of {image.size} voxels were not numbers (NaN or infinite) and took the lowest "
        "value of their channel"
    )
    return padding, (warning,)


def _replace_in_channel(
    voxels: Array, channel: int, padding: Padding, source: str | Path | None
) -> int:
    """Replace what is not finite in one channel; return how many voxels that were."""
    # One slab at a time: a mask of the whole image would cost a quarter of it again.
    slabs = [voxels[:, :, k] for k in range(voxels.shape[2])]
    broken = [k for k, slab in enumerate(slabs) if not np.isfinite(slab).all()]
    if not broken:
        return 0
    lowest = min(_find_lowest(slab) for slab in slabs)
    if lowest == np.inf:
        raise ScanError(
            "no voxel of a channel is a finite number (all are NaN or infinite); check how the "
            "file was made",
            source=source,
        )
    replaced = 0
    for k in broken:
        strange = ~np.isfinite(slabs[k])
        slabs[k][strange] = lowest
        padding.add(k, strange, channel)
        replaced += int(np.count_nonzero(strange))
    return replaced


def _find_lowest(slab: Array) -> float:
    """Return the lowest finite value, infinity where there is none."""
    finite = np.isfinite(slab)
    return float(np.min(slab, where=finite, initial=np.inf))
