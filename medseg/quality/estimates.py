"""How good results and given masks probably are, estimated without a reference.

``Quality.shown`` is what people are shown of it, the one rule of every door: the report, the
terminal, the label server, the MLflow model and ``medseg review``. A number stands only where it
was learned from held-out cases of patients; else words stand in its place, and nothing is green.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

NOT_CALIBRATED = "not calibrated"
MADE_UP = "made-up training data"
NOTHING_FOUND = "nothing found"
RANGE_UNKNOWN = "validated range unknown"

Level = Literal["good", "review", "unknown"]
"""Which colour a result has: green, amber, or none."""


@dataclass(frozen=True, slots=True)
class ShownQuality:
    """What people are shown of a quality.

    Attributes:
        text: The expected Dice as text, or the words in its place.
        bound: The lower bound in words; empty if there is none.
        level: Which colour it has.
        expected: The expected Dice, where it may be shown as a number.
        lower: Its lower bound, likewise.
        labels: Label name → expected Dice, likewise.
        review: Whether someone should look at the result first.
        reasons: Why, in words.
        remark: What else is to be known; empty if nothing.
    """

    text: str
    bound: str = ""
    level: Level = "unknown"
    expected: float | None = None
    lower: float | None = None
    labels: Mapping[str, float] = field(default_factory=dict)
    review: bool = False
    reasons: tuple[str, ...] = ()
    remark: str = ""


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
        reasons: Why, in plain words; they name no file and quote no header.
        departures: Those of the reasons that say what lies outside the validated range.
        is_made_up: Whether the bundle was trained on made-up data, such as phantoms.
        is_range_known: Whether the scan and the result were compared with what the bundle was
            validated on.

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
    reasons: tuple[str, ...] = ()
    departures: tuple[str, ...] = ()
    is_made_up: bool = False
    is_range_known: bool = False

    @property
    def shown(self) -> ShownQuality:
        """What people are shown of it.

        Examples:
            >>> Quality(0.79).shown.text
            'not calibrated'
            >>> shown = Quality(0.934, lower=0.881, is_calibrated=True).shown
            >>> shown.text, shown.bound, shown.level
            ('0.93', 'at least 0.88', 'good')
        """
        return _show(self)

    @property
    def is_judged(self) -> bool:
        """Whether its numbers mean anything by themselves: learned from cases of patients."""
        return self.is_calibrated and not self.is_made_up

    def with_departures(self, departures: Sequence[str]) -> Quality:
        """Return it with the reasons for which it lies outside what its bundle was validated on."""
        return replace(
            self,
            review=self.review or bool(departures),
            reasons=(*self.reasons, *departures),
            departures=tuple(departures),
            is_range_known=True,
        )


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a mask made by someone else agrees with a bundle: one structure, or their mean.

    Attributes:
        raw: The Dice to be expected of the mask if the bundle's probabilities were right. Not
            calibrated.
        dice: Dice with the bundle's own mask. Not calibrated: it says how alike the two are, not
            which of them is right.
        expected: The lesser of ``dice`` and of what is expected of the bundle's own mask: the
            middle of what the distance between the two masks allows; ``None`` if the bundle has
            no calibration. A mask that is better than the bundle's own has too low a value: the
            bundle cannot tell which of the two is right.
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
            bundle's limit, only one of the two masks holds a structure, or the scan or the
            bundle's own mask lies outside what the bundle was validated on.
        reasons: Why, in plain words.
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
    reasons: tuple[str, ...] = ()

    @property
    def is_calibrated(self) -> bool:
        """Whether expected values were mapped by the bundle's calibration."""
        return self.own.is_calibrated


