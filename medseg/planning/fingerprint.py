"""What the cases of a data set look like: sizes, spacings, intensities, labels and their pieces.

Each case is opened once, and what was seen is kept on disk under a hash of its content: a second
look at the same files costs no more than reading them. No name and no pixel is kept.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg._support.files import write_atomically
from medseg.datasets.cases import Case, CaseList, Scan
from medseg.errors import Fault, ScanError
from medseg.events import Listener, Progress, notify
from medseg.inference.hashes import hash_scan
from medseg.io import read_image, stack_channels
from medseg.volume import Array, Volume

TASK = "surveying cases"
"""The chore's name in progress events."""

QUANTILES = np.linspace(0, 1, 201)
"""At which the intensities inside the labels are kept."""

MOST_VALUES = 1000
"""More values in one label file are no labels."""

_VERSION = 1
_MOST_LISTED = 65535
_MOST_WORKERS = 4
_MOST_SAMPLES = 1_000_000
"""Voxels looked at per channel: a quantile needs no more."""


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """One channel of one case.

    Attributes:
        lowest: Of all voxels.
        highest: Of all voxels.
        high: The 99.5 % quantile of all voxels.
        zeros: Share of voxels that are 0.
        labelled: Quantiles of the labelled voxels, at ``QUANTILES``; empty without labels.
    """

    lowest: float
    highest: float
    high: float
    zeros: float
    labelled: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LabelStatistics:
    """One label value of one case.

    Attributes:
        value: In the label file.
        voxels: How many have it.
        pieces: Connected components.
        largest: Voxels of the largest of them.
    """

    value: int
    voxels: int
    pieces: int
    largest: int


@dataclass(frozen=True, slots=True)
class CaseFingerprint:
    """One case, turned to RAS.

    Attributes:
        shape: Voxels along right, anterior and superior.
        spacing: Voxel size in mm along the same.
        channels: Each channel.
        labels: Each label value that occurs, background left out.
        box: Share of the image in the smallest box around its non-zero voxels; 1 where labels
            lie outside it.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    channels: tuple[ChannelStatistics, ...]
    labels: tuple[LabelStatistics, ...]
    box: float

    @property
    def voxels(self) -> int:
        """Of the image."""
        return int(np.prod(self.shape))


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the cases look like.

    Attributes:
        cases: The good ones.
        faults: Why the others cannot be used.
    """

    cases: tuple[CaseFingerprint, ...]
    faults: tuple[Fault, ...]

    @property
    def spacings(self) -> npt.NDArray[np.float64]:
        """Shape ``(cases, 3)``."""
        return np.array([case.spacing for case in self.cases])

    @property
    def values(self) -> tuple[int, ...]:
        """Every label value that occurs."""
        return tuple(sorted({label.value for case in self.cases for label in case.labels}))

    def label(self, value: int) -> tuple[LabelStatistics, ...]:
        """Return a label in each case that has it."""
        return tuple(la for case in self.cases for la in case.labels if la.value == value)

    def labelled(self, channel: int) -> npt.NDArray[np.float64]:
        """Return a channel's labelled intensities, of each case as many."""
        found = [case.channels[channel].labelled for case in self.cases]
        return np.array([value for one in found for value in one])

    def shapes_at(self, spacing: Sequence[float]) -> npt.NDArray[np.float64]:
        """Return each case's size in voxels of another spacing, shape ``(cases, 3)``."""
        sizes: npt.NDArray[np.float64] = np.array(
            [np.multiply(case.shape, case.spacing) / spacing for case in self.cases]
        )
        return sizes


def extract_fingerprint(
    found: CaseList,
    cache: Path,
    listeners: Iterable[Listener] = (),
    ignore: int | None = None,
) -> Fingerprint:
    """Look at every case once.

    Args:
        found: The cases; their faults are carried on.
        cache: Folder of what was seen before.
        listeners: Hear the progress, in the calling thread.
        ignore: The value of voxels that nobody annotated, which are no label.

    Returns:
        What was seen, and what is wrong with the cases that cannot be used: among them those with
        another number of channels than most.

    Raises:
        OutputError: If the cache cannot be written.
    """
    listeners = tuple(listeners)
    good: dict[str, CaseFingerprint] = {}
    faults = list(found.faults)
    notify(listeners, Progress(TASK, 0, len(found.cases)))
    workers = min(_MOST_WORKERS, max(2, os.cpu_count() or 2))
    with ThreadPoolExecutor(workers, thread_name_prefix=TASK) as pool:
        seen = pool.map(lambda case: _looked_up(case, cache, ignore), found.cases)
        for done, (case, one) in enumerate(zip(found.cases, seen, strict=True), start=1):
            if isinstance(one, CaseFingerprint):
                good[case.name] = one
            else:
                faults.append(Fault(case.name, one))
            notify(listeners, Progress(TASK, done, len(found.cases)))
    kept, odd = _alike(good)
    return Fingerprint(kept, (*faults, *odd))


