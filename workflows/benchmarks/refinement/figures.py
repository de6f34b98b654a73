"""How well a score tells bad results from good ones, with intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata, spearmanr

FAILED = 0.7
"""Results whose true Dice is lower have failed."""

WORST = 0.2
"""Share of results, by lowest score, that somebody can look at."""

RESAMPLES = 500

Numbers = npt.NDArray[np.float64]
Figure = Callable[[Numbers, Numbers], float]
"""Scores and true Dice of results → a number; NaN where it has no meaning."""


def auroc(scores: Numbers, dice: Numbers) -> float:
    """Chance that a failed result has a lower score than another; ties count half."""
    failed = dice < FAILED
    bad, good = int(failed.sum()), int((~failed).sum())
    if not bad or not good:
        return math.nan
    ranks = rankdata(-scores)[failed].sum()
    return float((ranks - bad * (bad + 1) / 2) / (bad * good))


def failures_found(scores: Numbers, dice: Numbers) -> float:
    """Share of failures among the worst fifth by score; equal scores share places."""
    failed = dice < FAILED
    if not failed.any():
        return math.nan
    count = round(WORST * len(scores))
    edge = np.sort(scores)[count - 1]
    below, at = scores < edge, scores == edge
    share = (count - below.sum()) / at.sum()
    return float(
        (failed[below].sum() + share * failed[at].sum()) / failed.sum()
    )


def most_found(_: Numbers, dice: Numbers) -> float:
    """What a perfect order would find: the worst fifth may be too small for all failures."""
    return failures_found(dice, dice)


def spearman(scores: Numbers, dice: Numbers) -> float:
    """Rank correlation of score and true Dice."""
    if len(np.unique(scores)) < 2 or len(np.unique(dice)) < 2:
        return math.nan
    return float(spearmanr(scores, dice).statistic)


def aurc(scores: Numbers, dice: Numbers) -> float:
    """Mean of 1 - Dice over the best k results by score, averaged over all k; lower is better."""
    # Equal scores: each as bad as their mean, or their order in the list would count.
    order = np.argsort(-scores, kind="stable")
    _, where = np.unique(-scores[order], return_inverse=True)
    means = np.bincount(where, 1 - dice[order]) / np.bincount(where)
    risk = means[where]
    return float(np.mean(np.cumsum(risk) / np.arange(1, len(risk) + 1)))


def error(scores: Numbers, dice: Numbers) -> float:
    """Mean distance of the score from the true Dice."""
    return float(np.abs(scores - dice).mean())


def covered(bounds: Numbers, dice: Numbers) -> float:
    """Share of results whose true Dice is not below the bound."""
    return float((dice >= bounds).mean())


FIGURES: Mapping[str, Figure] = {
    "AUROC": auroc,
    "failures in the worst 20 %": failures_found,
    "Spearman": spearman,
    "AURC": aurc,
    "mean error": error,
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "–"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def estimate(
    figure: Figure,
    scores: Sequence[float],
    dice: Sequence[float],
    patients: Sequence[str],
) -> Estimate:
    """Return a figure with its bootstrap interval over patients.

    Results of one patient are drawn together: they are not independent.
    """
    first, second = np.asarray(scores, float), np.asarray(dice, float)
    names = np.asarray(patients)
    members = [
        np.flatnonzero(names == name) for name in dict.fromkeys(patients)
    ]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        some = rng.integers(len(members), size=len(members))
        rows = np.concatenate([members[n] for n in some])
        drawn.append(figure(first[rows], second[rows]))
    known = [value for value in drawn if not math.isnan(value)]
    low, high = (
        np.quantile(known, (0.025, 0.975)) if known else (math.nan, math.nan)
    )
    return Estimate(figure(first, second), float(low), float(high))
