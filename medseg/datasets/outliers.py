"""Cases that lie apart from the others of their data set, by robust statistics.

``check``, ``train`` and ``plan`` name them, and ``evaluate`` those among the references. Such a
case is seldom only unusual: its header gives lengths in another unit, its CT was never rescaled to
HU, its labels were counted otherwise. It is a warning, for it can be right.

From ``LEAST_CASES`` on, each measure is compared with the median over the cases. A case lies apart
if its distance from there is above ``MOST_DEVIATIONS`` robust standard deviations (1.4826 times the
median absolute deviation; Leys et al., J Exp Soc Psychol 2013) and above a limit below which
data sets differ by nature:

* voxel size, along each axis of the patient: ``MOST_TIMES_VOXEL`` times as large or as small;
* field of view, along each axis: ``MOST_TIMES_EXTENT`` times;
* scale of intensities, the range from the 0.5 % to the 99.5 % quantile: ``MOST_TIMES_RANGE`` times.
  Not in MR, which has no unit: its scale differs by hundreds from scanner to scanner, and each
  image is normalised by itself. Where the modality is not known, a case is named if it is alone,
  or at most one in ``ONE_IN``;
* CT: the median intensity of every label is shifted by more than ``MOST_HU_OFF`` in one direction;
* volume of a label: ``MOST_TIMES_VOLUME`` times, unless it is smaller and touches the border of
  the image, where the rest of it may lie outside.

Where modalities are not known, values with much below -500 are taken for HU. What follows from a
voxel size is not named again. Pictures have no lengths: of them, only the scale
of intensities is compared.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from medseg.datasets.measures import CaseMeasures
from medseg.datasets.modalities import normalize_modality
from medseg.names import abbreviate

LEAST_CASES = 4
"""Of fewer cases, none can be told to lie apart from the others."""

MOST_DEVIATIONS = 6.0
MOST_TIMES_VOXEL = 8.0
MOST_TIMES_EXTENT = 6.0
MOST_TIMES_RANGE = 50.0
MOST_TIMES_VOLUME = 30.0
MOST_HU_OFF = 500.0
ONE_IN = 50
"""Of so many cases, one may have another scale and be named; more are another scanner's."""

_TO_DEVIATION = 1.4826
"""Makes a standard deviation of the median absolute deviation, where values are normal."""
_AIR_HU = -500.0
_MOST_NAMED = 5
_AXES = ("right", "front", "head")

Cases = Mapping[str, CaseMeasures]
"""Name of each case → its measures, all with the same channels."""

_Values = dict[str, float]
"""Name of a case → one value of it."""


class Aspect(Enum):
    """In what a case lies apart."""

    INTENSITIES = "intensities"
    SCALE = "scale of intensities"
    VOXEL_SIZE = "voxel size"
    FIELD_OF_VIEW = "field of view"
    LABEL_VOLUMES = "label volumes"


@dataclass(frozen=True, slots=True)
class Outlier:
    """A case that lies apart from the others.

    Attributes:
        case: Its name.
        aspect: In what.
        what: How far, and what to look at; names no file and no case.
    """

    case: str
    aspect: Aspect
    what: str


def find_outliers(
    cases: Cases,
    modalities: Sequence[str] = (),
    label_names: Mapping[int, str] | None = None,
    *,
    pictures: bool = False,
) -> list[Outlier]:
    """Find the cases that lie apart from the others.

    Args:
        cases: The cases.
        modalities: DICOM's code for each channel; ``OT`` where it is not known.
        label_names: Label → name, for people; its number unless given.
        pictures: Whether the cases are pictures.

    Returns:
        At most one outlier for each case and aspect, ordered by aspect.
    """
    if len(cases) < LEAST_CASES:
        return []
    outliers: list[Outlier] = []
    for channel, modality in enumerate(modalities):
        code = normalize_modality(modality)
        outliers += _compare_intensities(cases, channel, code)
    outliers = _keep_first(outliers)
    if pictures:
        return outliers
    of_voxels = _keep_first(_compare_voxels(cases))
    in_other_units = {outlier.case for outlier in of_voxels}
    others = dict(cases)
    for name in in_other_units:
        del others[name]
    of_extents = _compare_extents(others)
    of_volumes = _compare_volumes(others, label_names or {})
    return [
        *outliers,
        *of_voxels,
        *_keep_first(of_extents),
        *_keep_first(of_volumes),
    ]


def describe_outliers(outliers: Iterable[Outlier]) -> Iterator[str]:
    """Yield a warning for each of the first outliers of an aspect; one names all others."""
    by_aspect: dict[Aspect, list[Outlier]] = defaultdict(list)
    for outlier in outliers:
        by_aspect[outlier.aspect].append(outlier)
    for aspect, group in by_aspect.items():
        named = group[:_MOST_NAMED]
        for outlier in named:
            yield f"{outlier.case}: {outlier.what}"
        rest = group[_MOST_NAMED:]
        if rest:
            names = abbreviate(outlier.case for outlier in rest)
            yield (
                f"{len(rest)} more cases lie apart from the others in their "
                f"{aspect.value}: {names}"
            )


# --- one aspect ---------------------------------------------------------------------------


