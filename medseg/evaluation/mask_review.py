"""What a bundle thinks of masks made by someone else, the worst first: in memory and as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from medseg.errors import Fault
from medseg.quality.estimates import Agreement, MaskQuality

MEAN = "mean"
"""The label name under which the mean over a case's structures stands."""

COLUMNS = (
    "case",
    "label",
    "expected_dice",
    "lower_bound",
    "raw_expected_dice",
    "dice_with_bundle",
    "bundle_expected_dice",
    "bundle_lower_bound",
    "review",
)
"""Columns of ``agreement.csv``."""


@dataclass(frozen=True, slots=True)
class JudgedMask:
    """One mask and what the bundle thinks of it."""

    case: str
    quality: MaskQuality


@dataclass(frozen=True, slots=True)
class MaskReview:
    """What a bundle thinks of masks made by someone else.

    Attributes:
        cases: Each mask, the worst first: those in which neither the mask nor the bundle found
            anything, then from the lowest Dice with the bundle's own mask up.
        faults: What could not be judged.
        coverage: How often bounds hold on scans like those the bundle was calibrated on; ``None``
            if it is not calibrated.
    """

    cases: tuple[JudgedMask, ...]
    faults: tuple[Fault, ...]
    coverage: float | None = None

    @property
    def to_review(self) -> tuple[JudgedMask, ...]:
        """The masks that someone should look at first, worst first."""
        return tuple(one for one in self.cases if one.quality.review)

    def rows(self) -> list[dict[str, float | str | None]]:
        """Return a row for each case's mean and each of its structures, as in ``agreement.csv``."""
        return [row for one in self.cases for row in _rows(one)]

    def summary_rows(self) -> list[tuple[str, ...]]:
        """Return each case as cells of a table, the worst first: the heading, then the cases."""
        expected = "expected, raw" if self.coverage is None else "expected"
        heading = ("case", "as bundle's", "worst label", expected, "bundle's own", "review")
        return [heading, *(_summary(one) for one in self.cases)]


def review_order(one: JudgedMask) -> tuple[float, str]:
    """Order judged masks for people.

    By Dice with the bundle's own mask: of all that is known here it was closest to the true Dice
    (docs/benchmarks/refinement.md).
    """
    mean = one.quality.mean
    return (-1.0 if mean is None else mean.dice), one.case.casefold()


def agreement_csv(review: MaskReview) -> str:
    """Return the content of ``agreement.csv``; cells are empty where there is nothing to say."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in review.rows():
        table.writerow({key: _cell(value) for key, value in row.items()})
    return text.getvalue()


def _rows(one: JudgedMask) -> Iterator[dict[str, float | str | None]]:
    quality, own = one.quality, one.quality.own
    estimates = {MEAN: (own.expected, own.lower)}
    estimates |= {name: (found.expected, found.lower) for name, found in own.labels.items()}
    for name, found in {MEAN: quality.mean, **quality.labels}.items():
        expected, lower = estimates.get(name, (None, None))
        yield {
            "case": one.case,
            "label": name,
            **_columns(found),
            "bundle_expected_dice": expected,
            "bundle_lower_bound": lower,
            "review": int(quality.review),
        }


def _columns(found: Agreement | None) -> dict[str, float | None]:
    if found is None:
        keys = ("expected_dice", "lower_bound", "raw_expected_dice", "dice_with_bundle")
        return dict.fromkeys(keys)
    return {
        "expected_dice": found.expected,
        "lower_bound": found.lower,
        "raw_expected_dice": found.raw,
        "dice_with_bundle": found.dice,
    }


def _cell(value: float | str | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _summary(one: JudgedMask) -> tuple[str, ...]:
    mean, labels = one.quality.mean, one.quality.labels
    own = one.quality.own.expected
    flag = "review" if one.quality.review else ""
    if mean is None:
        return (one.case, "–", "nothing found", "–", "–", flag)
    worst, lowest = min(labels.items(), key=lambda item: item[1].dice)
    return (
        one.case,
        f"{mean.dice:.3f}",
        f"{worst} {lowest.dice:.3f}",
        f"{mean.score:.3f}",
        "–" if own is None else f"{own:.3f}",
        flag,
    )
