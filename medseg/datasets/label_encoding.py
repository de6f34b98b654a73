"""Label files → label indices, and whether a label lies on its image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.datasets.names import abbreviate, is_picture
from medseg.errors import ScanError
from medseg.labels import LabelSet
from medseg.volume import Array, Volume

Indices = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""Label indices, shape ``(i, j, k)``; 0 is background."""

MOST_NAMED = 6
"""Unknown values that an error names."""

_SMALLEST_TABLE = 1 << 16

Finder = Callable[[npt.NDArray[Any]], Indices]


def encode_labels(volume: Volume, labels: LabelSet) -> Indices:
    """Turn the values or colours of a label file into the bundle's label indices.

    Grey holds values, whether it is stored as one channel or as three equal ones; in a picture it
    holds colours where they, and not the values, are the bundle's. All else is colour.

    Args:
        volume: The label file, integers, shape ``(1, i, j, k)`` or ``(3, i, j, k)``.
        labels: What the bundle calls its values and colours.

    Returns:
        Shape ``(i, j, k)``, uint8 where all indices fit, else uint16. Voxels that nobody annotated
        have the index ``labels.ignore_index``.

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


def encode_prediction(prediction: Volume, labels: LabelSet) -> Array:
    """Return a prediction's label indices ``(i, j, k)``; only colours need to be turned into them.

    Raises:
        ScanError: If it holds a value that is no index, or an unknown colour.
    """
    if len(prediction.array) > 1:
        return encode_labels(prediction, labels)
    array: Array = prediction.array[0]
    if array.max() > len(labels):
        raise ScanError(
            f"the prediction holds values up to {array.max()}; label indices 0 to "
            f"{len(labels)} are needed, as in the label maps medseg writes"
        )
    return array


def _is_coloured(grey: npt.NDArray[Any], labels: LabelSet) -> bool:
    """Tell whether greys are colours of the bundle and not its values."""
    values, colours = labels.values, labels.colours
    there = np.unique(grey).tolist()
    return any(v not in values for v in there) and all((v, v, v) in colours for v in there)


def _by_value(array: npt.NDArray[Any], labels: LabelSet) -> Indices:
    array = array.view(np.uint8) if array.dtype.kind == "b" else array
    find = _finder(labels.values, labels, array.size, int(array.min()), int(array.max()))
    indices, unknown = _looked_up((array[..., k] for k in range(array.shape[2])), array.shape, find)
    if unknown:
        named = [(str(value), count) for value, count in unknown.most_common()]
        have = [f"{label.value} ({label.name})" for label in labels]
        raise ScanError(
            f"the label file holds {_listed(named)}; this bundle has 0 (background), "
            f"{abbreviate(have, MOST_NAMED)}. Give the label that is meant its 'value' in the "
            "bundle, name in data.ignore what nobody annotated, or correct the file"
        )
    return indices


def _by_colour(array: npt.NDArray[Any], labels: LabelSet) -> Indices:
    if array.min() < 0 or array.max() > 255:
        raise ScanError("a label map in colours has 8 bits per channel, this one has more")
    known = {_packed(colour): index for colour, index in labels.colours.items()}
    find = _finder(known, labels, array[0].size, 0, _packed((255, 255, 255)))
    slabs = (_packed(array[..., k].astype(np.uint32)) for k in range(array.shape[3]))
    indices, unknown = _looked_up(slabs, array.shape[1:], find)
    if unknown:
        named = [(str(_unpacked(colour)), count) for colour, count in unknown.most_common()]
        have = [f"{label.colour} ({label.name})" for label in labels]
        raise ScanError(
            f"the label picture holds the colours {_listed(named)}; this bundle has (0, 0, 0) "
            f"(background), {abbreviate(have, MOST_NAMED)}. Give the label that is meant its "
            "'colour' in the bundle, or correct the picture"
        )
    return indices


def _finder(
    index_of: Mapping[int, int], labels: LabelSet, size: int, lowest: int, highest: int
) -> Finder:
    """Return what turns an array of codes into indices, the largest number for unknown ones.

    Args:
        index_of: Code → label index.
        labels: Their number decides between uint8 and uint16.
        size: How many codes will be looked up.
        lowest: Of the codes.
        highest: Of the codes.
    """
    most = labels.classes if labels.ignore_index is None else labels.ignore_index + 1
    kind = np.uint8 if most <= np.iinfo(np.uint8).max else np.uint16
    unknown = np.iinfo(kind).max
    if lowest >= 0 and highest < max(size, _SMALLEST_TABLE):
        table = np.full(highest + 1, unknown, kind)
        for code, index in index_of.items():
            if code <= highest:
                table[code] = index

        def look_up(slab: npt.NDArray[Any]) -> Indices:
            found: Indices = table[slab]
            return found

        return look_up
    known = np.array(sorted(index_of))
    indices = np.array([index_of[code] for code in known.tolist()], kind)

    def search(slab: npt.NDArray[Any]) -> Indices:
        places = np.searchsorted(known, slab).clip(max=len(known) - 1)
        found: Indices = np.where(known[places] == slab, indices[places], kind(unknown))
        return found

    return search


def _looked_up(
    slabs: Iterable[npt.NDArray[Any]], shape: Sequence[int], find: Finder
) -> tuple[Indices, Counter[int]]:
    """Look every voxel up; return the indices, and the unknown codes with their counts."""
    # Slab by slab, because numpy makes 8-byte integers of whatever it looks up with.
    indices: Indices | None = None
    unknown: Counter[int] = Counter()
    for k, slab in enumerate(slabs):
        found = find(slab)
        if indices is None:
            indices = np.empty(shape, found.dtype, order="F")
        indices[..., k] = found
        strange = slab[found == np.iinfo(found.dtype).max]
        for code, count in zip(*np.unique(strange, return_counts=True), strict=True):
            unknown[int(code)] += int(count)
    if indices is None:
        raise ScanError("the label map has no slice")
    return indices, unknown


def _packed(colour: Any) -> Any:
    """Make one number of a colour, or of each colour in an array of 4-byte integers."""
    red, green, blue = colour
    return (red << 16) + (green << 8) + blue


def _unpacked(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


def _listed(unknown: Sequence[tuple[str, int]]) -> str:
    """Write the unknown values, the most frequent first."""
    return abbreviate([f"{value} ({count} voxels)" for value, count in unknown], MOST_NAMED)
