"""A prediction and its reference, read as label indices on one grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medseg.bundle.spec import BundleSpec
from medseg.datasets.input_checks import check_grid
from medseg.datasets.label_encoding import encode_mask, encode_prediction
from medseg.errors import ScanError
from medseg.evaluation.colour_labels import read_colour_labels
from medseg.evaluation.named_labels import LabelReader, read_label_pair
from medseg.evaluation.pairing import Pair
from medseg.evaluation.value_checks import name_value
from medseg.labels import Label, LabelSet, default_colour
from medseg.metrics.lesions import LesionCounts, count_lesions
from medseg.metrics.metrics import CaseScores, score_case
from medseg.volume import Array, Volume

MAX_LABELS = 1000
"""Values in one pair of label maps at most; more are intensities, not labels."""


@dataclass(frozen=True, slots=True)
class ScoringRules:
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
class EncodedPair:
    """A prediction and its reference as label indices on one grid, shape ``(i, j, k)``."""

    prediction: Array
    reference: Array
    label_set: LabelSet
    grid: Volume
    warnings: tuple[str, ...]

    def score(self, case: str, tolerance_mm: float) -> CaseScores:
        """Return all scores of the case."""
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
        """Return label → its connected components found, missed and made up."""
        return count_lesions(self.prediction, self.reference, self.label_set)


def encode_pair(pair: Pair, rules: ScoringRules) -> EncodedPair:
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
    return EncodedPair(
        predicted.indices,
        expected.indices,
        label_set,
        reference,
        (*predicted.warnings, *expected.warnings, *odd),
    )


def _collect_labels(
    prediction: Volume, reference: Volume, rules: ScoringRules
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
