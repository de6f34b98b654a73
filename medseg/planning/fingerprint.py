"""The fingerprint of a data set: sizes, spacings, intensities and labels of its cases.

Each case is opened once, and what was measured is cached on disk under a hash of its files'
content: planning the same data again costs no more than reading them. The cache holds neither
names nor voxels.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg._support.files import write_atomically
from medseg.datasets.case_warnings import list_warnings
from medseg.datasets.cases import Case, CaseList, Scan
from medseg.datasets.input_checks import refuse_constant
from medseg.datasets.label_encoding import (
    describe_label_warnings,
    encode_mask,
)
from medseg.datasets.mask_codes import pack
from medseg.datasets.measures import CaseMeasures, measure_case
from medseg.errors import Fault, ScanError
from medseg.events import Listener, Progress, notify
from medseg.inference.hashes import hash_scan
from medseg.io import read_image, stack_channels
from medseg.labels import LabelSet
from medseg.volume import Array, Volume

TASK = "inspecting cases"
"""The name under which progress is reported."""

QUANTILES = np.linspace(0, 1, 201)
"""At which the foreground's intensities are kept."""

MAX_LABEL_VALUES = 1000
"""A file with more different values is not a label map."""

_CACHE_VERSION = 5
_MAX_LISTED_VALUE = 65535
_MAX_WORKERS = 4
_MAX_SAMPLES = 1_000_000
"""Voxels sampled per channel: a quantile needs no more."""


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """Intensities of one channel of one case.

    Attributes:
        minimum: Of all voxels, but for padding.
        maximum: Of the same.
        percentile_99_5: Of the same.
        foreground: Quantiles of the labelled voxels, at ``QUANTILES``; empty without labels.
    """

    minimum: float
    maximum: float
    percentile_99_5: float
    foreground: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LabelStatistics:
    """One label value of one case.

    Attributes:
        value: In the label file; in colour-coded ones, its first colour packed into a number.
        voxels: How many have it.
        components: Connected components; voxels that share a corner are connected.
    """

    value: int
    voxels: int
    components: int


@dataclass(frozen=True, slots=True)
class CaseFingerprint:
    """One case, its axes reordered to right, anterior, superior.

    Attributes:
        shape: Voxels along right, anterior and superior.
        spacing: Voxel size in mm along the same.
        channels: Each channel.
        labels: Each label value that occurs, background left out.
        nonzero_share: Share of the image in the bounding box of its non-zero voxels; 1 where
            labels lie outside it.
        warnings: What the readers of its image and its label map noticed.
        measures: What it is compared with the other cases by.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    channels: tuple[ChannelStatistics, ...]
    labels: tuple[LabelStatistics, ...]
    nonzero_share: float
    warnings: tuple[str, ...] = ()
    measures: CaseMeasures | None = None

    @property
    def voxels(self) -> int:
        """Of the image."""
        return math.prod(self.shape)

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing))

    @property
    def extent_mm(self) -> npt.NDArray[np.float64]:
        """Size of the image along right, anterior and superior."""
        return np.multiply(self.shape, self.spacing)

    def find_label(self, value: int) -> LabelStatistics | None:
        """Return the statistics of a label; ``None`` if the case does not have it."""
        for label in self.labels:
            if label.value == value:
                return label
        return None


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The fingerprint of a data set.

    Attributes:
        cases: Those that can be used.
        faults: Why the others cannot.
        warnings: What the readers of the cases' files noticed, with the cases' names. Shown and
            never recorded.
        names: Of the cases. Never recorded.
        apart: Names of the cases that lie apart from the others in voxel size or intensities:
            sizes and intensities are those of the others.
    """

    cases: tuple[CaseFingerprint, ...]
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    apart: frozenset[str] = frozenset()

    @property
    def typical(self) -> tuple[CaseFingerprint, ...]:
        """The cases that do not lie apart from the others."""
        if not self.apart:
            return self.cases
        by_name = zip(self.names, self.cases, strict=True)
        return tuple(case for name, case in by_name if name not in self.apart)

    @property
    def spacings(self) -> npt.NDArray[np.float64]:
        """Of the typical cases, shape ``(cases, 3)``, in mm."""
        return np.array([case.spacing for case in self.typical])

    @property
    def channel_count(self) -> int:
        """How many channels each case has."""
        return len(self.cases[0].channels)

    @property
    def label_values(self) -> tuple[int, ...]:
        """Every label value that occurs, in order."""
        values: set[int] = set()
        for case in self.cases:
            values.update(label.value for label in case.labels)
        return tuple(sorted(values))

    def find_label_statistics(self, value: int) -> list[LabelStatistics]:
        """Return the statistics of a label in each case that has it."""
        statistics = []
        for case in self.cases:
            label = case.find_label(value)
            if label is not None:
                statistics.append(label)
        return statistics

    def list_label_volumes_mm3(self, value: int) -> list[float]:
        """Return the volume of a label in each typical case that has it, or else in any."""
        having = [case for case in self.typical if case.find_label(value)]
        volumes = []
        for case in having or self.cases:
            label = case.find_label(value)
            if label is not None:
                volumes.append(label.voxels * case.voxel_mm3)
        return volumes

    def collect_foreground_intensities(
        self, channel: int
    ) -> npt.NDArray[np.float64]:
        """Return a channel's intensities inside the labels, equally many of each typical case."""
        intensities: list[float] = []
        for case in self.typical:
            intensities.extend(case.channels[channel].foreground)
        return np.array(intensities)

    def compute_shapes_at(
        self, spacing: Sequence[float]
    ) -> npt.NDArray[np.float64]:
        """Return each typical case's size in voxels of another spacing, ``(cases, 3)``."""
        shapes = [case.extent_mm / spacing for case in self.typical]
        return np.array(shapes)


