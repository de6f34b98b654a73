"""Learning curves: loss and Dice over the steps of a training run, in one picture."""

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
    """What a training run did so far.

    Attributes:
        name: The bundle's name.
        losses: Total loss by step.
        parts: The terms of the loss by step, by name.
        learning_rates: Learning rate by step.
        validations: Scores of each validation.
    """

    name: str
    losses: Curve
    parts: Mapping[str, Curve] = field(default_factory=dict)
    learning_rates: Curve = ()
    validations: Sequence[Validation] = ()


def draw_curves(path: Path, curves: TrainingCurves) -> None:
    """Draw the loss (above) and the Dice of every validation (below) into a PNG file.

    Raises:
        OutputError: If the file cannot be written.
    """
    figure = new_figure(8.0, 6.6)
    upper, lower = figure.subplots(
        2, 1, sharex=True, height_ratios=(1, 1.2)
    ).tolist()
    _draw_losses(upper, curves)
    _draw_dice(lower, curves.validations)
    figure.suptitle(to_drawable(curves.name), fontsize=13, fontweight="bold")
    save_png(figure, path)


def _draw_losses(axes: Axes, curves: TrainingCurves) -> None:
    axes.set_ylabel("loss")
    axes.grid(alpha=0.25)
    steps, losses = _thin_out(curves.losses)
    if not steps.size:
        _draw_note(axes, "no steps yet")
        return
    axes.plot(steps, losses, color=FAINT, linewidth=0.8, alpha=0.6)
    lowest = losses.min()
    for colour, (name, curve) in zip(
        LINES[1:], curves.parts.items(), strict=False
    ):
        part_steps, part = _thin_out(curve)
        smooth = _smooth(part)
        axes.plot(
            part_steps,
            smooth,
            color=colour,
            linewidth=1.0,
            label=format_legend_text(name),
        )
        lowest = min(lowest, smooth.min(initial=lowest))
    axes.plot(
        steps,
        _smooth(losses),
        color=LINES[0],
        linewidth=2.2,
        label="total, smoothed",
    )
    if lowest > 0:
        _use_logarithmic_scale(axes)
    _draw_learning_rates(axes, curves.learning_rates)
    axes.legend(loc="upper right", fontsize=8, framealpha=0.85)


def _use_logarithmic_scale(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    ticks: tuple[float, ...] = (1.0, 2.0, 5.0)
    if (
        high / low <= 8
    ):  # less than about a decade: 1-2-5 would leave hardly a tick
        ticks = tuple(np.arange(1, 10, 1.0))
    axes.yaxis.set_major_locator(LogLocator(subs=ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:.3g}")


def _draw_learning_rates(axes: Axes, rates: Curve) -> None:
    steps, values = _thin_out(rates)
    if not steps.size:
        return
    right = axes.twinx()
    right.plot(steps, values, color=DARK, linewidth=0.9, linestyle=":")
    right.set_ylabel("learning rate (dotted)", color=DARK)
    right.set_ylim(bottom=0)


def _draw_dice(axes: Axes, validations: Sequence[Validation]) -> None:
    axes.set_ylabel("Dice in validation")
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    steps = np.array([step for step, _ in validations])
    dice = _gather_by_label(
        [scores.get("dice", {}) for _, scores in validations]
    )
    mean = dice.pop(MEAN, np.zeros(0))
    if not np.isfinite(mean).any():
        _draw_note(axes, "no validation yet")
        return
    _draw_labels(axes, steps, dice)
    axes.plot(
        steps,
        mean,
        color=DARK,
        linewidth=2.4,
        marker="o",
        markersize=4,
        label=MEAN,
    )
    best = int(np.nanargmax(mean))
    axes.plot(
        steps[best],
        mean[best],
        marker="*",
        markersize=16,
        color=STAR,
        markeredgecolor=DARK,
        linestyle="none",
        zorder=5,
        label=f"best mean {mean[best]:.4f} at step {steps[best]}",
    )
    axes.set_ylim(top=1.0)
    axes.legend(loc="lower right", fontsize=8, framealpha=0.85)


def _draw_labels(axes: Axes, steps: Array, dice: Mapping[str, Array]) -> None:
    """Draw a line for each label: coloured, or all grey where there are too many colours."""
    if len(dice) <= len(LINES):
        for colour, (name, values) in zip(LINES, dice.items(), strict=False):
            text = format_legend_text(name)
            axes.plot(
                steps,
                values,
                color=colour,
                linewidth=1.3,
                marker=".",
                label=text,
            )
        return
    text = "each label"
    for values in dice.values():
        axes.plot(
            steps, values, color=FAINT, linewidth=1.3, marker=".", label=text
        )
        text = ""  # once in the legend is enough


def _gather_by_label(scores: Sequence[Mapping[str, float]]) -> dict[str, Array]:
    """Return label name → its score at each validation, NaN where it has none."""
    gathered: dict[str, Array] = {}
    for validation, by_label in enumerate(scores):
        for name, score in by_label.items():
            if name not in gathered:
                gathered[name] = np.full(len(scores), math.nan)
            gathered[name][validation] = score
    return gathered


def _draw_note(axes: Axes, text: str) -> None:
    axes.text(
        0.5,
        0.5,
        text,
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=FAINT,
    )


def _thin_out(curve: Curve) -> tuple[Array, Array]:
    """Return finite points, averaged in bins where there are too many to see."""
    points = np.array(curve, dtype=np.float64)
    points = points.reshape(-1, 2)  # an empty curve has no second axis
    is_finite = np.isfinite(points).all(axis=1)
    points = points[is_finite]
    if len(points) > _MOST_POINTS:
        bins = np.array_split(points, _MOST_POINTS)
        points = np.array([part.mean(axis=0) for part in bins])
    steps, values = points.T
    return steps, values


def _smooth(values: Array) -> Array:
    """Return the centred moving average over about a thirtieth of the curve."""
    from scipy.ndimage import uniform_filter1d

    if not len(values):
        return values
    width = 2 * (len(values) // 60) + 1
    smooth: Array = uniform_filter1d(values, width, mode="nearest")
    return smooth
