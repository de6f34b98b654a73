"""What labels of predictions and references tell about each other, over all cases."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from medseg.errors import DatasetError
from medseg.metrics.metrics import CaseScores
from medseg.names import abbreviate

PREDICTIONS = "predictions"
REFERENCES = "references"

_BRIGHTEST = ("label 255", "label 65535")
"""Values by which tools mark masks of one structure, where others write 1."""

_CasesByLabel = Mapping[str, Sequence[str]]


def name_value(value: int) -> str:
    """Return what a value is called where nothing names it."""
    return f"label {value}"


def describe_mask_values(cases: Sequence[CaseScores]) -> Iterator[str]:
    """Say that masks of one structure may have other values from case to case.

    They may where each label map holds one value at most, and some hold the brightest there is.

    Args:
        cases: Scored without a bundle, so that every value is a label.
    """
    holders: dict[str, dict[str, list[str]]] = {}
    for side in (PREDICTIONS, REFERENCES):
        holders[side] = defaultdict(list)
        for case in cases:
            held = _list_held(case, side)
            if len(held) > 1:
                return
            for name in held:
                holders[side][name].append(case.case)
    values = {*holders[PREDICTIONS], *holders[REFERENCES]}
    if len(values) < 2 or values.isdisjoint(_BRIGHTEST):
        return
    texts: list[str] = []
    for side, by_label in holders.items():
        texts += _list_holders(side, by_label)
    yield (
        f"each label map holds one label, but not the same one: {'; '.join(texts)}. They are "
        "scored as different labels; if they are masks of one structure, write all of them with "
        "the same value"
    )


def _list_held(case: CaseScores, side: str) -> list[str]:
    """Return the labels that one side of a case holds."""
    held = []
    for name, scores in case.labels.items():
        volume = scores.reference_ml
        if side == PREDICTIONS:
            volume = scores.predicted_ml
        if volume:
            held.append(name)
    return held


def _list_holders(side: str, by_label: _CasesByLabel) -> Iterator[str]:
    for name, cases in by_label.items():
        noun = "case" if len(cases) == 1 else "cases"
        yield f"{side} hold {name} in {len(cases)} {noun} ({abbreviate(cases)})"


def require_common_labels(cases: Iterable[CaseScores]) -> None:
    """Refuse two sides that use different values, instead of scoring 0 throughout.

    Raises:
        DatasetError: If no label is on both sides.
    """
    predicted, expected = _count_holders(cases)
    if predicted and expected and predicted.keys().isdisjoint(expected):
        raise DatasetError(
            f"predictions hold {', '.join(sorted(predicted))} and references "
            f"{', '.join(sorted(expected))}, so they have nothing in common; give the bundle, "
            "whose labels say which value of a reference is which label"
        )


def describe_lone_labels(cases: Sequence[CaseScores]) -> Iterator[str]:
    """Say which labels only predictions or only references hold, over all cases."""
    predicted, expected = _count_holders(cases)
    sides = (
        (PREDICTIONS, predicted, expected),
        (REFERENCES, expected, predicted),
    )
    for side, own, other in sides:
        lone = []
        for name, count in own.items():
            if name not in other:
                lone.append(f"{name} (in {count} of {len(cases)})")
        if lone:
            yield f"only {side} hold {abbreviate(lone)}"


def _count_holders(
    cases: Iterable[CaseScores],
) -> tuple[Counter[str], Counter[str]]:
    """Return label → in how many cases predictions hold it, and references."""
    predicted: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    for case in cases:
        predicted.update(_list_held(case, PREDICTIONS))
        expected.update(_list_held(case, REFERENCES))
    return predicted, expected
