"""``medseg evaluate``: predicted label maps compared with references, case by case."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medseg._support.folders import refuse_file
from medseg.bundle.spec import BundleSpec
from medseg.datasets.case_warnings import list_warnings
from medseg.datasets.cases import make_selection
from medseg.datasets.input_checks import check_grid
from medseg.datasets.label_encoding import encode_mask, encode_prediction
from medseg.datasets.label_values import LabelValues
from medseg.datasets.measures import CaseMeasures, measure_grid
from medseg.datasets.outliers import describe_outliers, find_outliers
from medseg.errors import Fault, MedsegError, ScanError
from medseg.evaluation.colour_labels import read_colour_labels
from medseg.evaluation.files import write_evaluation
from medseg.evaluation.named_labels import (
    LabelReader,
    make_bundle_readers,
    number_labels,
    read_label_pair,
)
from medseg.evaluation.pairing import Pair, Pairing, pair_predictions
from medseg.evaluation.results import Evaluation
from medseg.evaluation.stated_sides import compare_sides
from medseg.evaluation.value_checks import (
    describe_lone_labels,
    describe_mask_values,
    name_value,
    require_common_labels,
)
from medseg.evaluation.worst_cases import (
    CasePicture,
    ComparedCase,
    draw_worst_cases,
    find_scan,
)
from medseg.events import Listener, Notice, Progress, notify, notify_outcomes
from medseg.inference.ledger import read_review_reasons
from medseg.labels import Label, LabelSet, default_colour
from medseg.layouts import LISTING, Selection
from medseg.layouts.dataset_json import (
    find_ignore_value,
    read_json_object,
)
from medseg.metrics.comparison import Difference, compare_methods
from medseg.metrics.lesions import LesionCounts, count_lesions
from medseg.metrics.metrics import ABSENT, TOLERANCE_MM, CaseScores, score_case
from medseg.volume import Array, Volume

MAX_LABELS = 1000
"""Values in one pair of label maps at most; more are intensities, not labels."""

_TASK = "evaluating"


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
    trust_values: bool = False,
    listeners: Sequence[Listener] = (),
) -> Evaluation:
    """Score predicted label maps against references on the same grid.

    Files are paired by name (``medseg.evaluation.pairing``). A pair that cannot be compared is a
    fault and never stops the others.

    Args:
        predictions: A folder of label maps, or one label map. They hold label indices, as
            medseg writes them.
        references: The same, or a dataset folder with its label maps in ``labelsTr`` or
            ``labels``, or with images and labels together, as ``medseg plan`` reads them.
        out: The folder in which ``evaluation.csv``, ``summary.csv``, ``summary.json`` and
            ``evaluation.html`` are written.
        labels: The labels, by which values of the references are turned into indices; where they
            form regions, these are scored instead. Without them every value that occurs is a
            label, ``label 1`` and so on, and means the same on both sides.
        ignore: Value of the references' unlabelled voxels (the ignore label): they are not scored.
            The bundle's ``data.ignore`` unless given; without a bundle, what the ``dataset.json``
            of the references says.
        tolerance_mm: Tolerance of the NSD.
        lesions: Whether to count each label's connected components found, missed and made up.
        versus: Another method's predictions for the same references, to compare with.
        trust_values: Go by values alone, whatever names ``dataset.json`` and ``.seg.nrrd`` files
            give them.
        listeners: Told of progress, and of predictions without a reference.

    Returns:
        Scores, and everything that could not be scored.

    Raises:
        DatasetError: If there is nothing to compare, the two sides have no value in common, or
            they give a name different values.
        OutputError: If the results cannot be written.
        MedsegError: If the tolerance is not a length.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import medseg
        >>> from medseg.testing import write_dataset
        >>> data = write_dataset(Path(tempfile.mkdtemp()), 2, shape=(24, 20, 16), spacing=9.0)
        >>> masks = data / "labelsTr"
        >>> evaluation = medseg.evaluate(masks, masks)
        >>> evaluation.scores["dice"]["mean"]
        1.0
    """
    if not 0 <= tolerance_mm < math.inf:
        raise MedsegError(
            f"--tolerance takes a length in mm, 0 or more; got {tolerance_mm:g}"
        )
    refuse_file(out)
    label_set = _choose_label_set(labels, ignore)
    if label_set is None and ignore is None:
        ignore = _read_ignore_value(references)
    spec = labels if isinstance(labels, BundleSpec) else None
    scoring = _Scoring(
        label_set, spec, ignore, tolerance_mm, lesions, trust_values
    )
    selection = _select_references(label_set, spec)
    pairing = pair_predictions(predictions, references, selection)
    rules = scoring.make_rules(pairing, predictions, references)
    scored = _score_pairs(pairing, rules, listeners)
    _warn_of_outliers(scored, listeners)
    faults = list(scored.faults)
    differences: tuple[Difference, ...] = ()
    if versus is not None:
        other_pairing = pair_predictions(versus, references, selection)
        other_pairing = other_pairing.rename_like(pairing)
        other_scoring = replace(scoring, count_lesions=False)
        other_rules = other_scoring.make_rules(
            other_pairing, versus, references
        )
        other = _score_pairs(other_pairing, other_rules, listeners)
        faults.extend(
            replace(fault, where=f"{fault.where} (other)")
            for fault in other.faults
        )
        differences = tuple(compare_methods(scored.cases, other.cases))
        if not any(difference.n for difference in differences):
            notify(
                listeners,
                Notice("nothing is compared: no case has scores on both sides"),
            )
    evaluation = Evaluation(
        cases=tuple(scored.cases),
        faults=tuple(faults),
        without_reference=pairing.without_reference,
        tolerance_mm=tolerance_mm,
        lesions=scored.lesions,
        differences=differences,
        flags=_read_flags(pairing, predictions),
        titles=rules.titles,
    )
    notify_outcomes(listeners, evaluation.cases, evaluation.faults)
    if out is not None:
        pictures = _draw_worst_cases(scored.cases, pairing, rules)
        write_evaluation(evaluation, out, pictures)
    return evaluation


def _name_values(stated: LabelValues) -> dict[str, str]:
    """Return what scores call a value → its name, of names that have one value alone."""
    titles = {}
    for value, name in stated.list_foreground().items():
        if len(stated.labels[name]) == 1:
            titles[name_value(value)] = name
    return titles


def _read_flags(
    pairing: Pairing, predictions: Path
) -> dict[str, tuple[str, ...]]:
    """Return case → why it was flagged for review when it was segmented."""
    reasons = read_review_reasons(predictions)
    flags = {}
    for pair in pairing.pairs:
        if pair.prediction.name in reasons:
            flags[pair.case] = reasons[pair.prediction.name]
    return flags


def _draw_worst_cases(
    cases: Sequence[CaseScores], pairing: Pairing, rules: _Rules
) -> list[CasePicture]:
    pairs = {pair.case: pair for pair in pairing.pairs}

    def read(case: str) -> ComparedCase:
        pair = pairs[case]
        encoded = _encode_pair(pair, rules)
        return ComparedCase(
            encoded.prediction,
            encoded.reference,
            encoded.grid,
            find_scan(pair.reference, encoded.grid),
        )

    return draw_worst_cases(cases, read)


def _select_references(
    label_set: LabelSet | None, spec: BundleSpec | None
) -> Selection:
    """Return what is known of the references: labels, and where a bundle's data have them."""
    if spec is not None:
        return make_selection(spec)
    values = {label.name: label.value for label in label_set or ()}
    return Selection(labels=values)


