"""Tell label maps from the scans they lie beside: by what they are called and what they hold.

Both must say so, or what they hold must be beyond doubt: a scan that is left out by mistake is
worse than a label map that is segmented.
"""

from __future__ import annotations

import math
import os
import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg._support.gzip import BROKEN_STREAM
from medseg.errors import MedsegError, ScanError
from medseg.io import read_labels
from medseg.io.itk import read_layers
from medseg.io.nifti_headers import read_header, read_shape
from medseg.names import is_label_word, split_role, split_suffix

MOST_VALUES = 256
"""Of a label map: parcellations of the brain have about a hundred."""

MOST_SPECKLES = 0.15
"""Share of the changes along a line of voxels that are one voxel wide. Label maps have up to 0.12
of them, scans that are stored in eight grey levels from 0.25 on."""

MOST_CHANGES = 0.3
"""Share of neighbours outside the background that differ: structures are several voxels wide."""

FEWEST_GREYS = 32
"""Values in an image of 8 bits at least; most label maps have fewer."""

_GREY = 0.6
"""Of both shares, along two axes, what scans exceed (0.86, and smoothed ones 0.74) and label maps
do not (0.31 with 86 structures in 20 voxels along each axis, 0.48 with 1000 parcels of a cortex).
Along one axis, thick slices of a cortex reach it."""

_SUSPICIOUS = 8
"""From how many times smaller than a scan beside it a file may be a label map."""

_VOXELS_PER_BYTE = 50
"""Gzip makes at least this of a mask, and a tenth of it of a scan."""

_LAYERED = ".seg.nrrd"
_MOST_PLANES = 16
_PROBES = 8
_PROBE_BYTES = 1 << 14
_COMPRESSED = (".gz", ".mgz", ".png", ".jpg", ".jpeg")

_UNREADABLE: tuple[type[Exception], ...] = (MedsegError, *BROKEN_STREAM)
"""What reading a damaged header raises; reading its scan will say what is wrong with it."""

_Labels = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class SortedFiles:
    """Image files, told apart.

    Attributes:
        scans: Scans, and whatever may be one.
        named: Label maps that are called so.
        unnamed: Label maps beside scans whose names do not say so.
    """

    scans: tuple[Path, ...]
    named: tuple[Path, ...] = ()
    unnamed: tuple[Path, ...] = ()


def set_labels_apart(root: Path, files: Sequence[Path]) -> SortedFiles:
    """Tell the label maps among image files from scans.

    A file is a label map if its name or a folder's below ``root`` says so and it holds labels,
    or if it holds labels and lies beside a scan. Few files are read for it: those called label
    maps, and those that are far smaller, or far better compressed, than a scan beside them.

    Args:
        root: The folder that is searched; its own name does not count.
        files: The image files in it and below.
    """
    by_folder: dict[Path, list[str]] = defaultdict(list)
    for file in files:
        by_folder[file.parent].append(file.name)
    search = LabelSearch(root)
    named: set[Path] = set()
    unnamed: set[Path] = set()
    for folder in sorted(by_folder):
        found = search.enter(folder, by_folder[folder])
        named.update(folder / name for name in found.named)
        unnamed.update(folder / name for name in found.unnamed)
    scans = [file for file in files if file not in named | unnamed]
    return SortedFiles(
        tuple(scans), tuple(sorted(named)), tuple(sorted(unnamed))
    )


