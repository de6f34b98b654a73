"""The scores of all pairs of a prediction and its reference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from medseg.datasets.case_warnings import list_warnings
from medseg.datasets.measures import CaseMeasures, measure_grid
from medseg.errors import Fault, MedsegError
from medseg.evaluation.encoded_pairs import ScoringRules, encode_pair
from medseg.evaluation.pairing import Pairing
from medseg.evaluation.value_checks import (
    describe_lone_labels,
    describe_mask_values,
    require_common_labels,
)
from medseg.events import Listener, Notice, Progress, notify
from medseg.metrics.lesions import LesionCounts
from medseg.metrics.metrics import ABSENT, CaseScores

_TASK = "evaluating"
_WITHOUT_REFERENCE = "this prediction has no reference and is not scored"


@dataclass(slots=True)
class ScoredPairs:
    """Scores of one method's predictions."""

    faults: list[Fault]
    cases: list[CaseScores] = field(default_factory=list)
    lesions: dict[str, Mapping[str, LesionCounts]] = field(default_factory=dict)
    measures: dict[str, CaseMeasures] = field(default_factory=dict)


def score_pairs(
    pairing: Pairing, rules: ScoringRules, listeners: Sequence[Listener]
) -> ScoredPairs:
    """Score every pair; one that cannot be scored is a fault.

    Raises:
        DatasetError: If the two sides have no value in common.
    """
    alone = dict.fromkeys(pairing.without_reference, (_WITHOUT_REFERENCE,))
    predictions = len(pairing.pairs) + len(alone)
    for warning in list_warnings(alone, predictions):
        notify(listeners, Notice(warning))
    scored = ScoredPairs(list(pairing.faults))
    oddities: dict[str, Sequence[str]] = {}
    for done, pair in enumerate(pairing.pairs, start=1):
        try:
            encoded = encode_pair(pair, rules)
            oddities[pair.case] = encoded.warnings
            if not encoded.grid.is_picture:
                sizes = measure_grid(encoded.grid)
                scored.measures[pair.case] = CaseMeasures(*sizes)
            scored.cases.append(encoded.score(pair.case, rules.tolerance_mm))
            if rules.count_lesions:
                scored.lesions[pair.case] = encoded.count_lesions()
        except MedsegError as error:
            scored.faults.append(Fault.from_error(pair.case, error))
        notify(listeners, Progress(_TASK, done, len(pairing.pairs)))
    for warning in list_warnings(oddities, len(oddities)):
        notify(listeners, Notice(warning))
    if rules.label_set is None:
        require_common_labels(scored.cases)
        scored.cases = _add_missing_labels(scored.cases)
        for warning in _find_doubts(scored.cases):
            notify(listeners, Notice(warning))
    return scored


def _find_doubts(cases: Sequence[CaseScores]) -> Iterator[str]:
    """Say what looks as if values of label maps did not mean the same throughout."""
    yield from describe_mask_values(cases)
    yield from describe_lone_labels(cases)


def _find_unused(cases: Sequence[CaseScores], names: Iterable[str]) -> set[str]:
    """Return the labels of a table of colours that no mask on either side holds."""
    unused = set(names)
    for case in cases:
        for name, scores in case.labels.items():
            if scores.predicted_ml or scores.reference_ml:
                unused.discard(name)
    return unused


def _add_missing_labels(cases: Iterable[CaseScores]) -> list[CaseScores]:
    """Give each case an entry for the labels that only other cases hold."""
    cases = list(cases)
    names: set[str] = set()
    for case in cases:
        names.update(case.labels)
    names -= _find_unused(cases, names)
    # Shorter names first, so that label 2 comes before label 10.
    ordered = sorted(names, key=lambda name: (len(name), name))
    complete = []
    for case in cases:
        labels = {name: case.labels.get(name, ABSENT) for name in ordered}
        complete.append(replace(case, labels=labels))
    return complete