def _choose_label_set(
    labels: BundleSpec | LabelSet | None, ignore: int | None
) -> LabelSet | None:
    """Return the labels to score, with the ignore label that a person gave."""
    label_set = labels.label_set if isinstance(labels, BundleSpec) else labels
    if label_set is None or ignore is None:
        return label_set
    return label_set.with_ignore(ignore)


def _read_ignore_value(references: Path) -> int | None:
    """Return the ignore label of the references' ``dataset.json``, if there is one."""
    listing = references / LISTING
    if not listing.is_file():
        return None
    return find_ignore_value(read_json_object(listing))


@dataclass(frozen=True, slots=True)
class _Rules:
    """How every pair is scored.

    Attributes:
        label_set: The labels; ``None`` where every value is one.
        spec: The bundle, where one was given: lengths are compared with its grid.
        ignore: Value of the references' unlabelled voxels.
        tolerance_mm: Of the NSD.
        count_lesions: Whether to count connected components.
        readers: Of predictions and of references.
        names: Value → name of labels that files name, where there is no bundle.
        titles: What scores call a value → its name in a ``dataset.json``.
    """

    label_set: LabelSet | None
    spec: BundleSpec | None
    ignore: int | None
    tolerance_mm: float
    count_lesions: bool
    readers: tuple[LabelReader, LabelReader]
    names: Mapping[int, str]
    titles: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Scoring:
    """What a person asked for; rules follow from it and from what files say of themselves.

    Attributes:
        label_set: The bundle's labels; ``None`` without a bundle.
        spec: The bundle, where one was given.
        ignore: Value of the references' unlabelled voxels.
        tolerance_mm: Of the NSD.
        count_lesions: Whether to count connected components.
        trust_values: Whether names in files do not count.
    """

    label_set: LabelSet | None
    spec: BundleSpec | None
    ignore: int | None
    tolerance_mm: float
    count_lesions: bool
    trust_values: bool

    def make_rules(
        self, pairing: Pairing, predictions: Path, references: Path
    ) -> _Rules:
        """Return the rules for one method's predictions.

        Raises:
            DatasetError: If two sides give a name different values.
        """
        values: Mapping[str, int] = {}
        stated = LabelValues()
        if not self.trust_values:
            stated = compare_sides(predictions, references, self.label_set)
            if self.label_set is None:
                values = number_labels(pairing.files, stated)
        if self.label_set is None:
            reader = LabelReader(values, self.trust_values)
            readers = (reader, reader)
        else:
            readers = make_bundle_readers(self.label_set, self.trust_values)
        # Of names that are the same to us, the one that sorts last: in small letters.
        names = {value: name for name, value in values.items()}
        return _Rules(
            self.label_set,
            self.spec,
            self.ignore,
            self.tolerance_mm,
            self.count_lesions,
            readers,
            names,
            _name_values(stated),
        )


