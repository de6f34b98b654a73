"""The record of a training: what curves, early stopping and the best weights depend on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from medseg.events import Event, StepDone
from medseg.plots.previews import TrainingCurves

Scores = Mapping[str, Mapping[str, float]]


DRAWN = ("dice", "ce", "adversarial", "critic")
"""Parts of the loss that the curves show, where there are any."""


class TrainingHistory:
    """Remembers every step's loss and every validation's scores; saved with checkpoints.

    Args:
        name: The bundle's name, for the title of the curves.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._steps: list[tuple[int, float, float]] = []
        self._parts: dict[str, list[tuple[int, float]]] = {}
        self.validations: list[tuple[int, Scores]] = []

    def __call__(self, event: Event) -> None:
        """Remember a step."""
        if isinstance(event, StepDone):
            self._steps.append((event.step, event.loss, event.learning_rate))
            for name, value in event.parts.items():
                self._parts.setdefault(name, []).append((event.step, value))

    def add_validation(self, step: int, scores: Scores) -> bool:
        """Remember a validation; return whether it is the best so far."""
        self.validations.append((step, scores))
        return self.best_step == step

    @property
    def best_dice(self) -> float:
        """Highest mean Dice so far; below any Dice before there is one."""
        return max((dice for _, dice in self._dice if not math.isnan(dice)), default=-1.0)

    @property
    def best_step(self) -> int | None:
        """Step of the best validation, the first of equals.

        Where no held-back case holds a label and none is found, Dice is no number. Nothing could be
        better, and nothing tells such weights apart: the latest are taken, which have learned most.
        """
        blank = [step for step, dice in self._dice if math.isnan(dice)]
        best = [step for step, dice in self._dice if dice == self.best_dice]
        return next(iter([*blank[-1:], *best]), None)

    @property
    def _dice(self) -> list[tuple[int, float]]:
        return [(step, scores["dice"]["mean"]) for step, scores in self.validations]

    def has_stalled(self, patience: int | None) -> bool:
        """Tell whether the last ``patience`` validations brought nothing better."""
        if patience is None or self.best_step is None:
            return False
        since = sum(step > self.best_step for step, _ in self.validations)
        return since >= patience

    @property
    def history(self) -> TrainingCurves:
        """The record as curves."""
        return TrainingCurves(
            self._name,
            losses=[(step, loss) for step, loss, _ in self._steps],
            parts={name: self._parts[name] for name in DRAWN if name in self._parts},
            learning_rates=[(step, rate) for step, _, rate in self._steps],
            validations=tuple(self.validations),
        )

    def mean_part(self, name: str, after: int) -> float | None:
        """Return the mean of a part of the loss over the steps after one; ``None`` without any."""
        values = [value for step, value in self._parts.get(name, ()) if step > after]
        return sum(values) / len(values) if values else None

    def state(self) -> dict[str, Any]:
        """Return the record as tensors and plain values."""
        scores = [
            [step, {metric: dict(labels) for metric, labels in found.items()}]
            for step, found in self.validations
        ]
        parts = {
            name: torch.tensor(values, dtype=torch.float64) for name, values in self._parts.items()
        }
        steps = torch.tensor(self._steps, dtype=torch.float64).reshape(-1, 3)
        return {"steps": steps, "parts": parts, "validations": scores}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved record."""
        self._steps = [(int(step), loss, rate) for step, loss, rate in state["steps"].tolist()]
        self._parts = {
            name: [(int(step), value) for step, value in values.tolist()]
            for name, values in state["parts"].items()
        }
        self.validations = [(int(step), scores) for step, scores in state["validations"]]

    def forget_after(self, step: int) -> None:
        """Forget what happened after a step."""
        self._steps = [one for one in self._steps if one[0] <= step]
        kept = {n: [one for one in values if one[0] <= step] for n, values in self._parts.items()}
        self._parts = {name: values for name, values in kept.items() if values}
        self.validations = [one for one in self.validations if one[0] <= step]
