"""Tell label maps from the scans they lie beside: by what they are called and what they hold.

Both must say so, or what they hold must be beyond doubt: a scan that is left out by mistake is
worse than a label map that is segmented.
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg._support.gzip import BROKEN_STREAM
from medseg.errors import MedsegError
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
    called = {file for file in files if _is_called_labels(file, root)}
    folders = _measure_folders(file for file in files if file not in called)
    named = {file for file in called if _is_named_label_map(file)}
    others = [file for file in files if file not in called]
    alike = {file for file in others if _resembles_labels(file, folders)}
    with_scans = {file.parent for file in others if file not in alike}
    unnamed = {file for file in alike if _list_near(file) & with_scans}
    scans = [file for file in files if file not in named | unnamed]
    return SortedFiles(
        tuple(scans), tuple(sorted(named)), tuple(sorted(unnamed))
    )


def _is_called_labels(file: Path, root: Path) -> bool:
    stem, _ = split_suffix(file.name)
    _, role = split_role(stem)
    if role in ("label", "prediction"):
        return True
    folders = file.relative_to(root).parts[:-1]
    return any(is_label_word(name) for name in (*folders, stem))


def _list_near(file: Path) -> set[Path]:
    """Return the folders in which the scan of a label map may lie."""
    return {file.parent, file.parent.parent}


def _measure_folders(files: Iterable[Path]) -> Mapping[Path, int]:
    """Return the size of the largest file of each folder."""
    largest: dict[Path, int] = defaultdict(int)
    for file in files:
        size = _get_size(file)
        largest[file.parent] = max(size, largest[file.parent])
    return largest


def _get_size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # reading it will say why
        return 0


def _find_largest_near(file: Path, folders: Mapping[Path, int]) -> int:
    return max(folders.get(folder, 0) for folder in _list_near(file))


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


def _resembles_labels(file: Path, folders: Mapping[Path, int]) -> bool:
    """Tell whether a file holds labels, though nothing says so; most are not read for it."""
    largest = _find_largest_near(file, folders)
    is_small = _get_size(file) * _SUSPICIOUS <= largest
    if not is_small and not _is_monotonous(file):
        return False
    labels = _read(file)
    return labels is not None and holds_labels(labels)


def _is_monotonous(file: Path) -> bool:
    """Tell from a few places of it whether an uncompressed file holds nearly nothing."""
    if file.name.lower().endswith(_COMPRESSED):
        return False
    distance = _get_size(file) // _PROBES
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
    changes = planes[1:] != planes[:-1]
    speckles = changes[1:] & changes[:-1]
    if speckles.sum() > MOST_SPECKLES * changes.sum():
        return False
    is_inside = planes != values[counts.argmax()]
    pairs = is_inside[1:] & is_inside[:-1]
    return bool((changes & pairs).sum() <= MOST_CHANGES * pairs.sum())


def _choose_planes(array: _Labels) -> _Labels:
    """Return some of the planes that hold more than one value."""
    highest, lowest = array.max(axis=(0, 1)), array.min(axis=(0, 1))
    (filled,) = np.nonzero(highest > lowest)
    step = -(-len(filled) // _MOST_PLANES) or 1
    return array[:, :, filled[::step]]
