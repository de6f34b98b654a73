"""How far a training run is: written by the run's process, read by viewers and the work list."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medseg import events
from medseg._support.files import write_atomically
from medseg.label_server.state import StateFolder

_EVERY = 5
"""Steps between two notes: a file is written for each."""
_MOST_POINTS = 200
"""Of a curve; when it has more, every second one is left out."""

_LOSSES = "losses"
_VALIDATIONS = "validations"

Points = list[tuple[int, float]]
"""Steps and values."""


@dataclass(frozen=True, slots=True)
class TrainingCurves:
    """How a training run went so far.

    Attributes:
        losses: Step and loss.
        validations: Step and mean Dice on the cases that choose the best weights.
    """

    losses: Points
    validations: Points


class TrainingProgress:
    """A listener that notes a training run's progress where viewers ask for it.

    Args:
        state: The state folder.
    """

    def __init__(self, state: StateFolder) -> None:
        self._file = state.progress
        self._stats: dict[str, float | int | str] = {
            "total_epochs": 1,
            "epoch": 0,
        }
        self._curves = TrainingCurves([], [])

    def __call__(self, event: events.Event) -> None:
        """Note steps and validations."""
        match event:
            case events.RunStarted():
                self._update(
                    total_epochs=event.total_steps, epoch=0, total_time=""
                )
            case events.StepDone() if event.step % _EVERY == 0:
                _add_point(self._curves.losses, event.step, event.loss)
                self._update(epoch=event.step)
            case events.ValidationDone():
                dice = event.scores["dice"]["mean"]
                _add_point(self._curves.validations, event.step, dice)
                self._update(best_metric=max(self._best(), dice))
            case events.RunDone():
                self._update(total_time="done")

    def _best(self) -> float:
        return float(self._stats.get("best_metric", 0))

    def _update(self, **stats: float | int | str) -> None:
        self._stats |= stats
        content = {
            **self._stats,
            _LOSSES: self._curves.losses,
            _VALIDATIONS: self._curves.validations,
        }
        write_atomically(self._file, json.dumps(content) + "\n")


def _add_point(points: Points, step: int, value: float) -> None:
    points.append((step, round(value, 5)))
    if len(points) > _MOST_POINTS:
        del points[1:-1:2]


def read_progress(state: StateFolder) -> Mapping[str, float | int | str]:
    """Return what the last training run noted of its progress."""
    content = _read(state)
    for curve in (_LOSSES, _VALIDATIONS):
        content.pop(curve, None)
    return content


def read_curves(state: StateFolder) -> TrainingCurves:
    """Return how the last training run went; without points if it did not say."""
    content = _read(state)
    losses = _parse_points(content.get(_LOSSES))
    return TrainingCurves(losses, _parse_points(content.get(_VALIDATIONS)))


def _read(state: StateFolder) -> dict[str, Any]:
    try:
        content = json.loads(state.progress.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _parse_points(points: object) -> Points:
    """Return a curve without what is no point of one, or no finite one."""
    parsed: Points = []
    for point in points if isinstance(points, list) else ():
        try:
            step, value = point
            parsed.append((int(step), float(value)))
        except (TypeError, ValueError):
            return []
    return [point for point in parsed if math.isfinite(point[1])]
