"""How good results and given masks probably are, told without knowing the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """The estimate for one structure.

    Attributes:
        expected: Expected Dice, 0 to 1.
        lower: Bound that the true Dice reaches in the share of scans the bundle states, as long
            as scans are like those it was validated on; ``None`` if the bundle is not calibrated.
    """

    expected: float
    lower: float | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """The estimate for one result.

    Attributes:
        expected: Expected Dice, the mean over the structures found; ``None`` if none was.
        lower: Its bound, as for a structure.
        labels: Label name → estimate, of the structures found.
        is_calibrated: Whether ``expected`` was learned from held-back cases. If not, it orders
            results, and its value can be far off in either direction.
        review: Whether someone should look at this result first.
    """

    expected: float | None = None
    lower: float | None = None
    labels: Mapping[str, LabelQuality] = field(default_factory=dict)
    is_calibrated: bool = False
    review: bool = False


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a mask made by someone else agrees with a bundle: one structure, or their mean.

    Attributes:
        raw: The Dice to be expected of the mask if the bundle's probabilities were right. Not
            calibrated.
        dice: Dice with the bundle's own mask. Not calibrated: it says how alike the two are, not
            which of them is right.
        expected: ``raw`` brought through the bundle's calibration; ``None`` if it has none. That
            was learned from the bundle's own masks, so it holds for masks like them and is a
            guess for others; the order is that of ``raw``.
        lower: Bound of the mask's true Dice, as sure as the bundle's bound of its own mask, from
            which it follows; ``None`` where there is none, and for the mean.
    """

    raw: float
    dice: float
    expected: float | None = None
    lower: float | None = None

    @property
    def score(self) -> float:
        """The expected Dice, calibrated where it can be."""
        return self.raw if self.expected is None else self.expected


@dataclass(frozen=True, slots=True)
class MaskQuality:
    """What a bundle thinks of a mask made by someone else.

    Attributes:
        mean: The mean over structures; ``None`` if neither mask holds any.
        labels: Label name → agreement, of the structures that either mask holds.
        own: How good the bundle's own mask of this scan probably is: whether it can judge.
        review: Whether someone should look at this mask first: its expected Dice is below the
            bundle's limit, or only one of the two masks holds a structure.
    """

    mean: Agreement | None
    labels: Mapping[str, Agreement]
    own: Quality
    review: bool

    @property
    def is_calibrated(self) -> bool:
        """Whether expected values were brought through the bundle's calibration."""
        return self.own.is_calibrated