def extract_fingerprint(
    case_list: CaseList,
    cache: Path,
    listeners: Iterable[Listener] = (),
    ignore: int | None = None,
    labels: LabelSet | None = None,
) -> Fingerprint:
    """Inspect every case once.

    Args:
        case_list: The cases; their faults are passed on.
        cache: The folder in which fingerprints of cases are kept.
        listeners: Told of progress, in the calling thread.
        ignore: The value of unlabelled voxels (the ignore label), which is not a label.
        labels: How label files show labels, where not each value is one.

    Returns:
        The fingerprint, and the faults of the cases that cannot be used: among them those with
        another number of channels than most.

    Raises:
        OutputError: If the cache cannot be written.
    """
    listeners = tuple(listeners)
    total = len(case_list.cases)
    usable: dict[str, CaseFingerprint] = {}
    faults = list(case_list.faults)
    notify(listeners, Progress(TASK, 0, total))
    workers = min(_MAX_WORKERS, max(2, os.cpu_count() or 2))
    with ThreadPoolExecutor(workers, thread_name_prefix=TASK) as pool:
        results = pool.map(
            partial(
                _load_or_inspect, cache=cache, ignore=ignore, labels=labels
            ),
            case_list.cases,
        )
        for done, (case, result) in enumerate(
            zip(case_list.cases, results, strict=True), start=1
        ):
            if isinstance(result, Fault):
                faults.append(result)
            else:
                usable[case.name] = result
            notify(listeners, Progress(TASK, done, total))
    faults.extend(_remove_unusual_cases(usable))
    oddities = {name: case.warnings for name, case in usable.items()}
    warnings = list_warnings(oddities, len(usable))
    return Fingerprint(
        tuple(usable.values()), tuple(faults), tuple(warnings), tuple(usable)
    )


def _remove_unusual_cases(cases: dict[str, CaseFingerprint]) -> list[Fault]:
    """Remove cases with another number of channels than most; return why, for each."""
    channels = {name: len(case.channels) for name, case in cases.items()}
    counts = Counter(channels.values())
    usual, _ = max(counts.items(), key=lambda item: item[1], default=(0, 0))
    faults = []
    for name, count in channels.items():
        if count != usual:
            what = f"has {count} channels, while most cases have {usual}"
            faults.append(Fault(name, what))
            del cases[name]
    return faults


def _load_or_inspect(
    case: Case, cache: Path, ignore: int | None, labels: LabelSet | None
) -> CaseFingerprint | Fault:
    """Return a case's fingerprint, from the cache if it is there, or why it cannot be used."""
    try:
        file = _get_cache_file(case, cache, ignore, labels)
        fingerprint = _read_cached(file)
        if fingerprint is None:
            fingerprint = inspect_case(case, ignore, labels)
            write_atomically(file, json.dumps(_make_content(fingerprint)))
        return fingerprint
    except ScanError as error:
        return Fault.from_error(case.name, error)
    except Exception as error:
        error.add_note(f"while inspecting the case {case.name}")
        raise


