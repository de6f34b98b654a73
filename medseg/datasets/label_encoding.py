"""Values and colours of label files → the bundle's label indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medseg.datasets.label_recognition import FEWEST_GREYS, refuse_grey_values
from medseg.datasets.mask_codes import pack, unpack
from medseg.datasets.mask_colours import (
    EXACT,
    JPEG_SUFFIXES,
    EdgeShares,
    SmearedMask,
)
from medseg.errors import ScanError
from medseg.labels import BRIGHTEST, LabelSet
from medseg.names import abbreviate, is_picture
from medseg.volume import Array, Volume

Indices = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""Label indices, shape ``(i, j, k)``; 0 is background."""

MOST_NAMED = 6
"""Unknown values that an error names."""

_SMALLEST_TABLE = 1 << 16
_HIGHEST_COLOUR = 0xFFFFFF

_IndexType = type[np.uint8] | type[np.uint16]
_LookUp = Callable[[Array], Indices]


def describe_label_warnings(label: Volume) -> tuple[str, ...]:
    """Return what the reader of a label map noticed, so that it is told from the image's."""
    return tuple(f"label: {warning}" for warning in label.warnings)


@dataclass(frozen=True, slots=True)
class EncodedMask:
    """A label file as label indices.

    Attributes:
        indices: Shape ``(i, j, k)``.
        edges: How much of it had no label's exact value or colour; nothing in most files.
        warnings: What its reader noticed, and how much was not exact.
    """

    indices: Indices
    edges: EdgeShares = EXACT
    warnings: tuple[str, ...] = ()


def encode_labels(volume: Volume, labels: LabelSet) -> Indices:
    """Do what ``encode_mask`` does, and return the indices alone."""
    return encode_mask(volume, labels).indices


def encode_mask(volume: Volume, labels: LabelSet) -> EncodedMask:
    """Turn the values or colours of a label file into the bundle's label indices.

    Grey holds values, whether it is stored as one channel or as three equal ones; in a picture it
    holds colours where they, and not the values, are the bundle's. All else is colour. In pictures,
    soft and JPEG edges go to the nearest label (``medseg.datasets.mask_colours``).

    Args:
        volume: The label file, integers, shape ``(1, i, j, k)`` or ``(3, i, j, k)``.
        labels: What the bundle calls its values and colours.

    Returns:
        Shape ``(i, j, k)``, uint8 where all indices fit, else uint16. Unannotated voxels have the
        index ``labels.ignore_index``.

    Raises:
        ScanError: If there is a value or colour that the bundle does not have.
    """
    encoded = _encode(volume, labels)
    _refuse_grey_values(volume, labels)
    warnings = describe_label_warnings(volume)
    if encoded.edges != EXACT:
        warnings += (encoded.edges.describe(),)
    return replace(encoded, warnings=warnings)


def _encode(volume: Volume, labels: LabelSet) -> EncodedMask:
    array = volume.array
    if array.dtype.kind not in "bui":
        raise ScanError(
            f"a label map holds integers, this one holds {array.dtype}"
        )
    channels = len(array)
    if channels not in (1, 3):
        raise ScanError(
            f"a label map has 1 channel of values or 3 of colour, this one has {channels}"
        )
    grey = array[0]
    file = Path(volume.source)
    if not all(np.array_equal(grey, channel) for channel in array[1:]):
        return _encode_colours(array, labels, file)
    may_be_colours = channels == 3 or is_picture(file)
    if may_be_colours and _holds_colours(grey, labels):
        colours = np.broadcast_to(grey, (3, *volume.shape))
        return _encode_colours(colours, labels, file)
    return _encode_values(grey, labels, file)


def encode_prediction(prediction: Volume, labels: LabelSet) -> EncodedMask:
    """Return a prediction's label indices; only colours need to be turned into them.

    Raises:
        ScanError: If it holds a value that is no index, or an unknown colour.
    """
    if len(prediction.array) > 1:
        return encode_mask(prediction, labels)
    array: Array = prediction.array[0]
    if array.max() <= len(labels):
        _refuse_grey_values(prediction, labels)
        warnings = describe_label_warnings(prediction)
        return EncodedMask(array, warnings=warnings)
    if labels.colour_coded and is_picture(Path(prediction.source)):
        return encode_mask(prediction, labels)
    raise ScanError(
        f"the prediction holds values up to {array.max()}; label indices 0 to "
        f"{len(labels)} are needed, as in the label maps medseg writes"
    )


