"""Compare predicted label maps with reference label maps, case by case."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medseg.bundle.spec import BundleSpec
from medseg.datasets.label_encoding import encode_labels, encode_prediction
from medseg.datasets.layouts import LISTING
from medseg.datasets.layouts.dataset_json import ignored_value
from medseg.datasets.layouts.msd_csv import read_json_list
from medseg.errors import DatasetError, Fault, GeometryError, MedsegError, ScanError
from medseg.evaluation.files import write_evaluation
from medseg.evaluation.pairing import Pair, Pairing, pair_predictions
from medseg.evaluation.results import Evaluation
from medseg.events import Listener, Notice, Progress, notify
from medseg.io import read_labels
from medseg.labels import Label, LabelSet, default_colour
from medseg.metrics.comparison import Difference, compare_methods
from medseg.metrics.lesions import LesionCounts, count_lesions
from medseg.metrics.metrics import ABSENT, TOLERANCE_MM, CaseScores, score_case
from medseg.volume import Volume

MOST_LABELS = 1000
"""Values in one pair of label maps at most; more are intensities, not labels."""


def evaluate(
    predictions: Path,
    references: Path,
    out: Path | None = None,
    *,
    labels: BundleSpec | LabelSet | None = None,
    ignore: int | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    lesions: bool = False,
    versus: Path | None = None,
    listeners: Sequence[Listener] = (),
) -> Evaluation:
    """Score predicted label maps against references on the same grid.

    Files are paired by name (``medseg.evaluation.pairing``). A pair that cannot be compared is a
    fault and never stops the others.

    Args:
        predictions: A folder of label maps, or one label map. They hold label indices, as
            medseg writes them.
        references: The same, or a dataset folder with its label maps in ``labelsTr`` or
            ``labels``.
        out: Where ``evaluation.csv``, ``summary.csv``, ``summary.json`` and ``evaluation.html`` are
            written.
        labels: The labels, by which values of the references are turned into indices; where they
            form regions, these are scored instead. Without them every value that occurs is a
            label, ``label 1`` and so on, and means the same on both sides.
        ignore: Value of the references' voxels that nobody annotated: they are not scored. The
            bundle's ``data.ignore`` unless given; without a bundle, what the ``dataset.json`` of
            the references says.
        tolerance_mm: Tolerance of the NSD.
        lesions: Whether to count each label's connected pieces found, missed and made up.
        versus: Another method's predictions for the same references, to compare with.
        listeners: Hear of progress, and of predictions without a reference.

    Returns:
        Scores, and everything that could not be scored.

    Raises:
        DatasetError: If there is nothing to compare, or the two sides have no value in common.
        OutputError: If the results cannot be written.
        MedsegError: If the tolerance is no length.
    """
    if not 0 <= tolerance_mm < math.inf:
        raise MedsegError(f"--tolerance is a length in mm, 0 or more; got {tolerance_mm:g}")
    label_set = labels.label_set if isinstance(labels, BundleSpec) else labels
    if label_set is not None and ignore is not None:
        regions = label_set.regions if label_set.has_regions else ()
        label_set = LabelSet(tuple(label_set), ignore, regions)
    if label_set is None and ignore is None and (references / LISTING).is_file():
        ignore = ignored_value(read_json_list(references / LISTING))
    pairing = pair_predictions(predictions, references)
    how = _How(label_set, ignore, tolerance_mm)
    found = _scored(pairing, how, listeners, lesions=lesions)
    differences: tuple[Difference, ...] = ()
    if versus is not None:
        theirs = pair_predictions(versus, references).named_like(pairing)
        other = _scored(theirs, how, listeners)
        found.faults.extend(Fault(f"{fault.where} (other)", fault.what) for fault in other.faults)
        differences = tuple(compare_methods(found.cases, other.cases))
        if not any(one.n for one in differences):
            notify(listeners, Notice("nothing is compared: no case has scores on both sides"))
    evaluation = Evaluation(
        cases=tuple(found.cases),
        faults=tuple(found.faults),
        without_reference=pairing.without_reference,
        tolerance_mm=tolerance_mm,
        lesions=found.lesions,
        differences=differences,
    )
    if out is not None:
        write_evaluation(evaluation, out)
    return evaluation


@dataclass(frozen=True, slots=True)
class _How:
    """What holds for every pair: its labels, or none; the value to leave out; the tolerance."""

    label_set: LabelSet | None
    ignore: int | None
    tolerance_mm: float


@dataclass(slots=True)
class _Scored:
    """What came of the pairs of one method."""

    faults: list[Fault]
    cases: list[CaseScores] = field(default_factory=list)
    lesions: dict[str, Mapping[str, LesionCounts]] = field(default_factory=dict)


def _scored(
    pairing: Pairing, how: _How, listeners: Sequence[Listener], *, lesions: bool = False
) -> _Scored:
    """Score every pair; one that cannot be is a fault.

    Raises:
        DatasetError: If the two sides have no value in common.
    """
    for name in pairing.without_reference:
        notify(listeners, Notice(f"{name}: this prediction has no reference and is not scored"))
    found = _Scored(list(pairing.faults))
    for done, pair in enumerate(pairing.pairs, start=1):
        try:
            scores, counted = _score(pair, how, lesions)
            found.cases.append(scores)
            if lesions:
                found.lesions[pair.case] = counted
        except MedsegError as error:
            found.faults.append(Fault(pair.case, str(error)))
        notify(listeners, Progress("evaluating", done, len(pairing.pairs)))
    if how.label_set is None:
        _refuse_foreign_values(found.cases)
        found.cases = _with_every_label(found.cases)
    return found


def _score(pair: Pair, how: _How, lesions: bool) -> tuple[CaseScores, Mapping[str, LesionCounts]]:
    prediction, reference = read_labels(pair.prediction), read_labels(pair.reference)
    _check_grids(prediction, reference)
    label_set = how.label_set
    if label_set is None:
        label_set = _found_labels(prediction, reference, how.ignore)
        predicted = encode_labels(prediction, label_set)
    else:
        predicted = encode_prediction(prediction, label_set)
    expected = encode_labels(reference, label_set)
    if label_set.ignore_index is not None and predicted.max() == label_set.ignore_index:
        raise ScanError(
            "the prediction itself holds the value of voxels that nobody annotated; that is no "
            "label, and only a reference has it (are the two sides swapped?)"
        )
    scores = score_case(
        predicted,
        expected,
        label_set,
        reference.spacing,
        how.tolerance_mm,
        case=pair.case,
        voxel_ml=reference.voxel_ml,
    )
    return scores, count_lesions(predicted, expected, label_set) if lesions else {}


def _check_grids(prediction: Volume, reference: Volume) -> None:
    if prediction.shape != reference.shape:
        raise GeometryError(
            f"the prediction has {_times(prediction.shape)} voxels and the reference "
            f"{_times(reference.shape)}; both must lie on one grid"
        )
    if not reference.on_same_grid(prediction):
        raise GeometryError(
            f"the prediction's voxels lie up to {reference.grid_distance(prediction):.3g} mm from "
            "the reference's; both must lie on one grid"
        )


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _found_labels(prediction: Volume, reference: Volume, ignore: int | None) -> LabelSet:
    """Make every value that occurs a label, the same on both sides, but for what is ignored."""
    if len(prediction.array) > 1 or len(reference.array) > 1:
        raise ScanError("a label map in colours needs the bundle, which says what each colour is")
    values = np.union1d(prediction.array, reference.array)
    values = values[(values != 0) & (values != ignore)].tolist()
    if len(values) > MOST_LABELS:
        raise ScanError(
            f"{len(values)} values are too many for label maps; at most {MOST_LABELS} are compared"
        )
    return LabelSet(
        [
            Label(index, f"label {value}", value, default_colour(index))
            for index, value in enumerate(values, start=1)
        ],
        ignore,
    )


def _with_every_label(cases: Iterable[CaseScores]) -> list[CaseScores]:
    """Give each case an entry for the labels that only other cases hold."""
    cases = list(cases)
    # Shorter names first, so that label 2 comes before label 10.
    found = sorted({name for case in cases for name in case.labels}, key=lambda n: (len(n), n))
    return [
        replace(case, labels={name: case.labels.get(name, ABSENT) for name in found})
        for case in cases
    ]


def _refuse_foreign_values(cases: Iterable[CaseScores]) -> None:
    """Refuse two sides that use different values, instead of scoring 0 throughout."""
    labels = [(name, label) for case in cases for name, label in case.labels.items()]
    predicted = {name for name, label in labels if label.predicted_ml}
    expected = {name for name, label in labels if label.reference_ml}
    if predicted and expected and not predicted & expected:
        raise DatasetError(
            f"predictions hold {', '.join(sorted(predicted))} and references "
            f"{', '.join(sorted(expected))}, so they have nothing in common; give the bundle, "
            "whose labels say which value of a reference is which label"
        )
