"""What the training cases were like, and whether a scan and its result lie outside.

At the end of a training ``measure_range`` summarises the cases, learned from and held out. Of each
measure it keeps the 5 % and the 95 % quantile, and two limits: each lies beyond its quantile by the
distance between the two, but at least by the margin below, times ``1 + 5 / n`` for n cases, since
few cases show little of what there is. ``find_departures`` says in words what of a scan or its
result lies beyond the limits. docs/explanation/quality.md lists the rules for people.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.bundle.spec import (
    BundleSpec,
    LabelRange,
    MeasureRange,
    ValidatedRange,
)
from medseg.datasets.intensity_measures import AIR, OF_CT, OF_OTHERS
from medseg.datasets.label_measures import count_pieces, find_cut_labels
from medseg.datasets.measures import CaseMeasures
from medseg.datasets.modalities import normalize_modality
from medseg.io.body_regions import find_organ_regions
from medseg.metrics.label_summary import LabelSummary

LEAST_CASES = 5
"""Of fewer cases no range is stated."""

_FEW = 5
"""So many cases make the limits twice as wide."""

TIMES_VOXEL = 2.0
TIMES_EXTENT = 1.5
TIMES_VOLUME = 3.0
SHARE_OF_AIR = 0.15
HU = 75.0
FORM = 0.15
PIECES = 2.0
"""Margins: how far beyond the training cases' quantiles nothing is flagged."""

LEAST_UNCUT = 20
"""Training cases of which none touches the border, for a result that does to be flagged."""

_QUANTILES = (0.05, 0.95)
_AXES = ("right", "front", "head")
_MARGINS = {AIR: SHARE_OF_AIR, **dict.fromkeys(OF_CT[1:], HU)}
_MARGINS |= dict.fromkeys(OF_OTHERS, FORM)


# --- the training cases -------------------------------------------------------------------


def measure_range(
    cases: Sequence[CaseMeasures], spec: BundleSpec
) -> ValidatedRange | None:
    """Summarise what the training cases were like.

    Args:
        cases: What was measured of each by ``measure_training_case``.
        spec: The bundle.

    Returns:
        ``None`` of fewer than ``LEAST_CASES``.
    """
    if len(cases) < LEAST_CASES:
        return None
    spacing: tuple[MeasureRange, ...] = ()
    extent: tuple[MeasureRange, ...] = ()
    if spec.preprocessing.input == "volume":
        spacing = _summarise_sizes([case.spacing for case in cases])
        extent = _summarise_sizes([case.extent for case in cases], TIMES_EXTENT)
    regions: set[str] = set()
    for case in cases:
        regions.update(case.regions)
    return ValidatedRange(
        cases=len(cases),
        is_single_slice=all(case.is_single_slice for case in cases),
        regions=tuple(sorted(regions)),
        spacing_mm=spacing,
        extent_mm=extent,
        intensities=tuple(_summarise_channels(cases, spec)),
        labels=_summarise_labels(cases, spec),
    )


def _summarise_sizes(
    sizes: Sequence[Sequence[float]], times: float = TIMES_VOXEL
) -> tuple[MeasureRange, ...]:
    ranges = []
    for of_axis in zip(*sizes, strict=True):
        ranges.append(_summarise_ratios(of_axis, times))
    return tuple(ranges)


def _summarise_channels(
    cases: Sequence[CaseMeasures], spec: BundleSpec
) -> Iterator[dict[str, MeasureRange]]:
    for channel in range(len(spec.channels)):
        ranges = {}
        for name in _list_intensity_measures(spec, channel):
            values = [
                case.intensities[channel][name]
                for case in cases
                if name in case.intensities[channel]
            ]
            if len(values) >= LEAST_CASES:
                ranges[name] = _summarise(values, _MARGINS[name])
        yield ranges


def _list_intensity_measures(spec: BundleSpec, channel: int) -> tuple[str, ...]:
    modality = spec.channels[channel].modality
    return OF_CT if normalize_modality(modality) == "CT" else OF_OTHERS


def _summarise_labels(
    cases: Sequence[CaseMeasures], spec: BundleSpec
) -> dict[str, LabelRange]:
    ranges = {}
    # Pictures have no lengths.
    is_volume = spec.preprocessing.input == "volume"
    for label in spec.label_set:
        found = [case.find_label(label.index) for case in cases]
        present = [each for each in found if each is not None]
        volume = pieces = None
        if len(present) >= LEAST_CASES and is_volume:
            volumes = [each.volume_ml for each in present]
            volume = _summarise_ratios(volumes, TIMES_VOLUME)
        if len(present) >= LEAST_CASES:
            counts = [float(each.pieces) for each in present]
            pieces = _summarise(counts, PIECES)
        cut = sum(each.is_cut for each in present)
        ranges[label.name] = LabelRange(
            present=len(present) / len(cases),
            cut=cut / max(1, len(present)),
            volume_ml=volume,
            pieces=pieces,
        )
    return ranges


def _summarise(values: Sequence[float], margin: float) -> MeasureRange:
    low, high = np.quantile(values, _QUANTILES).tolist()
    reach = max(margin, high - low) * (1 + _FEW / len(values))
    return MeasureRange(
        low=low, high=high, least=low - reach, most=high + reach
    )


def _summarise_ratios(values: Sequence[float], times: float) -> MeasureRange:
    """Summarise what differs by factors: on a logarithmic scale."""
    logarithms = np.log(values).tolist()
    found = _summarise(logarithms, math.log(times))
    return MeasureRange(
        low=math.exp(found.low),
        high=math.exp(found.high),
        least=math.exp(found.least),
        most=math.exp(found.most),
    )


