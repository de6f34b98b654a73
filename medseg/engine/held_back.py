"""Held-back scans, segmented by the path users take: how good results are, and how well that
can be told without knowing the truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from medseg.engine.corruptions import CORRUPTIONS, corrupt
from medseg.engine.segmenter import Segmentation, Segmenter
from medseg.tools.calibration import Sample
from medseg.tools.metrics import CaseScores, score_case
from medseg.words.volume import Array, Volume


@dataclass(frozen=True, slots=True)
class HeldBackCase:
    """One held-back case, open.

    Attributes:
        name: What results call it; no patient's name.
        volume: Its scan.
        reference: Its label indices ``(i, j, k)`` on the scan's grid.
    """

    name: str
    volume: Volume
    reference: Array


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of one held-back case.

    Attributes:
        scores: Of the scan as it is.
        samples: Raw confidence and true Dice, of the scan as it is and of corrupted copies.
    """

    scores: CaseScores
    samples: tuple[Sample, ...]


def judge_held_back(
    segmenter: Segmenter, cases: Iterable[HeldBackCase], *, count: int, copies: int, seed: int
) -> Iterator[Judged]:
    """Segment held-back cases and corrupted copies of them.

    Args:
        segmenter: With the weights to judge.
        cases: The cases, opened as late as possible.
        count: How many cases there are.
        copies: Corrupted copies to make in all, shared out evenly over cases and kinds.
        seed: Of the corruptions.

    Yields:
        One record per case, in order.
    """
    for position, case in enumerate(cases):
        scores, clean = _judged(segmenter, case, case.volume, is_clean=True)
        samples = [clean]
        for copy in range(position, copies, count):
            rng = np.random.default_rng((seed, copy))
            kind = list(CORRUPTIONS)[copy % len(CORRUPTIONS)]
            severity = float(rng.uniform(0.1, 1.0))
            worse = corrupt(case.volume, kind, severity, int(rng.integers(2**31)))
            samples.append(_judged(segmenter, case, worse, is_clean=False)[1])
        yield Judged(scores, tuple(samples))


def _judged(
    segmenter: Segmenter, case: HeldBackCase, volume: Volume, *, is_clean: bool
) -> tuple[CaseScores, Sample]:
    found: Segmentation = segmenter.segment(volume)
    scores = score_case(
        found.labels,
        case.reference,
        found.label_set,
        volume.spacing,
        case=case.name,
        voxel_ml=volume.voxel_ml,
    )
    return scores, Sample(case.name, found.confidence, scores["dice"], is_clean)