def _refuse_grey_values(volume: Volume, labels: LabelSet) -> None:
    """Refuse an image whose grey values happen to be those of labels.

    Raises:
        ScanError: If it is one beyond doubt.
    """
    if len(labels) >= FEWEST_GREYS and len(volume.array) == 1:
        refuse_grey_values(volume.array[0])


def _holds_colours(grey: Array, labels: LabelSet) -> bool:
    """Tell whether greys are colours of the bundle and not its values."""
    greys = set(np.unique(grey).tolist())
    are_values = greys <= labels.values.keys()
    colours = {(grey, grey, grey) for grey in greys}
    are_colours = colours <= labels.colours.keys()
    if labels.colour_coded:
        return are_colours or not are_values
    return are_colours and not are_values


def _encode_values(array: Array, labels: LabelSet, file: Path) -> EncodedMask:
    if array.dtype.kind == "b":
        array = array.view(np.uint8)
    codes = _Codes(labels.values, _index_type(labels))
    lowest = int(array.min())
    highest = int(array.max())
    look_up = codes.make_look_up(lowest, highest, array.size)
    slabs = np.moveaxis(array, -1, 0)
    encoded, unknown = _look_up_slabs(slabs, array.shape, look_up)
    # Grey levels have 8 bits; more bits number objects.
    if unknown and is_picture(file) and highest <= BRIGHTEST:
        encoded = codes.settle(array, encoded.indices, 1, file)
        unknown = codes.count_unknown(array, encoded.indices)
    if unknown:
        counts = _list_counts(unknown, str)
        known = [
            f"{value} ({label.name})"
            for label in labels
            for value in label.values
        ]
        raise ScanError(
            f"the label file holds {counts}; this bundle has 0 (background), "
            f"{abbreviate(known, MOST_NAMED)}. Set the 'value' of the label that is meant in "
            "the bundle, name the value of unannotated voxels in data.ignore, or correct the file"
        )
    return encoded


def _encode_colours(array: Array, labels: LabelSet, file: Path) -> EncodedMask:
    if array.min() < 0 or array.max() > 255:
        raise ScanError(
            "a label map in colours has 8 bits per channel, this one has more"
        )
    index_of = {pack(colour): index for colour, index in labels.colours.items()}
    codes = _Codes(index_of, _index_type(labels))
    packed = _PackedSlabs(array)
    look_up = codes.make_look_up(0, _HIGHEST_COLOUR, packed.size)
    encoded, unknown = _look_up_slabs(packed, packed.shape, look_up)
    if unknown and is_picture(file) and labels.has_own_colours:
        colours = pack(array.astype(np.uint32))
        encoded = codes.settle(colours, encoded.indices, 3, file)
        unknown = codes.count_unknown(colours, encoded.indices)
    if unknown:
        counts = _list_counts(unknown, _format_colour)
        known = [
            f"{colour} ({label.name})"
            for label in labels
            for colour in label.colours
        ]
        raise ScanError(
            f"the label picture holds the colours {counts}; this bundle has (0, 0, 0) "
            f"(background), {abbreviate(known, MOST_NAMED)}. Set the 'colour' of the label "
            "that is meant in the bundle, or correct the picture"
        )
    return encoded


class _PackedSlabs:
    """The colours of a label map as one number each, slab by slab.

    Args:
        array: Shape ``(3, i, j, k)``, 0 to 255.
    """

    def __init__(self, array: Array) -> None:
        self._array = array
        self.shape = array.shape[1:]
        self.size = array[0].size

    def __iter__(self) -> Iterator[npt.NDArray[np.uint32]]:
        for k in range(self.shape[2]):
            slab = self._array[..., k]
            yield pack(slab.astype(np.uint32))


