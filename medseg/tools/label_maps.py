"""Label files → label indices, and whether a label lies on its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.tools.naming import is_picture
from medseg.words.errors import GeometryError, ScanError
from medseg.words.labels import LabelSet
from medseg.words.volume import Volume

Indices = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""Label indices, shape ``(i, j, k)``; 0 is background."""

MOST_NAMED = 6
"""Unknown values that an error names."""

_UNKNOWN = np.iinfo(np.uint16).max  # no bundle has as many labels
_LARGEST_TABLE = 1 << 24  # every packed 8-bit colour fits
_COLOUR_WEIGHTS = (1 << 16, 1 << 8, 1)


def encode_labels(volume: Volume, labels: LabelSet) -> Indices:
    """Turn the values or colours of a label file into the bundle's label indices.

    Grey holds values, whether it is stored as one channel or as three equal ones; in a picture it
    holds colours where they, and not the values, are the bundle's. All else is colour.

    Args:
        volume: The label file, integers, shape ``(1, i, j, k)`` or ``(3, i, j, k)``.
        labels: What the bundle calls its values and colours.

    Returns:
        Shape ``(i, j, k)``, uint8 where all indices fit, else uint16.

    Raises:
        ScanError: If there is a value or colour that the bundle does not have.
    """
    array = volume.array
    if array.dtype.kind not in "bui":
        raise ScanError(f"a label map holds integers, this one holds {array.dtype}")
    if len(array) not in (1, 3):
        raise ScanError(
            f"a label map has 1 channel of values or 3 of colour, this one has {len(array)}"
        )
    if any((array[0] != other).any() for other in array[1:]):
        return _by_colour(array, labels)
    if (len(array) == 3 or is_picture(Path(volume.source))) and _is_coloured(array[0], labels):
        return _by_colour(np.broadcast_to(array[0], (3, *volume.shape)), labels)
    return _by_value(array[0], labels)


def _is_coloured(grey: npt.NDArray[Any], labels: LabelSet) -> bool:
    """Tell whether greys are colours of the bundle and not its values."""
    values, colours = labels.values, labels.colours
    there = np.unique(grey).tolist()
    return any(v not in values for v in there) and all((v, v, v) in colours for v in there)


def check_same_grid(image: Volume, label: Volume) -> None:
    """Check that every voxel of ``label`` lies on the same voxel of ``image``.

    Raises:
        GeometryError: If their shapes or places differ; it says by how much.
    """
    if label.shape != image.shape:
        raise GeometryError(
            f"the label has {_times(label.shape)} voxels and the image {_times(image.shape)}; "
            "they must lie on one grid"
        )
    if not image.on_same_grid(label):
        raise GeometryError(
            f"the label lies up to {image.grid_distance(label):.3g} mm away from the image, "
            "though they have as many voxels; they must lie on one grid (is one of them "
            "flipped, or from another scan?)"
        )


def _by_value(array: npt.NDArray[Any], labels: LabelSet) -> Indices:
    indices, unknown = _looked_up(array, labels.values)
    if unknown:
        raise ScanError(
            f"the label file holds {_listed([(str(v), n) for v, n in unknown])}; this bundle has "
            f"0 (background), {_known([(label.name, str(label.value)) for label in labels])}. Give "
            "the label that is meant its 'value' in the bundle, or correct the file"
        )
    return _narrowed(indices, labels)


def _by_colour(array: npt.NDArray[Any], labels: LabelSet) -> Indices:
    if array.min() < 0 or array.max() > 255:
        raise ScanError("a label map in colours has 8 bits per channel, this one has more")
    packed = sum(
        channel.astype(np.uint32) * weight
        for channel, weight in zip(array, _COLOUR_WEIGHTS, strict=True)
    )
    known = {_packed(colour): index for colour, index in labels.colours.items()}
    indices, unknown = _looked_up(np.asarray(packed), known)
    if unknown:
        named = [(str(_unpacked(colour)), count) for colour, count in unknown]
        have = _known([(label.name, str(label.colour)) for label in labels])
        raise ScanError(
            f"the label picture holds the colours {_listed(named)}; this bundle has (0, 0, 0) "
            f"(background), {have}. Give the label that is meant its 'colour' in the bundle, or "
            "correct the picture"
        )
    return _narrowed(indices, labels)


def _looked_up(
    array: npt.NDArray[Any], index_of: Mapping[int, int]
) -> tuple[npt.NDArray[np.uint16], list[tuple[int, int]]]:
    """Look every voxel up; return the indices, and the unknown values with their counts."""
    if array.dtype.kind == "b":
        array = array.view(np.uint8)
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= _LARGEST_TABLE:
        values, places = np.unique(array, return_inverse=True)
        table = [index_of.get(value, _UNKNOWN) for value in values.tolist()]
        indices = np.array(table, np.uint16)[places.reshape(array.shape)]
    else:
        table_of_all = np.full(high + 1, _UNKNOWN, np.uint16)
        for value, index in index_of.items():
            if value <= high:
                table_of_all[value] = index
        indices = table_of_all[array]
    if int(indices.max()) != _UNKNOWN:
        return indices, []
    values, counts = np.unique(array[indices == _UNKNOWN], return_counts=True)
    return indices, list(zip(values.tolist(), counts.tolist(), strict=True))


def _narrowed(indices: npt.NDArray[np.uint16], labels: LabelSet) -> Indices:
    return indices.astype(np.uint8) if labels.channels <= 256 else indices


def _packed(colour: tuple[int, int, int]) -> int:
    return sum(part * weight for part, weight in zip(colour, _COLOUR_WEIGHTS, strict=True))


def _unpacked(colour: int) -> tuple[int, int, int]:
    red, green, blue = (colour // weight % 256 for weight in _COLOUR_WEIGHTS)
    return red, green, blue


def _listed(unknown: Sequence[tuple[str, int]]) -> str:
    """Write the unknown values, the most frequent first."""
    often = sorted(unknown, key=lambda item: -item[1])
    rest = len(often) - MOST_NAMED
    named = [f"{value} ({count} voxels)" for value, count in often[:MOST_NAMED]]
    return ", ".join(named) + (f" and {rest} more" if rest > 0 else "")


def _known(labels: Sequence[tuple[str, str]]) -> str:
    rest = len(labels) - MOST_NAMED
    named = [f"{value} ({name})" for name, value in labels[:MOST_NAMED]]
    return ", ".join(named) + (f" and {rest} more" if rest > 0 else "")


def _times(shape: Sequence[int]) -> str:
    return "×".join(str(size) for size in shape)