def _alike(good: Mapping[str, CaseFingerprint]) -> tuple[tuple[CaseFingerprint, ...], list[Fault]]:
    """Set aside cases with another number of channels than most, each by name."""
    often = Counter(len(case.channels) for case in good.values())
    usual = max(often, key=lambda number: often[number], default=0)
    kept = tuple(case for case in good.values() if len(case.channels) == usual)
    return kept, [
        Fault(name, f"its channels: {len(case.channels)}, where most cases have {usual}")
        for name, case in good.items()
        if len(case.channels) != usual
    ]


def _looked_up(case: Case, cache: Path, ignore: int | None) -> CaseFingerprint | str:
    """Return what is known of a case, or why it cannot be used."""
    try:
        labels = ((file,) for file in case.label_files)
        whole = Scan(case.name, (*case.scan.parts, *labels), _read_as(case))
        without = "" if ignore is None else f"-without-{ignore}"
        file = cache / f"{hash_scan(whole)}{without}.json"
        known = _read(file)
        if known is None:
            known = inspect_case(case, ignore)
            write_atomically(file, json.dumps(asdict(known) | {"version": _VERSION}))
        return known
    except ScanError as error:
        return str(error)
    except Exception as error:
        error.add_note(f"while looking at the case {case.name}")
        raise


def _read_as(case: Case) -> str:
    """Return what decides how a case's files are read, besides themselves; usually nothing."""
    return case.scan.volume + (case.structures.key if case.structures else "")


def _read(file: Path) -> CaseFingerprint | None:
    """Return what a file says; ``None`` where there is none, or one that was not written whole."""
    try:
        content = json.loads(file.read_text())
        if content.pop("version") != _VERSION:
            return None
        return CaseFingerprint(
            shape=tuple(content["shape"]),
            spacing=tuple(content["spacing"]),
            channels=tuple(
                ChannelStatistics(**(one | {"labelled": tuple(one["labelled"])}))
                for one in content["channels"]
            ),
            labels=tuple(LabelStatistics(**one) for one in content["labels"]),
            box=content["box"],
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # it is made anew


def inspect_case(case: Case, ignore: int | None = None) -> CaseFingerprint:
    """Open a case and note what it looks like.

    Args:
        case: The case.
        ignore: The value of voxels that nobody annotated, which are no label.

    Raises:
        ScanError: If it cannot be read, or image and label do not fit each other.
    """
    parts = case.scan.parts
    image = stack_channels([read_image(part, volume=case.scan.volume) for part in parts])
    label = case.read_label(image)
    image.require_same_grid(label, "the image and its label map")
    labels = _values(label)
    if ignore is not None:
        labels = np.where(labels == ignore, 0, labels).astype(labels.dtype)
    turn = nib.orientations.io_orientation(image.affine)[:, 0].astype(int)
    along = np.argsort(turn)  # voxel axis of right, anterior, superior
    inside = labels > 0
    return CaseFingerprint(
        shape=tuple(image.shape[axis] for axis in along),  # type: ignore[arg-type]
        spacing=tuple(float(image.spacing[axis]) for axis in along),  # type: ignore[arg-type]
        channels=tuple(_channel(voxels, inside) for voxels in image.array),
        labels=tuple(_labels(labels)),
        box=_box(image, inside),
    )


def _values(label: Volume) -> Array:
    first: Array
    first, *others = label.array
    if any((first != other).any() for other in others):
        raise ScanError(
            "the label is a picture in colours, whose meaning cannot be planned; write the "
            "labels with their colours into a bundle.json by hand"
        )
    return first


def _channel(voxels: Array, inside: npt.NDArray[np.bool_]) -> ChannelStatistics:
    step = max(1, voxels.size // _MOST_SAMPLES)
    sample = voxels.ravel(order="K")[::step]
    labelled = voxels[inside]
    labelled = labelled[:: max(1, labelled.size // _MOST_SAMPLES)]
    quantiles = np.quantile(labelled, QUANTILES).tolist() if labelled.size else []
    return ChannelStatistics(
        lowest=float(voxels.min()),
        highest=float(voxels.max()),
        high=float(np.quantile(sample, 0.995)),
        zeros=float((sample == 0).mean()),
        labelled=tuple(round(value, 6) for value in quantiles),
    )


def _labels(labels: Array) -> Iterator[LabelStatistics]:
    values = np.unique(labels)
    if len(values) > MOST_VALUES:
        raise ScanError(f"the label holds {len(values)} different values; it is no label map")
    present = [int(value) for value in values if value > 0]
    wide = values[-1] > _MOST_LISTED
    boxes = [] if wide else ndimage.find_objects(labels)
    for value in present:
        # Of wide values the list of boxes would be as long as the largest.
        box = (slice(None),) * 3 if wide else boxes[value - 1]
        mask = labels[box] == value
        pieces, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel())[1:]
        yield LabelStatistics(value, int(mask.sum()), int(count), int(sizes.max()))


def _box(image: Volume, inside: npt.NDArray[np.bool_]) -> float:
    """Return the share of the image in the box around what is not zero."""
    if image.array.min() < 0:
        return 1.0
    above: npt.NDArray[np.bool_] = np.any(image.array > 0, axis=0)
    found = ndimage.find_objects(above.astype(np.uint8))
    if not found or found[0] is None:
        return 1.0
    box: Any = found[0]
    if inside.sum() != inside[box].sum():
        return 1.0
    return float(above[box].size / above.size)