def _index_type(labels: LabelSet) -> _IndexType:
    """Return the type that holds every index, and one more number for what is unknown."""
    count = labels.classes
    if labels.ignore_index is not None:
        count = labels.ignore_index + 1
    return np.uint8 if count <= np.iinfo(np.uint8).max else np.uint16


@dataclass(frozen=True, slots=True)
class _Codes:
    """The codes of a bundle's labels: values, or colours packed into one number.

    Attributes:
        index_of: Code → label index.
        dtype: Of the indices. Its largest number stands for unknown codes.
    """

    index_of: Mapping[int, int]
    dtype: _IndexType

    def make_look_up(self, lowest: int, highest: int, size: int) -> _LookUp:
        """Return what turns an array of codes into indices.

        Args:
            lowest: Of the codes that will be looked up.
            highest: Of these codes.
            size: How many these are.
        """
        # A table is fastest, as long as it is not larger than what is looked up in it.
        fits_a_table = highest < max(size, _SMALLEST_TABLE)
        if lowest >= 0 and fits_a_table:
            return self._make_table(highest)
        return self._make_search()

    @property
    def _unknown(self) -> int:
        return int(np.iinfo(self.dtype).max)

    def settle(
        self, codes: Array, indices: Indices, channels: int, file: Path
    ) -> EncodedMask:
        """Give the unknown voxels of soft and JPEG edges to the nearest labels, in place."""
        is_jpeg = file.suffix.lower() in JPEG_SUFFIXES
        mask = SmearedMask(codes, indices, self._unknown, channels, is_jpeg)
        return EncodedMask(indices, mask.settle(self.index_of))

    def count_unknown(self, codes: Array, indices: Indices) -> Counter[int]:
        """Count the codes that are unknown."""
        return _count_codes(codes[indices == self._unknown])

    def _make_table(self, highest: int) -> _LookUp:
        table: Array = np.full(highest + 1, self._unknown, self.dtype)
        for code, index in self.index_of.items():
            if 0 <= code <= highest:
                table[code] = index

        def look_up(slab: Array) -> Indices:
            indices: Indices = table[slab]
            return indices

        return look_up

    def _make_search(self) -> _LookUp:
        ordered = sorted(self.index_of)
        codes = np.array(ordered)
        known: Array = np.array(
            [self.index_of[code] for code in ordered], self.dtype
        )
        unknown = self.dtype(self._unknown)

        def search(slab: Array) -> Indices:
            places = np.searchsorted(codes, slab)
            places = places.clip(max=len(codes) - 1)
            is_known = codes[places] == slab
            indices: Indices = np.where(is_known, known[places], unknown)
            return indices

        return search


def _look_up_slabs(
    slabs: Iterable[Array], shape: Sequence[int], look_up: _LookUp
) -> tuple[EncodedMask, Counter[int]]:
    """Look every voxel up; return the indices, and the unknown codes with their counts."""
    # Slab by slab, because numpy makes 8-byte integers of whatever it looks up with.
    indices: Indices | None = None
    unknown: Counter[int] = Counter()
    for k, slab in enumerate(slabs):
        encoded = look_up(slab)
        if indices is None:
            indices = np.empty(shape, encoded.dtype, order="F")
        indices[..., k] = encoded
        highest = np.iinfo(encoded.dtype).max
        unknown_codes = slab[encoded == highest]
        unknown += _count_codes(unknown_codes)
    if indices is None:
        raise ScanError("the label map has no slice")
    return EncodedMask(indices), unknown


def _count_codes(codes: Array) -> Counter[int]:
    values, counts = np.unique(codes, return_counts=True)
    count_of = zip(values.tolist(), counts.tolist(), strict=True)
    return Counter(dict(count_of))


def _format_colour(code: int) -> str:
    return str(unpack(code))


def _list_counts(unknown: Counter[int], write: Callable[[int], str]) -> str:
    """Write the unknown values, the most frequent first."""
    texts = [
        f"{write(code)} ({count} voxels)"
        for code, count in unknown.most_common()
    ]
    return abbreviate(texts, MOST_NAMED)
