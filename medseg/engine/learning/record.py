"""The record of a training: what curves, early stopping and the best weights depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from medseg.tools.reporting import History
from medseg.words.events import Event, StepDone

Scores = Mapping[str, Mapping[str, float]]


class Record:
    """Remembers every step's loss and every validation's scores; saved with checkpoints.

    Args:
        name: The bundle's name, for the title of the curves.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._steps: list[tuple[int, float, float, float, float]] = []
        self.validations: list[tuple[int, Scores]] = []

    def __call__(self, event: Event) -> None:
        """Remember a step."""
        if isinstance(event, StepDone):
            parts = (event.parts.get("dice", 0.0), event.parts.get("ce", 0.0))
            self._steps.append((event.step, event.loss, *parts, event.learning_rate))

    def add_validation(self, step: int, scores: Scores) -> bool:
        """Remember a validation; return whether its mean Dice is the best so far."""
        is_best = scores["dice"]["mean"] > self.best_dice
        self.validations.append((step, scores))
        return is_best

    @property
    def best_dice(self) -> float:
        """Highest mean Dice so far; below any Dice before the first validation."""
        return max((scores["dice"]["mean"] for _, scores in self.validations), default=-1.0)

    @property
    def best_step(self) -> int | None:
        """Step of the best validation, the first of equals."""
        best = [
            step for step, scores in self.validations if scores["dice"]["mean"] == self.best_dice
        ]
        return best[0] if best else None

    def has_stalled(self, patience: int | None) -> bool:
        """Tell whether the last ``patience`` validations brought nothing better."""
        if patience is None or self.best_step is None:
            return False
        since = sum(step > self.best_step for step, _ in self.validations)
        return since >= patience

    @property
    def history(self) -> History:
        """The record as curves."""
        steps = [int(step) for step, *_ in self._steps]
        columns = list(zip(*self._steps, strict=True)) or [()] * 5
        curve = [list(zip(steps, column, strict=True)) for column in columns]
        return History(
            self._name,
            losses=curve[1],
            parts={"dice": curve[2], "ce": curve[3]},
            learning_rates=curve[4],
            validations=tuple(self.validations),
        )

    def state(self) -> dict[str, Any]:
        """Return the record as tensors and plain values."""
        scores = [
            [step, {metric: dict(labels) for metric, labels in found.items()}]
            for step, found in self.validations
        ]
        return {"steps": torch.tensor(self._steps, dtype=torch.float64), "validations": scores}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved record."""
        self._steps = [
            (int(step), loss, dice, ce, rate)
            for step, loss, dice, ce, rate in state["steps"].tolist()
        ]
        self.validations = [(int(step), scores) for step, scores in state["validations"]]
