"""What a ``dataset.json`` beside predictions or references says of their values, compared."""

from __future__ import annotations

from pathlib import Path

from medseg.datasets.label_values import (
    Conflict,
    LabelValues,
    find_conflicts,
    list_file_values,
    list_result_values,
)
from medseg.datasets.statements import describe_conflicts, read_listing
from medseg.errors import DatasetError, Fault
from medseg.evaluation.pairing import LABEL_FOLDERS
from medseg.labels import LabelSet
from medseg.layouts import LISTING

_REMEDY = (
    "correct the one that is wrong, or go by values alone with --trust-values"
)


def compare_sides(
    predictions: Path, references: Path, labels: LabelSet | None
) -> LabelValues:
    """Compare what predictions, references and bundle say of the values in label maps.

    Args:
        predictions: Their folder or file; values are the bundle's label indices, if there is one.
        references: The same; values are those of the bundle's label files.
        labels: The bundle's labels.

    Returns:
        What both sides say, where there is no bundle.

    Raises:
        DatasetError: If a ``dataset.json`` cannot be read, or two sides give a name different
            values; every fault is named.
    """
    predicted = _read_values(predictions)
    expected = _read_values(references)
    faults = []
    if labels is None:
        # Values mean the same on both sides, so that any difference is one.
        conflicts = find_conflicts(predicted, expected)
        if conflicts:
            faults.append(_make_fault(conflicts, "predictions", "references"))
    else:
        results = list_result_values(labels)
        faults += _compare_side("predictions", predicted, results)
        # Where pictures hold colours, values of a list say nothing of them.
        if not labels.colour_coded:
            files = list_file_values(labels)
            faults += _compare_side("references", expected, files)
    _refuse(faults)
    return LabelValues({**predicted.labels, **expected.labels})


def compare_results(masks: Path, labels: LabelSet) -> None:
    """Compare what a ``dataset.json`` beside masks says of their values with a bundle.

    Args:
        masks: Their folder or file; they hold the bundle's label indices.
        labels: The bundle's labels.

    Raises:
        DatasetError: If it cannot be read, or gives a label another value.
    """
    stated = _read_values(masks)
    _refuse(_compare_side("masks", stated, list_result_values(labels)))


def _compare_side(
    side: str, stated: LabelValues, own: LabelValues
) -> list[Fault]:
    """Return what files cannot settle; unknown values in them are faults of their own."""
    conflicts = find_conflicts(stated, own)
    certain = [conflict for conflict in conflicts if conflict.is_certain]
    if not certain:
        return []
    return [_make_fault(certain, side, "bundle")]


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise DatasetError("the values of label maps contradict:", faults)


def _make_fault(conflicts: list[Conflict], stated: str, own: str) -> Fault:
    said = describe_conflicts(conflicts, f"the {stated} have", f"the {own}")
    return Fault(stated, f"{said}; {_REMEDY}")


def _read_values(side: Path) -> LabelValues:
    """Read the ``dataset.json`` of a folder, or of the data set whose label maps it holds."""
    folder = side if side.is_dir() else side.parent
    candidates = [folder]
    if folder.name in LABEL_FOLDERS:
        candidates.append(folder.parent)
    for candidate in candidates:
        statement = read_listing(candidate / LISTING)
        if statement.labels != LabelValues():
            return statement.labels
    return LabelValues()
