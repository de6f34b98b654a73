"""The history of a training run: what early stopping and the choice of the best weights rest on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from medseg.events import Event, StepDone
from medseg.plots.curves import TrainingCurves

Scores = Mapping[str, Mapping[str, float]]
"""``metric → label → mean over cases``; ``mean`` stands among the labels."""

DRAWN_PARTS = ("dice", "ce", "adversarial", "critic")
"""Parts of the loss that the curves show, where there are any."""


class TrainingHistory:
    """Records every step's loss and every validation's scores; saved with checkpoints.

    Args:
        name: The bundle's name, for the title of the curves.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._steps: list[tuple[int, float, float]] = []
        self._parts: dict[str, list[tuple[int, float]]] = {}
        self.validations: list[tuple[int, Scores]] = []

    def __call__(self, event: Event) -> None:
        """Record a step; other events are ignored."""
        if not isinstance(event, StepDone):
            return
        self._steps.append((event.step, event.loss, event.learning_rate))
        for name, value in event.parts.items():
            self._parts.setdefault(name, []).append((event.step, value))

    def add_validation(self, step: int, scores: Scores) -> bool:
        """Record a validation; return whether it is the best so far."""
        self.validations.append((step, scores))
        return self.best_step == step

    @property
    def best_dice(self) -> float:
        """Highest mean Dice so far; below any Dice before the first validation."""
        known = [dice for _, dice in self._mean_dice if not math.isnan(dice)]
        return max(known, default=-1.0)

    @property
    def best_step(self) -> int | None:
        """Step of the best validation, the first of equals; ``None`` before the first.

        Where no held-out case holds a label and none is predicted, Dice is NaN. Nothing could be
        better, and nothing tells such weights apart, so the latest ones are taken.
        """
        undefined = [step for step, dice in self._mean_dice if math.isnan(dice)]
        if undefined:
            return undefined[-1]
        best_dice = self.best_dice
        for step, dice in self._mean_dice:
            if dice == best_dice:
                return step
        return None

    @property
    def _mean_dice(self) -> list[tuple[int, float]]:
        return [(step, scores["dice"]["mean"]) for step, scores in self.validations]

    def has_stalled(self, patience: int | None) -> bool:
        """Return whether the last ``patience`` validations brought nothing better."""
        best_step = self.best_step
        if patience is None or best_step is None:
            return False
        validations_since = sum(step > best_step for step, _ in self.validations)
        return validations_since >= patience

    @property
    def curves(self) -> TrainingCurves:
        """The history as curves to draw."""
        parts = {name: self._parts[name] for name in DRAWN_PARTS if name in self._parts}
        return TrainingCurves(
            self._name,
            losses=[(step, loss) for step, loss, _ in self._steps],
            parts=parts,
            learning_rates=[(step, rate) for step, _, rate in self._steps],
            validations=tuple(self.validations),
        )

    def mean_part(self, name: str, after: int) -> float | None:
        """Return the mean of a part of the loss over the steps after one; ``None`` if none."""
        values = [value for step, value in self._parts.get(name, ()) if step > after]
        if not values:
            return None
        return sum(values) / len(values)

    def state(self) -> dict[str, Any]:
        """Return the history as tensors and plain values."""
        validations = []
        for step, scores in self.validations:
            plain_scores = {metric: dict(by_label) for metric, by_label in scores.items()}
            validations.append([step, plain_scores])
        parts = {}
        for name, values in self._parts.items():
            parts[name] = torch.tensor(values, dtype=torch.float64)
        steps = torch.tensor(self._steps, dtype=torch.float64).reshape(-1, 3)
        return {"steps": steps, "parts": parts, "validations": validations}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Return to a saved history."""
        self._steps = []
        for step, loss, rate in state["steps"].tolist():
            self._steps.append((int(step), loss, rate))
        self._parts = {}
        for name, values in state["parts"].items():
            self._parts[name] = [(int(step), value) for step, value in values.tolist()]
        self.validations = [(int(step), scores) for step, scores in state["validations"]]
