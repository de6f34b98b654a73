"""How good results and given masks probably are, estimated without a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """The estimate for one structure.

    Attributes:
        expected: Expected Dice, 0 to 1.
        lower: Lower bound: the true Dice is at or above it in the share of scans that the bundle
            states, as long as scans are like those it was validated on; ``None`` if the bundle is
            not calibrated.
    """

    expected: float
    lower: float | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """The estimate for one result.

    Attributes:
        expected: Expected Dice, the mean over the structures in the result; ``None`` if it is
            empty.
        lower: Its lower bound, as for a structure.
        labels: Label name → estimate, of the structures in the result.
        is_calibrated: Whether ``expected`` was learned from held-out cases. If not, it orders
            results, and its value can be far off in either direction.
        review: Whether someone should look at this result first.

    Examples:
        >>> quality = Quality(0.93, lower=0.88, labels={"liver": LabelQuality(0.93, 0.88)})
        >>> quality.labels["liver"].lower
        0.88
        >>> quality.review
        False
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
        expected: ``raw`` mapped by the bundle's calibration; ``None`` if it has none. The
            calibration was learned from the bundle's own masks, so it holds for masks like them
            and is a guess for others; the order is that of ``raw``.
        lower: Lower bound of the mask's true Dice, as certain as the bundle's bound of its own
            mask, from which it follows; ``None`` where that has none, and for the mean.
    """

    raw: float
    dice: float
    expected: float | None = None
    lower: float | None = None

    @property
    def score(self) -> float:
        """The expected Dice, calibrated where it can be."""
        if self.expected is None:
            return self.raw
        return self.expected


@dataclass(frozen=True, slots=True)
class MaskQuality:
    """What a bundle thinks of a mask made by someone else.

    Attributes:
        mean: The mean over structures; ``None`` if neither mask holds any.
        labels: Label name → agreement, of the structures that either mask holds.
        own: How good the bundle's own mask of this scan probably is: whether it can judge.
        review: Whether someone should look at this mask first: its expected Dice is below the
            bundle's limit, or only one of the two masks holds a structure.
        warnings: What a person should know of the scan, as ``Segmentation.warnings``.

    Examples:
        >>> own = Quality(0.9, lower=0.8, is_calibrated=True)
        >>> agreement = Agreement(raw=0.7, dice=0.75, expected=0.72, lower=0.6)
        >>> quality = MaskQuality(agreement, {"liver": agreement}, own, review=True)
        >>> quality.mean.score
        0.72
        >>> quality.is_calibrated
        True
    """

    mean: Agreement | None
    labels: Mapping[str, Agreement]
    own: Quality
    review: bool
    warnings: tuple[str, ...] = ()

    @property
    def is_calibrated(self) -> bool:
        """Whether expected values were mapped by the bundle's calibration."""
        return self.own.is_calibrated
