"""Learning curves: how loss and Dice went, in one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg.metrics.metrics import MEAN
from medseg.plots.canvas import (
    DARK,
    FAINT,
    LINES,
    STAR,
    format_legend_text,
    new_figure,
    save_png,
    to_drawable,
)
from medseg.volume import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Sequence[tuple[int, float]]
"""Steps and values."""

Validation = tuple[int, Mapping[str, Mapping[str, float]]]
"""A step and ``metric → label name → mean over cases``, as events carry it."""

_MOST_POINTS = 1500


@dataclass(frozen=True, slots=True)
class TrainingCurves:
    """What a training did so far.

    Attributes:
        name: The bundle's name.
        losses: Total loss by step.
        parts: The parts of the loss by step, by name.
        learning_rates: Learning rate by step.
        validations: Scores of each validation.
    """

    name: str
    losses: Curve
    parts: Mapping[str, Curve] = field(default_factory=dict)
    learning_rates: Curve = ()
    validations: Sequence[Validation] = ()


def draw_curves(path: Path, history: TrainingCurves) -> None:
    """Draw the loss (above) and the Dice of every validation (below) into a PNG file.

    Raises:
        OutputError: If the file cannot be written.
    """
    figure = new_figure(8.0, 6.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.2)).tolist()
    _draw_losses(above, history)
    _draw_dice(below, history.validations)
    figure.suptitle(to_drawable(history.name), fontsize=13, fontweight="bold")
    save_png(figure, path)


def _draw_losses(axes: Axes, history: TrainingCurves) -> None:
    axes.set_ylabel("loss")
    axes.grid(alpha=0.25)
    steps, values = _thinned(history.losses)
    if not steps.size:
        _say(axes, "no steps yet")
        return
    axes.plot(steps, values, color=FAINT, linewidth=0.8, alpha=0.6)
    lowest = values.min()
    for colour, (name, curve) in zip(LINES[1:], history.parts.items(), strict=False):
        at, part = _thinned(curve)
        smooth = _smoothed(part)
        axes.plot(at, smooth, color=colour, linewidth=1.0, label=format_legend_text(name))
        lowest = min(lowest, smooth.min(initial=lowest))
    axes.plot(steps, _smoothed(values), color=LINES[0], linewidth=2.2, label="total, smoothed")
    if lowest > 0:
        _logarithmic(axes)
    _draw_rates(axes, history.learning_rates)
    axes.legend(loc="upper right", fontsize=8, framealpha=0.85)


def _logarithmic(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    # Over less than about a decade, 1-2-5 would leave hardly a tick.
    subs = (1.0, 2.0, 5.0) if high / low > 8 else tuple(np.arange(1, 10, 1.0))
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:.3g}")


def _draw_rates(axes: Axes, rates: Curve) -> None:
    steps, values = _thinned(rates)
    if steps.size:
        right = axes.twinx()
        right.plot(steps, values, color=DARK, linewidth=0.9, linestyle=":")
        right.set_ylabel("learning rate (dotted)", color=DARK)
        right.set_ylim(bottom=0)


def _draw_dice(axes: Axes, validations: Sequence[Validation]) -> None:
    axes.set_ylabel("Dice in validation")
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    steps = np.array([step for step, _ in validations])
    curves = _by_label([scores.get("dice", {}) for _, scores in validations])
    mean = curves.pop(MEAN, np.zeros(0))
    if not np.isfinite(mean).any():
        _say(axes, "no validation yet")
        return
    few = len(curves) <= len(LINES)
    for position, (name, values) in enumerate(curves.items()):
        colour = LINES[position] if few else FAINT
        text = format_legend_text(name) if few else ("each label" if position == 0 else None)
        axes.plot(steps, values, color=colour, linewidth=1.3, marker=".", label=text)
    axes.plot(steps, mean, color=DARK, linewidth=2.4, marker="o", markersize=4, label=MEAN)
    best = int(np.nanargmax(mean))
    axes.plot(
        steps[best], mean[best], marker="*", markersize=16, color=STAR, markeredgecolor=DARK,
        linestyle="none", zorder=5, label=f"best mean {mean[best]:.4f} at step {steps[best]}",
    )  # fmt: skip
    axes.set_ylim(top=1.0)
    axes.legend(loc="lower right", fontsize=8, framealpha=0.85)


def _by_label(scores: Sequence[Mapping[str, float]]) -> dict[str, Array]:
    names = dict.fromkeys(name for found in scores for name in found)
    return {name: np.array([found.get(name, math.nan) for found in scores]) for name in names}


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=FAINT)


def _thinned(curve: Curve) -> tuple[Array, Array]:
    """Return finite points, averaged in bins where there are too many to see."""
    points = np.array(curve, dtype=np.float64).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) > _MOST_POINTS:
        bins = np.array_split(points, _MOST_POINTS)
        points = np.array([part.mean(axis=0) for part in bins])
    return points[:, 0], points[:, 1]


def _smoothed(values: Array) -> Array:
    """Return the centred moving average over about a thirtieth of the curve."""
    from scipy.ndimage import uniform_filter1d

    width = 2 * (len(values) // 60) + 1
    smooth: Array = uniform_filter1d(values, width, mode="nearest") if len(values) else values
    return smooth
