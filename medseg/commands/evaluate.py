"""``medseg evaluate``: predicted label maps compared with references, case by case."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg._support.folders import refuse_file, refuse_unreadable
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import make_selection
from medseg.datasets.label_values import LabelValues
from medseg.datasets.outliers import describe_outliers, find_outliers
from medseg.errors import DatasetError, Fault, MedsegError
from medseg.evaluation.encoded_pairs import ScoringRules, encode_pair
from medseg.evaluation.files import write_evaluation
from medseg.evaluation.named_labels import (
    LabelReader,
    make_bundle_readers,
    number_labels,
)
from medseg.evaluation.pairing import Pairing, pair_predictions
from medseg.evaluation.results import Evaluation
from medseg.evaluation.scored_pairs import ScoredPairs, score_pairs
from medseg.evaluation.stated_sides import compare_sides
from medseg.evaluation.value_checks import (
    name_value,
)
from medseg.evaluation.worst_cases import (
    CasePicture,
    ComparedCase,
    draw_worst_cases,
    find_scan,
)
from medseg.events import Listener, Notice, notify, notify_outcomes
from medseg.inference.ledger import read_review_reasons
from medseg.labels import LabelSet
from medseg.layouts import LISTING, Selection
from medseg.layouts.dataset_json import (
    find_ignore_value,
    read_json_object,
)
from medseg.metrics.comparison import Difference, compare_methods
from medseg.metrics.metrics import TOLERANCE_MM, CaseScores


def evaluate(
    predictions: str | Path,
    references: str | Path,
    out: str | Path | None = None,
    *,
    labels: BundleSpec | LabelSet | None = None,
    ignore: int | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    lesions: bool = False,
    versus: str | Path | None = None,
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
        MedsegError: If the tolerance is not a length, or the ignore label not above 0.

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
    predictions, references = Path(predictions), Path(references)
    target = None if out is None else Path(out)
    refuse_file(target)
    other_side = None if versus is None else Path(versus)
    for side in filter(None, (predictions, references, other_side)):
        refuse_unreadable(side, DatasetError)
    label_set = _choose_label_set(labels, ignore)
    if label_set is None and ignore is None:
        ignore = _read_ignore_value(references)
    _check_numbers(tolerance_mm, ignore)
    spec = labels if isinstance(labels, BundleSpec) else None
    scoring = _Scoring(
        label_set, spec, ignore, tolerance_mm, lesions, trust_values
    )
    selection = _select_references(label_set, spec)
    pairing = pair_predictions(predictions, references, selection)
    if other_side is not None:
        # Before an hour goes into the scores of one side alone.
        other_pairing = pair_predictions(other_side, references, selection)
    rules = scoring.make_rules(pairing, predictions, references)
    scored = score_pairs(pairing, rules, listeners)
    _warn_of_outliers(scored, listeners)
    faults = list(scored.faults)
    differences: tuple[Difference, ...] = ()
    if other_side is not None:
        other_pairing = other_pairing.rename_like(pairing)
        other_scoring = replace(scoring, count_lesions=False)
        other_rules = other_scoring.make_rules(
            other_pairing, other_side, references
        )
        other = score_pairs(other_pairing, other_rules, listeners)
        faults.extend(_name_others(other.faults))
        differences = tuple(compare_methods(scored.cases, other.cases))
        _warn_of_nothing_compared(differences, listeners)
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
    if target is not None:
        pictures = _draw_worst_cases(scored.cases, pairing, rules)
        write_evaluation(evaluation, target, pictures)
    return evaluation


def _name_others(faults: Iterable[Fault]) -> Iterator[Fault]:
    """Yield the faults of the other method's predictions, told apart from those of the first."""
    for fault in faults:
        yield replace(fault, where=f"{fault.where} (other)")


def _warn_of_nothing_compared(
    differences: Iterable[Difference], listeners: Sequence[Listener]
) -> None:
    if not any(difference.n for difference in differences):
        text = "nothing is compared: no case has scores on both sides"
        notify(listeners, Notice(text))


def _check_numbers(tolerance_mm: float, ignore: int | None) -> None:
    """Refuse a tolerance that is no length, and an ignore label that no label map can hold."""
    if not 0 <= tolerance_mm < math.inf:
        raise MedsegError(
            f"--tolerance takes a length in mm, 0 or more; got {tolerance_mm:g}"
        )
    if ignore is not None and ignore < 1:
        raise MedsegError(
            f"the ignore label is a value above 0, which is background; got {ignore}"
        )


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
    cases: Sequence[CaseScores], pairing: Pairing, rules: ScoringRules
) -> list[CasePicture]:
    pairs = {pair.case: pair for pair in pairing.pairs}

    def read(case: str) -> ComparedCase:
        pair = pairs[case]
        encoded = encode_pair(pair, rules)
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
    ) -> ScoringRules:
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
        return ScoringRules(
            self.label_set,
            self.spec,
            self.ignore,
            self.tolerance_mm,
            self.count_lesions,
            readers,
            names,
            _name_values(stated),
        )


def _warn_of_outliers(
    scored: ScoredPairs,
    listeners: Sequence[Listener],
) -> None:
    """Name the references that lie apart from the others."""
    outliers = find_outliers(scored.measures)
    for warning in describe_outliers(outliers):
        notify(listeners, Notice(warning))