def join_qualities(
    qualities: Mapping[str, Quality],
    names: Mapping[str, Mapping[str, str]],
) -> Quality:
    """Return the estimate for a result that several bundles made, of those of its parts.

    Each structure has the estimate of its part. The whole has their mean, which is calibrated only
    if each of them is; no bound of it was learned. A part that found nothing says nothing.

    Args:
        qualities: Name of each part → the estimate for what it found.
        names: Name of each part → its structures that stand in the result → their names there; a
            part that has not run has none.

    Examples:
        >>> organs = Quality(0.9, 0.8, {"liver": LabelQuality(0.9, 0.8)}, is_calibrated=True)
        >>> bones = Quality(0.7, labels={"rib": LabelQuality(0.7)})
        >>> table = {"organs": {"liver": "liver"}, "bones": {"rib": "rib"}}
        >>> joined = join_qualities({"organs": organs, "bones": bones}, table)
        >>> joined.shown.text, dict(joined.shown.labels)
        ('not calibrated', {'liver': 0.9})
    """
    labels: dict[str, LabelQuality] = {}
    found: dict[str, Quality] = {}
    for part, quality in qualities.items():
        own_labels = _rename(quality, names.get(part, {}))
        if own_labels:
            labels |= own_labels
            found[part] = quality
    known = (found or qualities).values()
    joined = Quality(
        is_calibrated=all(each.is_calibrated for each in known),
        is_made_up=any(each.is_made_up for each in known),
        is_range_known=all(each.is_range_known for each in known),
    )
    if not found:
        return replace(joined, review=True, reasons=(NOTHING_FOUND,))
    return replace(
        joined,
        expected=_mean(labels),
        labels=labels,
        review=any(each.review for each in found.values()),
        reasons=_tell(found, "reasons"),
        departures=_tell(found, "departures"),
    )


def _rename(
    quality: Quality, names: Mapping[str, str]
) -> dict[str, LabelQuality]:
    """Return the estimates of a part's structures, by their names in the result.

    Regions that overlap are estimated by names of their own: the labels that they paint have the
    estimate for all of them.
    """
    renamed: dict[str, LabelQuality] = {}
    for own, name in names.items():
        if own in quality.labels:
            renamed[name] = quality.labels[own]
        elif quality.expected is not None:
            renamed[name] = LabelQuality(quality.expected)
    return renamed


def _tell(
    parts: Mapping[str, Quality], which: Literal["reasons", "departures"]
) -> tuple[str, ...]:
    """Return what is said of each part, with its name before it."""
    texts = []
    for part, quality in parts.items():
        texts += [f"{part}: {text}" for text in getattr(quality, which)]
    return tuple(texts)


def select_labels(quality: Quality, names: Collection[str]) -> Quality:
    """Return the estimate for some of the structures of a result: their mean, without a bound."""
    labels = {
        name: label for name, label in quality.labels.items() if name in names
    }
    if not labels:
        return replace(
            quality,
            expected=None,
            lower=None,
            labels={},
            review=True,
            reasons=(NOTHING_FOUND,),
        )
    expected = _mean(labels)
    return replace(quality, expected=expected, lower=None, labels=labels)


def _mean(labels: Mapping[str, LabelQuality]) -> float:
    return sum(each.expected for each in labels.values()) / len(labels)


def explain_unjudged(qualities: Iterable[Quality]) -> str:
    """Say why the quality of results is not known; nothing where that of all is."""
    unjudged = [quality for quality in qualities if not quality.is_judged]
    if not unjudged:
        return ""
    if any(quality.is_made_up for quality in unjudged):
        return (
            "the bundle was trained on made-up data: its results say nothing of patients, "
            "and how good they are is not known"
        )
    return (
        "the bundle is not calibrated: how good its results are is not known, so look at "
        "every one of them"
    )


def _show(quality: Quality) -> ShownQuality:
    remark = "" if quality.is_range_known else RANGE_UNKNOWN
    words = _find_words(quality)
    if words:
        return ShownQuality(
            words,
            level="review" if quality.review else "unknown",
            labels=_list_calibrated(quality),
            review=quality.review,
            reasons=quality.reasons,
            remark=remark,
        )
    bound = ""
    if quality.lower is not None:
        bound = f"at least {quality.lower:.2f}"
    return ShownQuality(
        text=f"{quality.expected:.2f}",
        bound=bound,
        level="review" if quality.review else "good",
        expected=quality.expected,
        lower=quality.lower,
        labels=_list_calibrated(quality),
        review=quality.review,
        reasons=quality.reasons,
        remark=remark,
    )


def _list_calibrated(quality: Quality) -> dict[str, float]:
    """Return the expected Dice of the structures whose number means something by itself."""
    if quality.is_made_up:
        return {}
    return {
        name: label.expected
        for name, label in quality.labels.items()
        if quality.is_calibrated or label.lower is not None
    }


def _find_words(quality: Quality) -> str:
    """Return the words that stand in a number's place; nothing where it may stand."""
    if quality.expected is None:
        return NOTHING_FOUND
    if quality.is_made_up:
        return MADE_UP
    if not quality.is_calibrated:
        return NOT_CALIBRATED
    return ""
