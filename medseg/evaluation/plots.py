"""The plots of the evaluation page: where every mark lies, in percent of its plot.

The page draws them with HTML alone, so that they fit every screen, follow its colours and can be
read aloud. Boxes are Tukey's: quartiles, and whiskers to the farthest value within 1.5 times their
distance. Volumes are compared as by Bland and Altman (Lancet 1986): difference over mean, with the
limits of agreement, mean ± 1.96 standard deviations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.evaluation.formats import format_number
from medseg.metrics.metrics import CaseScores

MOST_AGREEMENTS = 12
"""Labels with a plot of their volumes; of more, those with the largest differences."""

_DISTANCE = "hd95"
_WHISKERS = 1.5
_LIMITS_OF_AGREEMENT = 1.96
_LEAST_PAIRS = 3
"""Fewer volumes have no limits worth drawing."""
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_JITTER = (50, 30, 70, 40, 60)
"""Heights at which neighbouring points lie, so that equal ones can be told apart."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick of an axis.

    Attributes:
        at: Where, in percent.
        text: What stands there.
    """

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Point:
    """One case.

    Attributes:
        x: From the left, in percent.
        y: From below, in percent.
        text: The case and its value.
    """

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Box:
    """The values of one label, in percent of the axis.

    Attributes:
        label: Its name.
        low: The lower whisker.
        first: The first quartile.
        median: The median.
        third: The third quartile.
        high: The upper whisker.
        points: Every case.
        text: Median and quartiles in words.
    """

    label: str
    low: float
    first: float
    median: float
    third: float
    high: float
    points: Sequence[Point]
    text: str


@dataclass(frozen=True, slots=True)
class BoxPlot:
    """One metric, a box for each label.

    Attributes:
        title: The metric, with its unit.
        ticks: Of the axis.
        boxes: Of the labels that have values.
    """

    title: str
    ticks: Sequence[Tick]
    boxes: Sequence[Box]


@dataclass(frozen=True, slots=True)
class AgreementPlot:
    """Predicted and reference volumes of one label: differences over means.

    Attributes:
        label: Its name.
        x_ticks: Of the means, in ml.
        y_ticks: Of the differences, in ml.
        points: Every case in which either side holds the label.
        lines: Mean difference and limits of agreement, in percent from below, and their texts.
        zero: Where no difference lies.
    """

    label: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    points: Sequence[Point]
    lines: Sequence[Tick]
    zero: float


@dataclass(frozen=True, slots=True)
class _Axis:
    """From values to percent."""

    low: float
    high: float

    def locate(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 2)

    def list_ticks(self) -> list[Tick]:
        step = _choose_step(self.high - self.low)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        ticks = []
        for number in range(first, last + 1):
            value = number * step
            text = f"{value:g}".replace("-", "−")
            ticks.append(Tick(self.locate(value), text))
        return ticks


def _choose_step(span: float) -> float:
    """Return a round step that makes about five of a span."""
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    for step in _STEPS:
        if step * power >= rough * 0.999:
            return step * power
    return 10 * power


def plot_boxes(
    cases: Sequence[CaseScores], metric: str, title: str, highest: float | None
) -> BoxPlot | None:
    """Lay out the values of one metric, label by label.

    Args:
        cases: The cases.
        metric: A field of ``LabelScores``.
        title: What people call it, with its unit.
        highest: The end of its axis, where it is known; the axis begins at 0 else.

    Returns:
        ``None`` if no case has a value.
    """
    values = {}
    for name in _list_labels(cases):
        of_label = _list_values(cases, name, metric)
        if of_label:
            values[name] = of_label
    if not values:
        return None
    axis = _choose_axis(values.values(), highest)
    boxes = [_make_box(name, values[name], axis) for name in values]
    return BoxPlot(title, axis.list_ticks(), boxes)


def _list_labels(cases: Sequence[CaseScores]) -> list[str]:
    names: dict[str, None] = {}
    for case in cases:
        names.update(dict.fromkeys(case.labels))
    return list(names)


_Values = list[tuple[str, float]]
"""Case and value."""


def _list_values(
    cases: Sequence[CaseScores], label: str, metric: str
) -> _Values:
    """Return the values of a label; its distances only where both sides hold it.

    The distance of a label that was missed is the image's diagonal, which says nothing of masks
    and would leave no room for all others.
    """
    values = []
    for case in cases:
        value = case[metric].get(label, math.nan)
        is_stand_in = metric == _DISTANCE and case["missed"].get(label)
        if math.isfinite(value) and not is_stand_in:
            values.append((case.case, value))
    return values


def _choose_axis(groups: Iterable[_Values], highest: float | None) -> _Axis:
    values = [value for group in groups for _, value in group]
    if highest is None:
        return _widen(0.0, max(values))
    # In steps of a tenth, so that plots of one metric can be compared.
    low = math.floor(10 * min(values) - 1e-9) / 10
    return _Axis(min(low, 0.9 * highest), highest)


def _widen(low: float, high: float) -> _Axis:
    """Return an axis from one round value to another around these two."""
    if high <= low:
        high = low + 1.0
    step = _choose_step(high - low)
    return _Axis(
        step * math.floor(low / step + 1e-9),
        step * math.ceil(high / step - 1e-9),
    )


def _make_box(label: str, values: _Values, axis: _Axis) -> Box:
    numbers = np.array([value for _, value in values])
    first, median, third = np.quantile(numbers, (0.25, 0.5, 0.75)).tolist()
    reach = _WHISKERS * (third - first)
    inside = (numbers >= first - reach) & (numbers <= third + reach)
    near = numbers[inside]
    points = []
    for number, (case, value) in enumerate(values):
        text = f"{case}: {format_number(value)}"
        height = _JITTER[number % len(_JITTER)]
        points.append(Point(axis.locate(value), height, text))
    quartiles = f"{format_number(first)} to {format_number(third)}"
    return Box(
        label=label,
        low=axis.locate(float(near.min())),
        first=axis.locate(first),
        median=axis.locate(median),
        third=axis.locate(third),
        high=axis.locate(float(near.max())),
        points=points,
        text=f"{format_number(median)} ({quartiles}), n = {len(values)}",
    )


def plot_agreements(cases: Sequence[CaseScores]) -> list[AgreementPlot]:
    """Lay out predicted against reference volumes, a plot for each label.

    Labels that fewer than three cases hold have none. Of many labels, those alone are shown whose
    volumes differ most, relative to their size.
    """
    volumes = {}
    for name in _list_labels(cases):
        compared = _compare_volumes(cases, name)
        if len(compared.names) >= _LEAST_PAIRS:
            volumes[name] = compared
    shown = list(volumes)
    if len(shown) > MOST_AGREEMENTS:
        shown.sort(key=lambda name: -volumes[name].disagreement)
        shown = shown[:MOST_AGREEMENTS]
    return [_plot_agreement(name, volumes[name]) for name in shown]


@dataclass(frozen=True, slots=True)
class _Volumes:
    """Volumes of one label in ml, of the cases in which either side holds it."""

    names: Sequence[str]
    means: Sequence[float]
    differences: Sequence[float]

    @property
    def disagreement(self) -> float:
        """How far the two sides are apart, relative to their mean."""
        apart = np.abs(self.differences).mean()
        return float(apart / np.mean(self.means))


def _compare_volumes(cases: Sequence[CaseScores], label: str) -> _Volumes:
    names, means, differences = [], [], []
    for case in cases:
        scores = case.labels.get(label)
        if scores is None or not scores.predicted_ml + scores.reference_ml:
            continue
        names.append(case.case)
        means.append((scores.predicted_ml + scores.reference_ml) / 2)
        differences.append(scores.predicted_ml - scores.reference_ml)
    return _Volumes(names, means, differences)


def _plot_agreement(label: str, volumes: _Volumes) -> AgreementPlot:
    differences = np.array(volumes.differences)
    bias = float(differences.mean())
    reach = _LIMITS_OF_AGREEMENT * float(differences.std(ddof=1))
    x = _widen(min(volumes.means), max(volumes.means))
    y = _widen(
        min(0.0, bias - reach, float(differences.min())),
        max(0.0, bias + reach, float(differences.max())),
    )
    points = []
    triples = zip(
        volumes.names, volumes.means, volumes.differences, strict=True
    )
    for name, mean, difference in triples:
        text = f"{name}: {_sign(difference)} ml of {format_number(mean)} ml"
        points.append(Point(x.locate(mean), y.locate(difference), text))
    lines = []
    for value, what in (
        (bias + reach, "+1.96 SD"),
        (bias, "mean"),
        (bias - reach, "−1.96 SD"),
    ):
        lines.append(Tick(y.locate(value), f"{what}: {_sign(value)} ml"))
    return AgreementPlot(
        label, x.list_ticks(), y.list_ticks(), points, lines, y.locate(0.0)
    )


def _sign(value: float) -> str:
    text = format_number(abs(value))
    return f"−{text}" if value < 0 else f"+{text}"