@dataclass(frozen=True, slots=True)
class FolderLabels:
    """The label maps among the image files of one folder.

    Attributes:
        named: Those that are called so.
        unnamed: Those beside scans whose names do not say so.
    """

    named: Set[str] = frozenset()
    unnamed: Set[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Neighbours:
    """What label maps are compared with, in their own folder or the one above.

    Attributes:
        folder: The folder.
        largest: Size of the largest file in it that is not called a label map.
        has_scans: Whether a scan lies in it.
    """

    folder: Path
    largest: int
    has_scans: bool = False


class LabelSearch:
    """Tells label maps from scans, a folder at a time; the rules are those of ``set_labels_apart``.

    A folder comes before those in it, and these directly after it, as in a walk: nothing is held
    but the folders that a folder lies in.

    Args:
        root: The folder that is searched; its own name does not count.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._above: list[_Neighbours] = []

    def enter(self, folder: Path, names: Sequence[str]) -> FolderLabels:
        """Find the label maps of a folder.

        Args:
            folder: The folder.
            names: Those of the image files in it.
        """
        above = self._find_above(folder)
        called = _find_called(folder, names, self._root)
        others = _Others(folder, [each for each in names if each not in called])
        largest = max(others.largest, above.largest)
        alike = others.find_alike(largest)
        has_scans = len(alike) < len(others.names)
        here = _Neighbours(folder, others.largest, has_scans)
        self._above.append(here)
        return FolderLabels(
            {name for name in called if _is_named_label_map(folder / name)},
            alike if here.has_scans or above.has_scans else frozenset(),
        )

    def _find_above(self, folder: Path) -> _Neighbours:
        """Return what lies in the folder above; forget all that lie elsewhere."""
        while self._above:
            last = self._above[-1]
            if last.folder == folder.parent:
                return last
            if last.folder in folder.parents:
                break
            self._above.pop()
        return _Neighbours(folder.parent, 0)


class _Others:
    """The files of a folder that are not called label maps; there may be very many.

    Args:
        folder: The folder.
        names: Theirs.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder = folder
        self.names = names
        self._sizes = array("Q")
        for name in names:
            self._sizes.append(_get_size(os.path.join(folder, name)))  # noqa: PTH118 - quicker

    @property
    def largest(self) -> int:
        """The size of the largest."""
        return max(self._sizes, default=0)

    def find_alike(self, largest: int) -> Set[str]:
        """Return the names of those that hold labels, though nothing says so.

        Args:
            largest: Bytes of the largest file in this folder and the one above.
        """
        alike = set()
        for name, size in zip(self.names, self._sizes, strict=True):
            is_small = size * _SUSPICIOUS <= largest
            may_be_monotonous = not name.lower().endswith(_COMPRESSED)
            if not is_small and not may_be_monotonous:
                continue
            file = self._folder / name
            if (is_small or _is_monotonous(file, size)) and _has_labels(file):
                alike.add(name)
        return alike


def _find_called(folder: Path, names: Iterable[str], root: Path) -> Set[str]:
    """Return the files that are called label maps, by their names or by a folder's."""
    folders = folder.relative_to(root).parts
    if any(is_label_word(name) for name in folders):
        return set(names)
    return {name for name in names if _is_called_labels(name)}


def _is_called_labels(name: str) -> bool:
    stem, _ = split_suffix(name)
    _, role = split_role(stem)
    return role in ("label", "prediction") or is_label_word(stem)


def _get_size(file: str | Path) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116 - quicker, of very many
    except OSError:  # reading it will say why
        return 0


def _is_named_label_map(file: Path) -> bool:
    """Tell whether a file that is called a label map is one."""
    if _is_nearly_empty(file):
        return True
    labels = _read(file)
    if labels is None:
        return False
    # A mask may be empty, or too small for its shape to say anything.
    mask_values = (0, labels.max())
    is_mask = bool(np.isin(labels, mask_values).all())
    return is_mask or holds_labels(labels)


def _is_nearly_empty(file: Path) -> bool:
    """Tell from its header whether a gzipped NIfTI file has far too few bytes for a scan.

    A hundred masks of each of a thousand scans take hours to read.
    """
    if not file.name.lower().endswith(".nii.gz"):
        return False
    try:
        header, _ = read_header(file)
        shape = read_shape(header, file)
    except _UNREADABLE:
        return False
    return _get_size(file) * _VOXELS_PER_BYTE <= math.prod(shape)


def _has_labels(file: Path) -> bool:
    labels = _read(file)
    return labels is not None and holds_labels(labels)


def _is_monotonous(file: Path, size: int) -> bool:
    """Tell from a few places of it whether an uncompressed file holds nearly nothing."""
    distance = size // _PROBES
    probes = bytearray()
    try:
        with file.open("rb") as stream:
            for number in range(_PROBES):
                stream.seek(number * distance)
                probes += stream.read(_PROBE_BYTES)
    except OSError:  # reading it will say why
        return False
    packed = zlib.compress(probes, level=1)
    return len(packed) * _SUSPICIOUS <= len(probes)


def _read(file: Path) -> _Labels | None:
    """Read a file as a label map, ``(i, j, k)``; ``None`` where it cannot be one.

    Colours are numbered by their red, green and blue, and overlapping segments by all their layers.
    """
    try:
        if file.name.lower().endswith(_LAYERED):
            array = read_layers(file).array
        else:
            array = read_labels(file).array
    except MedsegError:  # of a scan that is broken, its own reading tells
        return None
    if len(array) == 1:
        return np.asarray(array[0])
    weights = 257 ** np.arange(len(array))
    return np.asarray(np.tensordot(weights, array, axes=1))


def holds_labels(array: _Labels) -> bool:
    """Tell whether voxels are labels rather than grey values, by a few of their planes.

    Args:
        array: Whole numbers, shape ``(i, j, k)``.
    """
    planes = _choose_planes(array)
    values, counts = np.unique(planes, return_counts=True)
    if not 2 <= len(values) <= MOST_VALUES:
        return False
    speckles, changes = _measure_texture(planes, values[counts.argmax()])
    return speckles <= MOST_SPECKLES and changes <= MOST_CHANGES


def holds_grey_values(array: _Labels) -> bool:
    """Tell whether voxels are grey values beyond doubt: many, and nearly no two neighbours alike.

    Args:
        array: Whole numbers, shape ``(i, j, k)``.
    """
    planes = _choose_planes(array)
    values, counts = np.unique(planes, return_counts=True)
    if len(values) < FEWEST_GREYS:
        return False
    background = values[counts.argmax()]
    along_first = _measure_texture(planes, background)
    along_second = _measure_texture(planes.swapaxes(0, 1), background)
    return min(*along_first, *along_second) > _GREY


def refuse_grey_values(array: _Labels) -> None:
    """Refuse an image in the place of a label map.

    Args:
        array: Whole numbers, shape ``(i, j, k)``.

    Raises:
        ScanError: If it is one beyond doubt.
    """
    if holds_grey_values(array):
        raise ScanError(
            "its values differ from voxel to voxel as grey values of an image do, and labels do "
            "not; give the label map in its place"
        )


def _measure_texture(
    planes: _Labels, background: np.integer[Any]
) -> tuple[float, float]:
    """Return how speckled planes are, and how much neighbours in structures differ.

    Args:
        planes: Shape ``(i, j, k)``.
        background: The value of what is in no structure.

    Returns:
        Share of the changes along a line that are one voxel wide, and share of the neighbours
        outside the background that differ.
    """
    differs = planes[1:] != planes[:-1]
    speckles = differs[1:] & differs[:-1]
    is_inside = planes != background
    pairs = is_inside[1:] & is_inside[:-1]
    changes = differs & pairs
    return (
        float(speckles.sum() / max(1, differs.sum())),
        float(changes.sum() / max(1, pairs.sum())),
    )


def _choose_planes(array: _Labels) -> _Labels:
    """Return some of the planes that hold more than one value."""
    highest, lowest = array.max(axis=(0, 1)), array.min(axis=(0, 1))
    (filled,) = np.nonzero(highest > lowest)
    step = -(-len(filled) // _MOST_PLANES) or 1
    return array[:, :, filled[::step]]
