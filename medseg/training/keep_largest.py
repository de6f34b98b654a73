"""Whether a label is better off with its largest connected piece alone: decided on held-back cases.

Each held-back case is finished both ways, and the labels are decided one by one. What is taken
away from a label becomes background, so a label's decision changes no other label's Dice, and none
can get worse by another's. This is the rule of nnU-Net (Isensee et al. 2021, Nat Methods 18:203):
keep the largest piece alone where that has the better mean Dice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from medseg.bundle.spec import LargestDecision, LargestFinding
from medseg.metrics.metrics import CaseScores
from medseg.quality.calibration import CalibrationSample

Value = TypeVar("Value")

FEWEST_CASES = 5
"""A label in fewer held-back cases keeps every piece: so few say nothing about the next one."""


@dataclass(frozen=True, slots=True)
class CaseResults:
    """What held-back cases came to, finished in one way.

    Attributes:
        cases: Scores of the scans as they are.
        samples: Raw confidence and true Dice, of the scans and of corrupted copies.
    """

    cases: Sequence[CaseScores] = ()
    samples: Sequence[CalibrationSample] = ()


@dataclass(frozen=True, slots=True)
class HeldOutResults:
    """What held-back cases came to, in each way that may be chosen.

    Attributes:
        as_asked: Finished as the bundle asks; with every piece where that is to be decided.
        largest: The same cases with the largest piece of each label alone, in the same order;
            ``None`` where the bundle itself names the labels, and nothing is to be decided.
    """

    as_asked: CaseResults
    largest: CaseResults | None = None

    def decide(self) -> LargestFinding | None:
        """Decide label by label; ``None`` if there is nothing to decide, or no case to ask."""
        if self.largest is None or not self.as_asked.cases:
            return None
        pairs = list(zip(self.as_asked.cases, self.largest.cases, strict=True))
        names = dict.fromkeys(name for case in self.as_asked.cases for name in case.labels)
        decided = {name: _decide(name, pairs) for name in names}
        return LargestFinding(labels={name: one for name, one in decided.items() if one})

    def finished(self, finding: LargestFinding | None) -> CaseResults:
        """Return what the cases come to as was decided."""
        if finding is None or self.largest is None:
            return self.as_asked
        whole, largest, kept = self.as_asked, self.largest, set(finding.kept)
        return CaseResults(
            [
                replace(one, labels=dict(one.labels) | _only(other.labels, kept))
                for one, other in zip(whole.cases, largest.cases, strict=True)
            ],
            [
                replace(
                    one,
                    scores=dict(one.scores) | _only(other.scores, kept),
                    dice=dict(one.dice) | _only(other.dice, kept),
                    scores_at={
                        temperature: dict(scores) | _only(other.scores_at[temperature], kept)
                        for temperature, scores in one.scores_at.items()
                    },
                )
                for one, other in zip(whole.samples, largest.samples, strict=True)
            ],
        )


def join_folds(parts: Sequence[HeldOutResults]) -> HeldOutResults:
    """Return the cases of several folds as one; undecided only if each part is."""
    largest = [part.largest for part in parts if part.largest is not None]
    return HeldOutResults(
        join_results([part.as_asked for part in parts]),
        join_results(largest) if len(largest) == len(parts) else None,
    )


def join_results(outcomes: Sequence[CaseResults]) -> CaseResults:
    """Return several cases, or sets of them, finished in one way, as one."""
    return CaseResults(
        [case for outcome in outcomes for case in outcome.cases],
        [sample for outcome in outcomes for sample in outcome.samples],
    )


def explain(finding: LargestFinding) -> list[str]:
    """Say for each label what was decided and why, one sentence each."""
    return [_sentence(name, one) for name, one in finding.labels.items()]


def _decide(name: str, pairs: Sequence[tuple[CaseScores, CaseScores]]) -> LargestDecision | None:
    """Decide one label on the cases in which it is; ``None`` if it is in no case."""
    both = [(one.labels[name].dice, other.labels[name].dice) for one, other in pairs]
    known = np.array([pair for pair in both if not any(map(math.isnan, pair))])
    if not len(known):
        return None
    gains = known[:, 1] - known[:, 0]
    return LargestDecision(
        kept=bool(len(known) >= FEWEST_CASES and gains.mean() > 0),
        dice_before=float(known[:, 0].mean()),
        dice_after=float(known[:, 1].mean()),
        cases=len(known),
        better=int((gains > 0).sum()),
        worse=int((gains < 0).sum()),
    )


def _sentence(name: str, one: LargestDecision) -> str:
    figures = (
        f"Dice {one.dice_before:.4f} with every piece, {one.dice_after:.4f} with the largest "
        f"alone, which is better in {one.better} and worse in {one.worse} of {one.cases} cases"
    )
    if one.kept:
        return f"{name}: only the largest piece is kept ({figures})"
    few = f"; at least {FEWEST_CASES} cases are needed" if one.cases < FEWEST_CASES else ""
    return f"{name}: every piece is kept ({figures}{few})"


def _only(values: Mapping[str, Value], names: set[str]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if name in names}