@dataclass(slots=True)
class _ScoredPairs:
    """Scores of one method's predictions."""

    faults: list[Fault]
    cases: list[CaseScores] = field(default_factory=list)
    lesions: dict[str, Mapping[str, LesionCounts]] = field(default_factory=dict)
    measures: dict[str, CaseMeasures] = field(default_factory=dict)


def _score_pairs(
    pairing: Pairing, rules: _Rules, listeners: Sequence[Listener]
) -> _ScoredPairs:
    """Score every pair; one that cannot be scored is a fault.

    Raises:
        DatasetError: If the two sides have no value in common.
    """
    for name in pairing.without_reference:
        notify(
            listeners,
            Notice(
                f"{name}: this prediction has no reference and is not scored"
            ),
        )
    scored = _ScoredPairs(list(pairing.faults))
    oddities: dict[str, Sequence[str]] = {}
    for done, pair in enumerate(pairing.pairs, start=1):
        try:
            encoded = _encode_pair(pair, rules)
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


def _warn_of_outliers(
    scored: _ScoredPairs,
    listeners: Sequence[Listener],
) -> None:
    """Name the references that lie apart from the others."""
    outliers = find_outliers(scored.measures)
    for warning in describe_outliers(outliers):
        notify(listeners, Notice(warning))


def _find_doubts(cases: Sequence[CaseScores]) -> Iterator[str]:
    """Say what looks as if values of label maps did not mean the same throughout."""
    yield from describe_mask_values(cases)
    yield from describe_lone_labels(cases)


@dataclass(frozen=True, slots=True)
class _EncodedPair:
    """A prediction and its reference as label indices on one grid, shape ``(i, j, k)``."""

    prediction: Array
    reference: Array
    label_set: LabelSet
    grid: Volume
    warnings: tuple[str, ...]

    def score(self, case: str, tolerance_mm: float) -> CaseScores:
        return score_case(
            self.prediction,
            self.reference,
            self.label_set,
            self.grid.spacing,
            tolerance_mm,
            case=case,
            voxel_ml=self.grid.voxel_ml,
        )

    def count_lesions(self) -> dict[str, LesionCounts]:
        return count_lesions(self.prediction, self.reference, self.label_set)


def _encode_pair(pair: Pair, rules: _Rules) -> _EncodedPair:
    """Read a pair and turn its values into label indices.

    Raises:
        ScanError: If a file cannot be read, or its values are not labels.
        GeometryError: If the two do not lie on one grid.
    """
    prediction, reference = read_label_pair(
        pair.prediction,
        pair.reference,
        rules.readers,
        pair.source,
    )
    odd = check_grid(reference, rules.spec)
    label_set = rules.label_set
    if label_set is None:
        # The values of both sides mean the same, so the prediction is encoded like a reference.
        is_colour = len(prediction.array) > 1 or len(reference.array) > 1
        if is_colour:
            label_set = read_colour_labels([pair.reference, pair.prediction])
        else:
            label_set = _collect_labels(prediction, reference, rules)
        predicted = encode_mask(prediction, label_set)
    else:
        predicted = encode_prediction(prediction, label_set)
    expected = encode_mask(reference, label_set)
    if (
        label_set.ignore_index is not None
        and predicted.indices.max() == label_set.ignore_index
    ):
        raise ScanError(
            "the prediction itself holds the ignore label, which only a reference may have; are "
            "the two sides swapped?"
        )
    return _EncodedPair(
        predicted.indices,
        expected.indices,
        label_set,
        reference,
        (*predicted.warnings, *expected.warnings, *odd),
    )


def _collect_labels(
    prediction: Volume, reference: Volume, rules: _Rules
) -> LabelSet:
    """Make every value that occurs a label, the same on both sides, except the ignore label."""
    values = np.union1d(prediction.array, reference.array)
    values = values[(values != 0) & (values != rules.ignore)]
    if len(values) > MAX_LABELS:
        raise ScanError(
            f"{len(values)} different values are too many for label maps; at most {MAX_LABELS} are "
            "compared"
        )
    labels = []
    for index, value in enumerate(values.tolist(), start=1):
        name = rules.names.get(value, name_value(value))
        label = Label(index, name, value, default_colour(index))
        labels.append(label)
    return LabelSet(labels, rules.ignore)


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
