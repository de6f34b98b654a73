"""When a benchmark may say that something helps, and when it may not.

A gain is claimed only over the same head without a critic, with at least five seeds, an interval
that does not reach 0, and a size that matters. A critic that never told true masks from made ones
taught nothing, whatever the masks look like.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.bundle.spec import SEPARATES

FEWEST_SEEDS = 5
LEAST_DICE, LEAST_HD95 = 0.003, -0.05
"""Smallest gain in Dice, and smallest relative change of HD95, that is worth a claim."""

RESAMPLES = 2000

Table = npt.NDArray[np.float64]
"""One number for each seed and case, ``(seeds, cases)``."""


@dataclass(frozen=True, slots=True)
class Change:
    """A mean difference between two arms, paired by seed and case, with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def change(
    first: Table,
    second: Table,
    patients: Sequence[str],
    *,
    relative: bool = False,
) -> Change:
    """Return how the first arm differs from the second.

    The interval is a bootstrap over seeds and patients: both are drawn anew.

    Args:
        first: Of the one arm.
        second: Of the other: the same seeds and cases.
        patients: Whose each case is.
        relative: Whether the difference is divided by the second arm's mean.
    """
    names = np.asarray(patients)
    members = [
        np.flatnonzero(names == name) for name in dict.fromkeys(patients)
    ]
    rng = np.random.default_rng(0)

    def of(one: Table, other: Table) -> float:
        gain = float(one.mean() - other.mean())
        return gain / float(other.mean()) if relative else gain

    drawn = []
    for _ in range(RESAMPLES):
        seeds = rng.integers(len(first), size=len(first))
        some = rng.integers(len(members), size=len(members))
        cases = np.concatenate([members[n] for n in some])
        drawn.append(of(first[seeds][:, cases], second[seeds][:, cases]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Change(of(first, second), float(low), float(high))


def verdict(
    dice: Change, hd95: Change, seeds: int, gaps: Sequence[float] | None = None
) -> str:
    """Return what may be said of a difference between two arms.

    Args:
        dice: Of mean Dice.
        hd95: Of HD95, relative.
        seeds: How many trainings of each arm there were.
        gaps: How far apart each critic scored true and made masks, where the claim is about one.
    """
    if gaps is not None and not all(gap >= SEPARATES for gap in gaps):
        lowest = min(
            gaps, key=lambda gap: -math.inf if math.isnan(gap) else gap
        )
        return f"invalid: a critic's gap was {lowest:.2f}, below {SEPARATES}"
    if seeds < FEWEST_SEEDS:
        return f"no claim: {seeds} of {FEWEST_SEEDS} seeds"
    better = dice.value >= LEAST_DICE and dice.low > 0
    closer = hd95.value <= LEAST_HD95 and hd95.high < 0
    worse = dice.high < 0 or hd95.low > 0
    if (better or closer) and not worse:
        return "helps"
    return "harms" if worse and not (better or closer) else "not shown to help"
