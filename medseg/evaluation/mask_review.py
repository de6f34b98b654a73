"""The review of masks by others: what a bundle thinks of each, in memory and as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from medseg._support.tables import defuse_cell
from medseg.errors import Fault
from medseg.quality.estimates import Agreement, MaskQuality, Quality

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
    "reasons",
)
"""Columns of ``agreement.csv``."""

_Row = dict[str, float | str | None]


@dataclass(frozen=True, slots=True)
class JudgedMask:
    """One mask and what the bundle thinks of it."""

    case: str
    quality: MaskQuality


@dataclass(frozen=True, slots=True)
class MaskReview:
    """What a bundle thinks of masks by others.

    Attributes:
        cases: Each mask, the worst first: those in which neither the mask nor the bundle found
            anything, then from the lowest Dice with the bundle's own mask up.
        faults: What could not be judged.
        coverage: How often bounds hold on scans like those the bundle was calibrated on; ``None``
            if it is not calibrated, or was trained on made-up data.

    Examples:
        >>> from medseg import MaskQuality, MaskReview, Quality
        >>> from medseg.evaluation.mask_review import JudgedMask
        >>> from medseg.quality.estimates import Agreement
        >>> agreement = Agreement(raw=0.4, dice=0.5)
        >>> quality = MaskQuality(agreement, {"liver": agreement}, Quality(0.9), review=True)
        >>> review = MaskReview((JudgedMask("case_7", quality),), faults=())
        >>> [mask.case for mask in review.to_review]
        ['case_7']
        >>> review.rows()[1]["dice_with_bundle"]
        0.5
    """

    cases: tuple[JudgedMask, ...]
    faults: tuple[Fault, ...]
    coverage: float | None = None

    @property
    def to_review(self) -> tuple[JudgedMask, ...]:
        """The masks that someone should look at first, worst first."""
        return tuple(mask for mask in self.cases if mask.quality.review)

    def rows(self) -> list[dict[str, float | str | None]]:
        """Return a row for each case's mean and each of its structures, as in ``agreement.csv``."""
        rows: list[_Row] = []
        for mask in self.cases:
            rows.extend(_rows(mask))
        return rows

    def summary_rows(self) -> list[tuple[str, ...]]:
        """Return each case as cells of a table, the worst first: the heading, then the cases."""
        heading = (
            "case",
            "as bundle's",
            "worst label",
            "expected",
            "bundle's own",
            "review",
        )
        rows = [_make_summary_row(mask) for mask in self.cases]
        return [heading, *rows]


def review_order(mask: JudgedMask) -> tuple[float, str]:
    """Order judged masks, the worst first.

    By Dice with the bundle's own mask: of all that is known without references, it was closest to
    the true Dice (docs/benchmarks/refinement.md).
    """
    mean = mask.quality.mean
    dice = -1.0 if mean is None else mean.dice
    return dice, mask.case.casefold()


def format_agreement_csv(review: MaskReview) -> str:
    """Return the content of ``agreement.csv``; cells are empty where there is nothing to say."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in review.rows():
        table.writerow(
            {column: _format_cell(value) for column, value in row.items()}
        )
    return text.getvalue()


def _rows(mask: JudgedMask) -> Iterator[_Row]:
    """Yield the row of a case's mean, then one for each structure that either mask holds."""
    quality = mask.quality
    agreements: dict[str, Agreement | None] = {
        MEAN: quality.mean,
        **quality.labels,
    }
    for name, agreement in agreements.items():
        expected, lower = _find_own_estimate(quality.own, name)
        yield {
            "case": mask.case,
            "label": name,
            **_format_agreement(agreement, quality.own.is_judged),
            "bundle_expected_dice": expected,
            "bundle_lower_bound": lower,
            "review": int(quality.review),
            "reasons": "; ".join(quality.reasons),
        }


def _find_own_estimate(
    own: Quality, name: str
) -> tuple[float | None, float | None]:
    """Return expected Dice and its bound of a structure of the bundle's own mask.

    Returns:
        ``None`` where the mask does not have it, or no number may be shown.
    """
    if not own.is_judged:
        return None, None
    if name in own.labels:
        label = own.labels[name]
        return label.expected, label.lower
    if name == MEAN:
        return own.expected, own.lower
    return None, None


def _format_agreement(agreement: Agreement | None, is_judged: bool) -> _Row:
    if agreement is None:
        keys = (
            "expected_dice",
            "lower_bound",
            "raw_expected_dice",
            "dice_with_bundle",
        )
        return dict.fromkeys(keys)
    return {
        "expected_dice": agreement.expected if is_judged else None,
        "lower_bound": agreement.lower if is_judged else None,
        "raw_expected_dice": agreement.raw,
        "dice_with_bundle": agreement.dice,
    }


def _format_cell(value: float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return defuse_cell(value)
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _make_summary_row(mask: JudgedMask) -> tuple[str, ...]:
    quality = mask.quality
    flag = "review" if quality.review else ""
    if quality.mean is None:
        return (mask.case, "–", "nothing found", "–", "–", flag)
    worst = min(quality.labels, key=lambda name: quality.labels[name].dice)
    own = quality.own.shown.text
    expected = own
    if quality.own.is_judged:
        expected = f"{quality.mean.score:.2f}"
    return (
        mask.case,
        f"{quality.mean.dice:.3f}",
        f"{worst} {quality.labels[worst].dice:.3f}",
        expected,
        own,
        flag,
    )
