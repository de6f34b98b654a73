"""The history of a training run: what early stopping and the choice of the best weights rest on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from medseg.events import Event, StepDone
from medseg.plots.curves import TrainingCurves

Scores = Mapping[str, Mapping[str, float]]
"""``metric → label → mean over cases``; ``mean`` stands among the labels."""

DRAWN_PARTS = ("dice", "ce", "adversarial", "critic")
"""Parts of the loss that the curves show, where there are any."""


CLICKS_TOLERANCE = 0.005
"""Dice without clicks that the weights of an interactive bundle may be below the highest. They go
on to learn to follow clicks, which that Dice does not show, so the latest of them are kept."""


class _Step(NamedTuple):
    step: int
    loss: float
    learning_rate: float


class _Value(NamedTuple):
    step: int
    value: float


class _Validation(NamedTuple):
    step: int
    scores: Scores

    @property
    def mean_dice(self) -> float:
        return self.scores["dice"]["mean"]


class TrainingHistory:
    """Records every step's loss and every validation's scores; saved with checkpoints.

    Args:
        name: The bundle's name, for the title of the curves.
        tolerance: By how much lower a mean Dice than the highest counts as good as that, so that
            the latest such weights are the best.
    """

    def __init__(self, name: str, tolerance: float = 0.0) -> None:
        self._name = name
        self._tolerance = tolerance
        self._steps: list[_Step] = []
        self._parts: dict[str, list[_Value]] = {}
        self._validations: list[_Validation] = []

    @property
    def validations(self) -> Sequence[tuple[int, Scores]]:
        """Step and scores of each validation."""
        return self._validations

    def __call__(self, event: Event) -> None:
        """Record a step; other events are ignored."""
        if not isinstance(event, StepDone):
            return
        step = event.step
        entry = _Step(step, event.loss, event.learning_rate)
        self._steps.append(entry)
        for name, value in event.parts.items():
            values = self._parts.setdefault(name, [])
            values.append(_Value(step, value))

    def add_validation(self, step: int, scores: Scores) -> bool:
        """Record a validation; return whether it is the best so far."""
        self._validations.append(_Validation(step, scores))
        return self.best_step == step

    @property
    def best_dice(self) -> float:
        """Highest mean Dice so far; below any Dice before the first validation."""
        best = -1.0
        for validation in self._validations:
            # NaN is greater than nothing, so that max keeps the best so far.
            best = max(best, validation.mean_dice)
        return best

    @property
    def best_step(self) -> int | None:
        """Step of the best validation, the first of equals; ``None`` before the first.

        With a tolerance it is the last of those that are as good.

        Where no held-out case holds a label and none is predicted, Dice is NaN. Nothing could be
        better, and nothing tells such weights apart, so the latest ones are taken.
        """
        for validation in reversed(self._validations):
            if math.isnan(validation.mean_dice):
                return validation.step
        best_dice = self.best_dice
        if self._tolerance:
            lowest = best_dice - self._tolerance
            for validation in reversed(self._validations):
                if validation.mean_dice >= lowest:
                    return validation.step
        for validation in self._validations:
            if validation.mean_dice == best_dice:
                return validation.step
        return None

    def has_stalled(self, patience: int | None) -> bool:
        """Return whether the last ``patience`` validations brought nothing better."""
        best_step = self.best_step
        if patience is None or best_step is None:
            return False
        without_gain = 0
        for validation in self._validations:
            if validation.step > best_step:
                without_gain += 1
        return without_gain >= patience

    @property
    def curves(self) -> TrainingCurves:
        """The history as curves to draw."""
        losses = []
        rates = []
        for step, loss, rate in self._steps:
            losses.append((step, loss))
            rates.append((step, rate))
        parts = {}
        for name in DRAWN_PARTS:
            if name in self._parts:
                parts[name] = self._parts[name]
        return TrainingCurves(
            self._name,
            losses=losses,
            parts=parts,
            learning_rates=rates,
            validations=tuple(self._validations),
        )

    def mean_part(self, name: str, after: int) -> float | None:
        """Return the mean of a part of the loss over the steps after one; ``None`` if none."""
        values = []
        for step, value in self._parts.get(name, []):
            if step > after:
                values.append(value)
        if not values:
            return None
        return sum(values) / len(values)

    def state(self) -> dict[str, Any]:
        """Return the history as tensors and plain values."""
        validations = []
        for step, scores in self._validations:
            plain = {}
            for metric, by_label in scores.items():
                plain[metric] = dict(by_label)
            validations.append([step, plain])
        parts = {}
        for name, values in self._parts.items():
            parts[name] = torch.tensor(values, dtype=torch.float64)
        steps = torch.tensor(self._steps, dtype=torch.float64)
        return {
            "steps": steps.reshape(-1, 3),
            "parts": parts,
            "validations": validations,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Return to a saved history."""
        self._steps = []
        for step, loss, rate in state["steps"].tolist():
            self._steps.append(_Step(int(step), loss, rate))
        self._parts = {}
        for name, values in state["parts"].items():
            restored = self._parts[name] = []
            for step, value in values.tolist():
                restored.append(_Value(int(step), value))
        self._validations = []
        for step, scores in state["validations"]:
            self._validations.append(_Validation(int(step), scores))