def _compare_intensities(
    cases: Cases,
    channel: int,
    modality: str,
) -> list[Outlier]:
    if modality == "MR":
        return []
    if _is_hu(cases, channel, modality):
        return [
            *_compare_ranges(cases, channel, Aspect.INTENSITIES),
            *_compare_hu(cases, channel),
        ]
    found = list(_compare_ranges(cases, channel, Aspect.SCALE))
    most = max(1, len(cases) // ONE_IN)
    if modality != "PT" and len(found) > most:
        return []
    return found


def _is_hu(cases: Cases, channel: int, modality: str) -> bool:
    if modality != "OT":
        return modality == "CT"
    lowest = []
    for case in cases.values():
        low, _ = case.ranges[channel]
        lowest.append(low)
    return float(np.median(lowest)) < _AIR_HU


def _compare_ranges(
    cases: Cases,
    channel: int,
    aspect: Aspect,
) -> Iterator[Outlier]:
    values = {}
    for name, case in cases.items():
        low, high = case.ranges[channel]
        values[name] = high - low
    text = (
        "its intensities span {own:.4g}, those of the other cases typically {typical:.4g}; check "
        "that it has their unit and scale"
    )
    return _compare(values, MOST_TIMES_RANGE, aspect, text)


def _compare_hu(cases: Cases, channel: int) -> Iterator[Outlier]:
    """Yield the cases of which every label is far off in one direction."""
    shifts: dict[str, list[float]] = defaultdict(list)
    for label in _list_labels(cases):
        values = _list_medians(cases, label, channel)
        if len(values) < LEAST_CASES:
            continue
        apart = _find_apart(values, MOST_HU_OFF)
        for name in values:
            shift = apart.get(name, 0.0)
            shifts[name].append(shift)
    for name, of_labels in shifts.items():
        least = min(of_labels, key=abs)
        is_one_way = all(shift * least > 0 for shift in of_labels)
        if not is_one_way:
            continue
        more = "more" if least > 0 else "less"
        yield Outlier(
            name,
            Aspect.INTENSITIES,
            f"its labelled voxels have {abs(least):.0f} HU {more} than in the other cases; check "
            "that its values were rescaled to HU (slope and intercept)",
        )


def _list_medians(cases: Cases, label: int, channel: int) -> _Values:
    """Return case → median intensity of a label, where it is known."""
    values = {}
    for name, case in cases.items():
        found = case.find_label(label)
        if found is not None and found.medians:
            values[name] = found.medians[channel]
    return values


def _compare_voxels(cases: Cases) -> Iterator[Outlier]:
    for axis, direction in enumerate(_AXES):
        sizes = {}
        for name, case in cases.items():
            sizes[name] = case.spacing[axis]
        yield from _compare(
            sizes,
            MOST_TIMES_VOXEL,
            Aspect.VOXEL_SIZE,
            f"its voxels measure {{own:.3g}} mm towards the {direction}, those of the other cases "
            "typically {typical:.3g} mm; check that its header gives lengths in mm",
        )


def _compare_extents(cases: Cases) -> Iterator[Outlier]:
    for axis, direction in enumerate(_AXES):
        sizes = {}
        for name, case in cases.items():
            sizes[name] = case.extent[axis]
        yield from _compare(
            sizes,
            MOST_TIMES_EXTENT,
            Aspect.FIELD_OF_VIEW,
            f"it measures {{own:.3g}} mm towards the {direction}, the other cases typically "
            "{typical:.3g} mm; check that it shows the same part of the body",
        )


def _compare_volumes(
    cases: Cases,
    names: Mapping[int, str],
) -> Iterator[Outlier]:
    for label in _list_labels(cases):
        volumes = {}
        cut = set()
        for name, case in cases.items():
            found = case.find_label(label)
            if found is None:
                continue
            volumes[name] = found.volume_ml
            if found.is_cut:
                cut.add(name)
        label_name = names.get(label, str(label))
        text = (
            f"its label {label_name} has {{own:.3g}} ml, in the other cases typically "
            "{typical:.3g} ml; check the label"
        )
        typical = float(np.median(list(volumes.values())))
        for outlier in _compare(
            volumes,
            MOST_TIMES_VOLUME,
            Aspect.LABEL_VOLUMES,
            text,
        ):
            is_small = volumes[outlier.case] < typical
            if not (is_small and outlier.case in cut):
                yield outlier


# --- statistics ---------------------------------------------------------------------------


def _compare(
    values: _Values,
    most_times: float,
    aspect: Aspect,
    text: str,
) -> Iterator[Outlier]:
    """Yield the cases whose value is apart on a logarithmic scale."""
    logarithms = {}
    for name, value in values.items():
        if value > 0:
            logarithms[name] = math.log(value)
    limit = math.log(most_times)
    apart = _find_apart(logarithms, limit)
    for name, distance in apart.items():
        own = values[name]
        typical = own / math.exp(distance)
        what = text.format(own=own, typical=typical)
        yield Outlier(name, aspect, what)


def _find_apart(values: _Values, limit: float) -> _Values:
    """Return case → distance from the median, of those that lie apart."""
    if len(values) < LEAST_CASES:
        return {}
    numbers = list(values.values())
    median = float(np.median(numbers))
    distances = {}
    for name, number in values.items():
        distances[name] = number - median
    sizes = [abs(distance) for distance in distances.values()]
    deviation = _TO_DEVIATION * float(np.median(sizes))
    limit = max(limit, MOST_DEVIATIONS * deviation)
    return {
        name: distance
        for name, distance in distances.items()
        if abs(distance) > limit
    }


def _list_labels(cases: Cases) -> list[int]:
    """Return every label that occurs, in order."""
    labels: set[int] = set()
    for case in cases.values():
        labels |= case.present
    return sorted(labels)


def _keep_first(outliers: Iterable[Outlier]) -> list[Outlier]:
    """Keep the first outlier of each case: one aspect of it is named once."""
    first: dict[str, Outlier] = {}
    for outlier in outliers:
        first.setdefault(outlier.case, outlier)
    return list(first.values())
