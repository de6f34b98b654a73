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

from medseg.datasets.input_checks import normalize_modality
from medseg.datasets.measures import CaseMeasures
from medseg.datasets.names import abbreviate

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
    cases: Mapping[str, CaseMeasures],
    modalities: Sequence[str] = (),
    label_names: Mapping[int, str] | None = None,
    *,
    pictures: bool = False,
) -> list[Outlier]:
    """Find the cases that lie apart from the others.

    Args:
        cases: Name of each case → its measures, all with the same channels.
        modalities: DICOM's code for each channel; ``OT`` where it is not known.
        label_names: Label → name, for people; its number unless given.
        pictures: Whether the cases are pictures.

    Returns:
        At most one outlier for each case and aspect, ordered by aspect.
    """
    if len(cases) < LEAST_CASES:
        return []
    found: list[Outlier] = []
    for channel, stated in enumerate(modalities):
        modality = normalize_modality(stated)
        if modality == "MR":
            continue
        if _is_hu(cases, channel, modality):
            found += _compare_ranges(cases, channel, Aspect.INTENSITIES)
            found += _compare_hu(cases, channel)
            continue
        of_scale = list(_compare_ranges(cases, channel, Aspect.SCALE))
        if modality == "PT" or len(of_scale) <= max(1, len(cases) // ONE_IN):
            found += of_scale
    outliers = _join(found)
    if pictures:
        return outliers
    of_voxels = _join(_compare_voxels(cases))
    outliers += of_voxels
    in_other_units = {outlier.case for outlier in of_voxels}
    others = {
        name: measures
        for name, measures in cases.items()
        if name not in in_other_units
    }
    outliers += _join(_compare_extents(others))
    outliers += _join(_compare_volumes(others, label_names or {}))
    return outliers


def describe_outliers(outliers: Iterable[Outlier]) -> Iterator[str]:
    """Yield a warning for each of the first outliers of an aspect; one names all others."""
    by_aspect: dict[Aspect, list[Outlier]] = defaultdict(list)
    for outlier in outliers:
        by_aspect[outlier.aspect].append(outlier)
    for aspect, group in by_aspect.items():
        for outlier in group[:_MOST_NAMED]:
            yield f"{outlier.case}: {outlier.what}"
        rest = [outlier.case for outlier in group[_MOST_NAMED:]]
        if rest:
            yield (
                f"{len(rest)} more cases lie apart from the others in their {aspect.value}: "
                f"{abbreviate(rest)}"
            )


# --- one aspect ---------------------------------------------------------------------------


def _compare_ranges(
    cases: Mapping[str, CaseMeasures], channel: int, aspect: Aspect
) -> Iterator[Outlier]:
    values = {}
    for name, case in cases.items():
        low, high = case.ranges[channel]
        values[name] = high - low
    for name, ratio in _find_ratios(values, MOST_TIMES_RANGE).items():
        own = values[name]
        yield Outlier(
            name,
            aspect,
            f"its intensities span {own:.4g}, those of the other cases typically "
            f"{own / ratio:.4g}; check that it has their unit and scale",
        )


def _compare_hu(
    cases: Mapping[str, CaseMeasures], channel: int
) -> Iterator[Outlier]:
    for name, shift in _find_shifts(cases, channel).items():
        more = "more" if shift > 0 else "less"
        yield Outlier(
            name,
            Aspect.INTENSITIES,
            f"its labelled voxels have {abs(shift):.0f} HU {more} than in the other cases; "
            "check that its values were rescaled to HU (slope and intercept)",
        )


def _is_hu(
    cases: Mapping[str, CaseMeasures], channel: int, modality: str
) -> bool:
    if modality != "OT":
        return modality == "CT"
    lowest = [case.ranges[channel][0] for case in cases.values()]
    return float(np.median(lowest)) < _AIR_HU


def _find_shifts(
    cases: Mapping[str, CaseMeasures], channel: int
) -> dict[str, float]:
    """Return case → least shift of its labels, where all are far off in one direction."""
    medians = {name: case.medians[channel] for name, case in cases.items()}
    shifts: dict[str, list[float]] = defaultdict(list)
    for label in sorted(_list_labels(medians.values())):
        values = {
            name: own[label] for name, own in medians.items() if label in own
        }
        if len(values) < LEAST_CASES:
            continue
        apart = _find_apart(values, MOST_HU_OFF)
        for name in values:
            shifts[name].append(apart.get(name, 0.0))
    found = {}
    for name, of_labels in shifts.items():
        least = min(of_labels, key=abs)
        if least and all(shift * least > 0 for shift in of_labels):
            found[name] = least
    return found


def _compare_voxels(cases: Mapping[str, CaseMeasures]) -> Iterator[Outlier]:
    for axis, direction in enumerate(_AXES):
        sizes = {name: case.spacing[axis] for name, case in cases.items()}
        for name, ratio in _find_ratios(sizes, MOST_TIMES_VOXEL).items():
            own = sizes[name]
            yield Outlier(
                name,
                Aspect.VOXEL_SIZE,
                f"its voxels measure {own:.3g} mm towards the {direction}, those of the other "
                f"cases typically {own / ratio:.3g} mm; check that its header gives lengths in mm",
            )


def _compare_extents(cases: Mapping[str, CaseMeasures]) -> Iterator[Outlier]:
    for axis, direction in enumerate(_AXES):
        sizes = {name: case.extent[axis] for name, case in cases.items()}
        for name, ratio in _find_ratios(sizes, MOST_TIMES_EXTENT).items():
            own = sizes[name]
            yield Outlier(
                name,
                Aspect.FIELD_OF_VIEW,
                f"it measures {own:.3g} mm towards the {direction}, the other cases typically "
                f"{own / ratio:.3g} mm; check that it shows the same part of the body",
            )


def _compare_volumes(
    cases: Mapping[str, CaseMeasures], names: Mapping[int, str]
) -> Iterator[Outlier]:
    volumes = [case.volumes_ml for case in cases.values()]
    for label in sorted(_list_labels(volumes)):
        of_label = {
            name: case.volumes_ml[label]
            for name, case in cases.items()
            if label in case.volumes_ml
        }
        apart = _find_ratios(of_label, MOST_TIMES_VOLUME)
        for name, ratio in apart.items():
            if ratio < 1 and label in cases[name].cut:
                continue
            own = of_label[name]
            yield Outlier(
                name,
                Aspect.LABEL_VOLUMES,
                f"its label {names.get(label, str(label))} has {own:.3g} ml, in the other cases "
                f"typically {own / ratio:.3g} ml; check the label",
            )


# --- statistics ---------------------------------------------------------------------------


def _find_ratios(
    values: Mapping[str, float], most_times: float
) -> dict[str, float]:
    """Return case → how many times the median it has, of those that lie apart."""
    logarithms = {
        name: math.log(value) for name, value in values.items() if value > 0
    }
    apart = _find_apart(logarithms, math.log(most_times))
    return {name: math.exp(distance) for name, distance in apart.items()}


def _find_apart(values: Mapping[str, float], limit: float) -> dict[str, float]:
    """Return case → distance from the median, of those that lie apart."""
    if len(values) < LEAST_CASES:
        return {}
    numbers = np.array(list(values.values()))
    distances = numbers - np.median(numbers)
    deviation = _TO_DEVIATION * float(np.median(np.abs(distances)))
    limit = max(limit, MOST_DEVIATIONS * deviation)
    by_case = dict(zip(values, distances.tolist(), strict=True))
    return {
        name: distance
        for name, distance in by_case.items()
        if abs(distance) > limit
    }


def _list_labels(of_cases: Iterable[Mapping[int, float]]) -> set[int]:
    labels: set[int] = set()
    for present in of_cases:
        labels.update(present)
    return labels


def _join(outliers: Iterable[Outlier]) -> list[Outlier]:
    """Keep the first outlier of each case: one aspect of it is named once."""
    first: dict[str, Outlier] = {}
    for outlier in outliers:
        first.setdefault(outlier.case, outlier)
    return list(first.values())