def _get_cache_file(
    case: Case, cache: Path, ignore: int | None, labels: LabelSet | None
) -> Path:
    """Return where a case's fingerprint is kept: under a hash of all that it depends on."""
    # What decides how the files are read, besides themselves: which volume of a file with
    # several, and which structures of DICOM objects or masks are labels.
    reading = case.scan.volume
    if case.label_source:
        reading += case.label_source.key
    label_files = [(file,) for file in case.label_files]
    files = (*case.scan.parts, *label_files)
    if labels is not None:
        reading += repr((labels.values, labels.colours, labels.colour_coded))
    digest = hash_scan(Scan(case.name, files, reading))
    if ignore is None:
        return cache / f"{digest}.json"
    return cache / f"{digest}-without-{ignore}.json"


def _make_content(fingerprint: CaseFingerprint) -> dict[str, Any]:
    """Return what the cache keeps of a case."""
    content = asdict(replace(fingerprint, measures=None))
    content["version"] = _CACHE_VERSION
    if fingerprint.measures is not None:
        content["measures"] = fingerprint.measures.to_json()
    return content


def _read_cached(file: Path) -> CaseFingerprint | None:
    """Return a cached fingerprint; ``None`` if there is none, or it is damaged or outdated."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("version") != _CACHE_VERSION:
            return None
        return CaseFingerprint(
            shape=tuple(content["shape"]),
            spacing=tuple(content["spacing"]),
            channels=tuple(
                _parse_channel(channel) for channel in content["channels"]
            ),
            labels=tuple(
                LabelStatistics(**label) for label in content["labels"]
            ),
            nonzero_share=content["nonzero_share"],
            warnings=tuple(content["warnings"]),
            measures=CaseMeasures.from_json(content["measures"]),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # the case is inspected again, and the file replaced


def _parse_channel(content: Mapping[str, Any]) -> ChannelStatistics:
    return ChannelStatistics(
        **{**content, "foreground": tuple(content["foreground"])}
    )


def inspect_case(
    case: Case, ignore: int | None = None, labels: LabelSet | None = None
) -> CaseFingerprint:
    """Open a case and measure it.

    Args:
        case: The case.
        ignore: The value of unlabelled voxels (the ignore label), which is not a label.
        labels: How label files show labels, where not each value is one.

    Raises:
        ScanError: If it cannot be read, it shows nothing, or image and label map do not lie on
            one grid.
    """
    image = _read_channels(case.scan)
    refuse_constant(image)
    label = case.read_label(image)
    if labels is None:
        measured = _measure_values(label, ignore)
    else:
        measured = _measure_encoded(label, labels)
    foreground = measured.indices > 0
    channels = [
        _measure_channel(image, channel, foreground)
        for channel in range(len(image.array))
    ]
    right, anterior, superior = _find_anatomical_axes(image)
    shape, spacing = image.shape, image.spacing
    return CaseFingerprint(
        shape=(shape[right], shape[anterior], shape[superior]),
        spacing=(spacing[right], spacing[anterior], spacing[superior]),
        channels=tuple(channels),
        labels=measured.labels,
        nonzero_share=_compute_nonzero_share(image, foreground),
        measures=measure_case(image, measured.indices),
        warnings=(*image.warnings, *measured.warnings),
    )


class _MeasuredLabels(NamedTuple):
    """Values or indices, 0 where nothing is labelled, ``(i, j, k)``; each label; what was odd."""

    indices: Array
    labels: tuple[LabelStatistics, ...]
    warnings: tuple[str, ...]


def _measure_values(label: Volume, ignore: int | None) -> _MeasuredLabels:
    """Measure each value as a label of its own."""
    values = _get_label_values(label)
    if ignore is not None:
        unlabelled = values == ignore
        values = np.where(unlabelled, 0, values).astype(values.dtype)
    statistics = tuple(_measure_labels(values))
    warnings = describe_label_warnings(label)
    return _MeasuredLabels(values, statistics, warnings)


def _measure_encoded(label: Volume, labels: LabelSet) -> _MeasuredLabels:
    """Measure the labels that values or colours mean."""
    encoded = encode_mask(label, labels)
    indices = encoded.indices
    if labels.ignore_index is not None:
        indices[indices == labels.ignore_index] = 0
    statistics = []
    for measured in _measure_labels(indices):
        meant = labels[measured.value - 1]
        key = pack(meant.colour) if labels.colour_coded else meant.value
        statistics.append(replace(measured, value=key))
    return _MeasuredLabels(indices, tuple(statistics), encoded.warnings)


def _read_channels(scan: Scan) -> Volume:
    channels = []
    for files in scan.parts:
        channel = read_image(files, volume=scan.volume)
        channels.append(channel)
    return stack_channels(channels)


def _find_anatomical_axes(image: Volume) -> list[int]:
    """Return the voxel axes that run along right, anterior and superior."""
    orientation = nib.orientations.io_orientation(image.affine)
    anatomical_axes = orientation[:, 0].astype(int)  # of each voxel axis
    voxel_axes: list[int] = np.argsort(anatomical_axes).tolist()
    return voxel_axes


def _get_label_values(label: Volume) -> Array:
    """Return the voxels of a label map, shape ``(i, j, k)``."""
    first: Array
    first, *others = label.array
    if any((first != other).any() for other in others):
        raise ScanError(
            "the label map is in colours, and nothing says what each means; if it is no "
            "photograph, name them with --labels, such as road=128,64,128"
        )
    return first


def _measure_channel(
    image: Volume, channel: int, foreground: npt.NDArray[np.bool_]
) -> ChannelStatistics:
    quantiles: list[float] = []
    if image.padding:
        foreground = foreground & ~image.padding.get_channel(channel)
    labelled = _sample(image.array[channel][foreground])
    if labelled.size:
        quantiles = np.quantile(labelled, QUANTILES).tolist()
    shown = image.get_shown(channel)
    sample = _sample(shown)
    return ChannelStatistics(
        minimum=float(shown.min()),
        maximum=float(shown.max()),
        percentile_99_5=float(np.quantile(sample, 0.995)),
        foreground=tuple(round(value, 6) for value in quantiles),
    )


def _sample(voxels: Array) -> Array:
    """Return every nth voxel of many."""
    step = max(1, voxels.size // _MAX_SAMPLES)
    return voxels[::step]


def _measure_labels(labels: Array) -> Iterator[LabelStatistics]:
    """Count the voxels and the connected components of each label."""
    values = np.unique(labels).tolist()
    if len(values) > MAX_LABEL_VALUES:
        raise ScanError(
            f"the label map holds {len(values)} different values; at most {MAX_LABEL_VALUES} are "
            "labels, more are intensities"
        )
    # SciPy's list of bounding boxes is as long as the largest value: too long for large values.
    boxes = None
    if values[-1] <= _MAX_LISTED_VALUE:
        boxes = ndimage.find_objects(labels)
    corners_touch = np.ones((3, 3, 3))
    for value in values:
        if value <= 0:
            continue
        part = labels if boxes is None else labels[boxes[value - 1]]
        mask = part == value
        _, components = ndimage.label(mask, structure=corners_touch)
        yield LabelStatistics(value, int(mask.sum()), int(components))


def _compute_nonzero_share(
    image: Volume, foreground: npt.NDArray[np.bool_]
) -> float:
    """Return the share of the image in the bounding box of what is not zero."""
    if image.array.min() < 0:
        return 1.0
    is_above: npt.NDArray[np.bool_] = image.array > 0
    if image.padding:
        is_above &= ~image.padding.get_mask()
    nonzero: npt.NDArray[np.bool_] = np.any(is_above, axis=0)
    box = _find_bounding_box(nonzero)
    if box is None:
        return 1.0
    labels_outside = foreground.sum() - foreground[box].sum()
    if labels_outside:
        return 1.0
    return float(nonzero[box].size / nonzero.size)


def _find_bounding_box(mask: npt.NDArray[np.bool_]) -> Any:
    """Return the slices of the smallest box around a mask; ``None`` if it is empty."""
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    return boxes[0] if boxes else None
