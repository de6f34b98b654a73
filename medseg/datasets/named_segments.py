"""Labels that are named segments of a ``.seg.nrrd``: mapped by name, case by case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from medseg.datasets.label_values import BACKGROUND
from medseg.datasets.placement import place_on_grid
from medseg.errors import ScanError
from medseg.io.itk import read_layers
from medseg.io.seg_nrrd import Segment, read_segments
from medseg.labels import Code
from medseg.layouts.contract import (
    CaseListing,
    ListedCase,
    Selection,
)
from medseg.layouts.dataset_json import IGNORE
from medseg.layouts.label_names import (
    find_known,
    normalize_label,
    number_names,
)
from medseg.layouts.mask_files import LabelArray, make_empty_labels
from medseg.names import abbreviate
from medseg.volume import Array, Volume

TRUST = "take the file's values as they are with --trust-values"
"""How to go on where names cannot be used."""

_MOST_NAMED = 20
_HIGHEST_VALUE = 65535


@dataclass(frozen=True, slots=True)
class NamedSegments:
    """The labels of one image, in a file that names them.

    Attributes:
        file: The file.
        values: Name → value in the label map, of every label there may be.
    """

    file: Path
    values: Mapping[str, int]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file."""
        return (self.file,)

    @property
    def key(self) -> str:
        """Text that differs where the label map would, with the same file's content."""
        return f"by name {sorted(self.values.items())}"

    def read_label_map(self, image: Volume) -> Volume:
        """Read them as one label map on the image's grid, of which the file may hold a part.

        Args:
            image: The image.

        Returns:
            Unsigned integers, shape ``(1, i, j, k)``.

        Raises:
            ScanError: As ``join_segments``.
            GeometryError: If the file's voxels are not the image's.
        """
        segments = read_segments(self.file)
        joined = join_segments(self.file, segments, self.values)
        return place_segments(joined, image)


def name_segments(
    listing: CaseListing,
    selection: Selection,
    *,
    ignored: Sequence[Code] = (),
    known: Mapping[int, str] = MappingProxyType({}),
) -> None:
    """Let cases whose label file names its segments be read by these names.

    Args:
        listing: The cases; takes the labels' names where there is no bundle yet.
        selection: The labels by name; without any, every segment is a label, numbered by name.
        ignored: What unannotated voxels have in label maps: a segment called ``ignore`` is these.
        known: Value → name of labels that have a value already, where there is no bundle yet.
    """
    if selection.trust_values:
        return
    segments_of = _find_segments(listing.cases)
    if not segments_of:
        return
    values = dict(selection.labels)
    if not values:
        names = {**listing.label_names, **known}
        values = _number_segments(segments_of.values(), names)
        for name, value in values.items():
            names.setdefault(value, name)
        listing.label_names = names
    ignored_values = [code for code in ignored if isinstance(code, int)]
    for value in ignored_values[:1]:
        values.setdefault(IGNORE, value)
    for number, case in enumerate(listing.cases):
        if case.label_source is None and case.label in segments_of:
            source = NamedSegments(case.label, values)
            listing.cases[number] = replace(case, label_source=source)


def _find_segments(
    cases: Iterable[ListedCase],
) -> dict[Path, Sequence[Segment]]:
    """Return the segments of the label files that name some."""
    segments_of: dict[Path, Sequence[Segment]] = {}
    for case in cases:
        if case.label_source is not None:
            continue
        segments = _read_listed_segments(case.label)
        if segments:
            segments_of[case.label] = segments
    return segments_of


def _read_listed_segments(file: Path) -> tuple[Segment, ...]:
    try:
        return read_segments(file)
    except ScanError:
        return ()  # reading the case says what is wrong with it


def _number_segments(
    segments: Iterable[Sequence[Segment]], label_names: Mapping[int, str]
) -> dict[str, int]:
    names: set[str] = set()
    for of_case in segments:
        for segment in of_case:
            names.add(segment.name)
    foreground = []
    for name in sorted(names, key=_get_order):
        if normalize_label(name) != BACKGROUND:
            foreground.append(name)
    return number_names(foreground, label_names)


def _get_order(name: str) -> tuple[str, str]:
    return name.casefold(), name


def place_segments(joined: Volume, image: Volume) -> Volume:
    """Place joined segments on the grid of their image: 3D Slicer crops to what is painted.

    Raises:
        GeometryError: If their voxels are not the image's.
    """
    placed = place_on_grid(joined, image)
    return replace(joined, array=placed[None], affine=image.affine)


def join_segments(
    file: Path,
    segments: Sequence[Segment],
    values: Mapping[str, int],
    advice: str = TRUST,
) -> Volume:
    """Read a file's segments as one label map whose values are those of the names.

    A segment that is not painted anywhere need not be a label. Segments must not overlap.

    Args:
        file: The file.
        segments: What its header says.
        values: Name → value of the labels there may be.
        advice: What a person can do about other names, besides renaming.

    Returns:
        Unsigned integers, shape ``(1, i, j, k)``.

    Raises:
        ScanError: If a painted segment has another name, two overlap, or voxels belong to none.
        GeometryError: If the file's geometry is not that of a grid.
    """
    layers = read_layers(file)
    painted = _find_painted(layers, segments)
    by_name = {BACKGROUND: 0, **values}
    known = find_known([segment.name for segment in painted], by_name)
    others = [segment for segment in painted if segment.name not in known]
    if others:
        names = [f"'{other.name}' = {other.value}" for other in others]
        raise ScanError(
            f"{len(others)} of its segments are called otherwise than the labels, which are "
            f"{abbreviate(values, _MOST_NAMED)}; rename them, or {advice}",
            source=file,
            detail=f"they are {abbreviate(names, _MOST_NAMED)}",
        )
    labels = make_empty_labels(layers, known)
    for number, layer in enumerate(layers.array):
        highest = int(layer.max())
        table = np.zeros(highest + 1, labels.dtype)
        for segment in painted:
            if segment.layer == number:
                table[segment.value] = known[segment.name]
        _paint(labels, table[layer], file)
    return replace(layers, array=labels[None])


def _find_painted(layers: Volume, segments: Sequence[Segment]) -> list[Segment]:
    """Return the segments that some voxel has.

    Raises:
        ScanError: If a voxel has a value that is no segment's.
    """
    by_place = {(segment.layer, segment.value): segment for segment in segments}
    painted = []
    for number, layer in enumerate(layers.array):
        if layer.max() > _HIGHEST_VALUE:
            raise ScanError(
                f"its values go up to {layer.max()}; those of segments end at {_HIGHEST_VALUE}",
                source=layers.source,
            )
        for value in _find_values(layer):
            if (number, value) not in by_place:
                raise ScanError(
                    f"holds the value {value}, which is none of its segments'; save the "
                    "segmentation again",
                    source=layers.source,
                )
            painted.append(by_place[number, value])
    return painted


def _find_values(layer: Array) -> list[int]:
    counts: npt.NDArray[np.intp] = np.bincount(layer.ravel(order="K"))
    values: list[int] = np.flatnonzero(counts).tolist()
    return [value for value in values if value > 0]


def _paint(labels: LabelArray, added: LabelArray, file: Path) -> None:
    """Add a layer to a label map, in place.

    Raises:
        ScanError: If it covers another label.
    """
    in_both = (labels > 0) & (added > 0) & (labels != added)
    count = np.count_nonzero(in_both)
    if count:
        raise ScanError(
            f"its segments overlap in {count} voxels, and a label map holds one label per voxel; "
            "correct them, or remove one of them",
            source=file,
        )
    np.maximum(labels, added, out=labels)
