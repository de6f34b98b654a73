"""Held-back scans, segmented by the path users take: how good results are, and how well that
can be told without knowing the truth."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.inference.segmentation import Segmentation
from medseg.inference.segmenter import Segmenter
from medseg.metrics.metrics import score_case, score_dice
from medseg.quality.calibration import TEMPERATURES, CalibrationSample
from medseg.quality.corruptions import CORRUPTIONS, corrupt_volume
from medseg.training.keep_largest import CaseResults
from medseg.volume import Array, Volume


@dataclass(frozen=True, slots=True)
class HeldOutCase:
    """One held-back case, open.

    Attributes:
        name: What results call it; no patient's name.
        volume: Its scan.
        reference: Its label indices ``(i, j, k)`` on the scan's grid.
    """

    name: str
    volume: Volume
    reference: Array


def score_held_out_cases(
    segmenter: Segmenter,
    cases: Iterable[HeldOutCase],
    ways: Sequence[Collection[str]],
    *,
    count: int,
    copies: int,
    seed: int,
) -> Iterator[tuple[CaseResults, ...]]:
    """Segment held-back cases and corrupted copies of them.

    Args:
        segmenter: With the weights to judge.
        cases: The cases, opened as late as possible.
        ways: How to finish each result: the ``keep_largest`` of ``Prediction.finish``.
        count: How many cases there are.
        copies: Corrupted copies to make in all, shared out evenly over cases and kinds.
        seed: Of the corruptions.

    Yields:
        For each case, in order, what it came to in each way.
    """
    for position, case in enumerate(cases):
        outcomes = _judged(segmenter, case, case.volume, ways, is_clean=True)
        for copy in range(position, copies, count):
            rng = np.random.default_rng((seed, copy))
            kind = list(CORRUPTIONS)[copy % len(CORRUPTIONS)]
            severity = float(rng.uniform(0.1, 1.0))
            worse = corrupt_volume(case.volume, kind, severity, int(rng.integers(2**31)))
            made = _judged(segmenter, case, worse, ways, is_clean=False)
            outcomes = [
                CaseResults(one.cases, [*one.samples, *other.samples])
                for one, other in zip(outcomes, made, strict=True)
            ]
        yield tuple(outcomes)


def _judged(
    segmenter: Segmenter,
    case: HeldOutCase,
    volume: Volume,
    ways: Sequence[Collection[str]],
    *,
    is_clean: bool,
) -> list[CaseResults]:
    prediction = segmenter.predict(volume, temperatures=TEMPERATURES)
    results = [prediction.finish(keep_largest=way) for way in ways]
    outcomes: list[CaseResults] = []
    for found in results:
        # Distances between surfaces take long, and most results are in one piece.
        equal = (
            outcome
            for outcome, other in zip(outcomes, results, strict=False)
            if np.array_equal(other.labels, found.labels)
        )
        outcomes.append(next(equal, None) or _scored(found, case, is_clean))
    return outcomes


def _scored(found: Segmentation, case: HeldOutCase, is_clean: bool) -> CaseResults:
    if not is_clean:  # only what calibration needs: surfaces take long
        dice = score_dice(found.labels, case.reference, found.label_set)
        return CaseResults((), [_sample(found, case, dice, is_clean)])
    scores = score_case(
        found.labels,
        case.reference,
        found.label_set,
        case.volume.spacing,
        case=case.name,
        voxel_ml=case.volume.voxel_ml,
    )
    return CaseResults([scores], [_sample(found, case, scores["dice"], is_clean)])


def _sample(
    found: Segmentation, case: HeldOutCase, dice: Mapping[str, float], is_clean: bool
) -> CalibrationSample:
    return CalibrationSample(case.name, found.confidence, dice, is_clean, found.confidence_at)
