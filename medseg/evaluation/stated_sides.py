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
from medseg.datasets.layouts import LISTING
from medseg.datasets.statements import describe_conflicts, read_listing
from medseg.errors import DatasetError, Fault
from medseg.evaluation.pairing import LABEL_FOLDERS
from medseg.labels import LabelSet

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
        sides = (
            ("predictions", predicted, list_result_values(labels)),
            ("references", expected, list_file_values(labels)),
        )
        for side, stated, own in sides:
            conflicts = _find_certain(stated, own)
            if conflicts:
                faults.append(_make_fault(conflicts, side, "bundle"))
    if faults:
        raise DatasetError("the values of label maps contradict:", faults)
    return LabelValues({**predicted.labels, **expected.labels})


def _find_certain(stated: LabelValues, own: LabelValues) -> list[Conflict]:
    """Return the conflicts that files cannot settle: unknown values are faults of their own."""
    conflicts = find_conflicts(stated, own)
    return [conflict for conflict in conflicts if conflict.is_certain]


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
