"""``Quality``: how good a result probably is, told without knowing the truth."""

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