# --- a scan and its result ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RangeCheck:
    """Compares one scan, and then its result, with what a bundle was validated on.

    Attributes:
        validated: What the training cases were like.
        spec: The bundle.
        scan: What was measured of the scan by ``measure_scan``.
        voxel_ml: Volume of one of its voxels.
    """

    validated: ValidatedRange
    spec: BundleSpec
    scan: CaseMeasures
    voxel_ml: float

    def find_departures(self, found: LabelSummary) -> tuple[str, ...]:
        """Say what lies outside the range: first of the scan, then of its labels.

        Args:
            found: The label map of the scan.

        Returns:
            One reason each, in plain words; they name no file and quote no header.
        """
        reasons = [
            *self._compare_regions(),
            *self._compare_intensities(),
        ]
        # A stack of slices is larger than one slice in every way.
        if self.scan.is_single_slice == self.validated.is_single_slice:
            reasons += self._compare_sizes()
            reasons += self._compare_labels(found)
        return tuple(reasons)

    def _compare_regions(self) -> Iterator[str]:
        known = self.validated.regions
        if not known:
            names = self.spec.label_set.names
            known = find_organ_regions(names)
        if not known or not self.scan.regions:
            return
        if not set(known) & set(self.scan.regions):
            shown = " and ".join(self.scan.regions)
            wanted = " and ".join(known)
            yield (
                f"its header names the {shown}, and the bundle was trained on the {wanted}"
            )

    def _compare_sizes(self) -> Iterator[str]:
        yield from _compare_axes(
            self.validated.spacing_mm,
            self.scan.spacing,
            "its voxels measure {} mm towards the {}, those of the training cases {} mm",
        )
        yield from _compare_axes(
            self.validated.extent_mm,
            self.scan.extent,
            "it measures {} mm towards the {}, the training cases {} mm",
        )

    def _compare_intensities(self) -> Iterator[str]:
        channels = zip(
            self.spec.channels,
            self.validated.intensities,
            self.scan.intensities,
            strict=True,
        )
        for channel, ranges, values in channels:
            reason = _compare_channel(ranges, values)
            if reason:
                yield f"the channel {channel.name}: {reason}"

    def _compare_labels(self, found: LabelSummary) -> Iterator[str]:
        voxels = found.voxels
        pieces = count_pieces(found)
        cut = find_cut_labels(found)
        for label in self.spec.label_set:
            known = self.validated.labels.get(label.name)
            if known is None:
                continue
            index = label.index
            if not voxels[index]:
                if known.present == 1:
                    yield f"{label.name}, which every training case holds, was not found"
                continue
            yield from _compare_volume(
                label.name, known, float(voxels[index]) * self.voxel_ml
            )
            count = pieces[index]
            if known.pieces is not None and count > known.pieces.most:
                yield (
                    f"{label.name} lies in {count} large pieces, in the training cases in "
                    f"{_format_range(known.pieces)}"
                )
            is_new = known.cut == 0 and self.validated.cases >= LEAST_UNCUT
            if is_new and index in cut:
                yield (
                    f"{label.name} touches the border of the scan, and does so in no training case"
                )


def _compare_axes(
    ranges: Sequence[MeasureRange], sizes: Sequence[float], sentence: str
) -> Iterator[str]:
    """Say in one sentence along which axes sizes lie outside; nothing if along none.

    Args:
        ranges: Of the training cases, along each axis; none of pictures.
        sizes: Of the scan, likewise.
        sentence: Takes the scan's sizes, the axes and the training cases' sizes.
    """
    own = []
    axes = []
    known = []
    for axis, of_axis, size in zip(_AXES, ranges, sizes, strict=False):
        if _is_outside(size, of_axis):
            own.append(f"{size:.3g}")
            axes.append(axis)
            known.append(_format_range(of_axis))
    if axes:
        yield sentence.format(_list(own), _list(axes), _list(known))


def _list(words: Sequence[str]) -> str:
    """Return words as a person lists them: ``a, b and c``."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def _compare_volume(name: str, known: LabelRange, ml: float) -> Iterator[str]:
    volume = known.volume_ml
    if volume is not None and _is_outside(ml, volume):
        yield (
            f"{name} has {ml:.3g} ml, in the training cases {_format_range(volume)} ml"
        )


def _compare_channel(
    ranges: Mapping[str, MeasureRange], values: Mapping[str, float]
) -> str:
    """Say in which measure a channel departs first; nothing if in none."""
    for name, known in ranges.items():
        value = values.get(name)
        if value is None or not _is_outside(value, known):
            continue
        if name == AIR:
            share = f"{100 * known.low:.0f} to {100 * known.high:.0f} %"
            return f"{100 * value:.0f} % of it is air, in the training cases {share}"
        if name in OF_CT:
            return (
                f"what is not air has {value:.0f} HU ({name}), in the training cases "
                f"{known.low:.0f} to {known.high:.0f} HU"
            )
        return (
            "its intensities are spread otherwise than in the training cases (at "
            f"{name.removeprefix('form ')} {value:.2f} of their range, there "
            f"{known.low:.2f} to {known.high:.2f})"
        )
    return ""


def _is_outside(value: float, known: MeasureRange) -> bool:
    # The limits of equal values are rounded once more on their way through the logarithm.
    slack = 1e-6 * abs(value)
    return value < known.least - slack or value > known.most + slack


def _format_range(known: MeasureRange) -> str:
    low, high = f"{known.low:.3g}", f"{known.high:.3g}"
    return low if low == high else f"{low} to {high}"
