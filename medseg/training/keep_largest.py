"""Which labels keep only their largest connected component, decided on held-out cases.

Each held-out case is postprocessed both ways, and labels are decided one by one. What is removed
from a label becomes background, so a label's decision changes no other label's Dice. This is
nnU-Net's rule (Isensee et al. 2021, Nat Methods 18:203): keep the largest component alone where
that has the better mean Dice.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from medseg.bundle.spec import KeepLargestDecision, KeepLargestFinding
from medseg.metrics.metrics import ABSENT, CaseScores
from medseg.quality.calibration import CalibrationSample

MIN_CASES = 5
"""A label in fewer held-out cases keeps every component: so few say nothing about the next one."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class CaseResults:
    """Results of held-out cases with one kind of postprocessing.

    Attributes:
        cases: Scores of the scans as they are.
        samples: Raw confidence and true Dice, of the scans and of corrupted copies.
    """

    cases: Sequence[CaseScores] = ()
    samples: Sequence[CalibrationSample] = ()


@dataclass(frozen=True, slots=True)
class HeldOutResults:
    """Results of held-out cases with each postprocessing that may be chosen.

    Attributes:
        requested: With what the bundle requests; with every component where that is undecided.
        largest: The same cases with the largest component of each label alone, in the same order;
            ``None`` where the bundle itself names the labels, and nothing is to be decided.
    """

    requested: CaseResults
    largest: CaseResults | None = None

    def decide(self) -> KeepLargestFinding | None:
        """Decide label by label; ``None`` if there is nothing to decide, or no case to ask."""
        if self.largest is None or not self.requested.cases:
            return None
        cases = self.requested.cases
        decisions = {}
        for name in cases[0].labels:
            decision = _decide_label(name, cases, self.largest.cases)
            if decision is not None:
                decisions[name] = decision
        return KeepLargestFinding(labels=decisions)

    def postprocessed(self, finding: KeepLargestFinding | None) -> CaseResults:
        """Return the results with the postprocessing that was decided."""
        if finding is None or self.largest is None:
            return self.requested
        kept = set(finding.kept)
        requested, largest = self.requested, self.largest
        cases = []
        for case, other_case in zip(
            requested.cases, largest.cases, strict=True
        ):
            cases.append(_merge_cases(case, other_case, kept))
        samples = []
        for sample, other_sample in zip(
            requested.samples, largest.samples, strict=True
        ):
            samples.append(_merge_samples(sample, other_sample, kept))
        return CaseResults(cases, samples)

    def without_labels(self, names: Collection[str]) -> HeldOutResults:
        """Return the results as if nothing were known of some labels' truth."""
        largest = self.largest
        return HeldOutResults(
            _forget(self.requested, names),
            None if largest is None else _forget(largest, names),
        )


NOTHING_HELD_OUT = HeldOutResults(CaseResults())
"""Results of a run that was trained on every case."""


def join_folds(folds: Sequence[HeldOutResults]) -> HeldOutResults:
    """Return the cases of several folds as one; to be decided only if each fold's are."""
    requested = []
    largest = []
    for fold in folds:
        requested.append(fold.requested)
        if fold.largest is not None:
            largest.append(fold.largest)
    joined = join_results(requested)
    if len(largest) < len(folds):
        return HeldOutResults(joined)
    return HeldOutResults(joined, join_results(largest))


def join_results(parts: Sequence[CaseResults]) -> CaseResults:
    """Return several cases, or sets of them, with one kind of postprocessing, as one."""
    cases: list[CaseScores] = []
    samples: list[CalibrationSample] = []
    for part in parts:
        cases.extend(part.cases)
        samples.extend(part.samples)
    return CaseResults(cases, samples)


def explain(finding: KeepLargestFinding) -> list[str]:
    """Describe for each label what was decided and why, one sentence each."""
    sentences = []
    for name, decision in finding.labels.items():
        sentences.append(_explain_decision(name, decision))
    return sentences


def _forget(results: CaseResults, names: Collection[str]) -> CaseResults:
    cases = []
    absent = dict.fromkeys(names, ABSENT)
    for case in results.cases:
        labels = _replace_labels(case.labels, absent, names)
        cases.append(replace(case, labels=labels))
    samples = []
    unknown = dict.fromkeys(names, math.nan)
    for sample in results.samples:
        dice = _replace_labels(sample.dice, unknown, names)
        samples.append(replace(sample, dice=dice))
    return CaseResults(cases, samples)


def _decide_label(
    name: str, cases: Sequence[CaseScores], largest: Sequence[CaseScores]
) -> KeepLargestDecision | None:
    """Decide one label on the cases that hold it; ``None`` if no case does."""
    pairs = []
    for case, case_with_largest in zip(cases, largest, strict=True):
        before = case.labels[name].dice
        after = case_with_largest.labels[name].dice
        if math.isnan(before) or math.isnan(after):
            continue
        pairs.append((before, after))
    if not pairs:
        return None
    dice_before, dice_after = np.array(pairs).T
    gains = dice_after - dice_before
    is_better = bool(gains.mean() > 0)
    return KeepLargestDecision(
        kept=is_better and len(pairs) >= MIN_CASES,
        dice_before=float(dice_before.mean()),
        dice_after=float(dice_after.mean()),
        cases=len(pairs),
        better=int((gains > 0).sum()),
        worse=int((gains < 0).sum()),
    )


def _explain_decision(name: str, decision: KeepLargestDecision) -> str:
    figures = (
        f"Dice {decision.dice_before:.4f} with all components, {decision.dice_after:.4f} with the "
        f"largest alone, which is better in {decision.better} and worse in {decision.worse} of "
        f"{decision.cases} cases"
    )
    if decision.kept:
        return (
            f"{name}: only the largest connected component is kept ({figures})"
        )
    if decision.cases < MIN_CASES:
        figures += f"; at least {MIN_CASES} cases are needed"
    return f"{name}: all connected components are kept ({figures})"


def _merge_cases(
    case: CaseScores, largest: CaseScores, kept: Collection[str]
) -> CaseScores:
    labels = _replace_labels(case.labels, largest.labels, kept)
    return replace(case, labels=labels)


def _merge_samples(
    sample: CalibrationSample, largest: CalibrationSample, kept: Collection[str]
) -> CalibrationSample:
    scores_at = {}
    for temperature, scores in sample.scores_at.items():
        largest_scores = largest.scores_at[temperature]
        scores_at[temperature] = _replace_labels(scores, largest_scores, kept)
    return replace(
        sample,
        scores=_replace_labels(sample.scores, largest.scores, kept),
        dice=_replace_labels(sample.dice, largest.dice, kept),
        scores_at=scores_at,
    )


def _replace_labels(
    values: Mapping[str, _Value],
    others: Mapping[str, _Value],
    names: Collection[str],
) -> dict[str, _Value]:
    """Return the values by label, with those of some labels replaced."""
    merged = dict(values)
    for name in others:
        if name in names:
            merged[name] = others[name]
    return merged
