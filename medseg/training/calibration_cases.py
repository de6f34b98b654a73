"""Which cases a bundle may be calibrated on, and what is said of the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.bundle.bundle import Bundle
from medseg.datasets.labelled_cases import LabelledCases
from medseg.errors import DatasetError
from medseg.events import Listener, Notice, notify
from medseg.layouts.dataset_json import states_made_up
from medseg.names import abbreviate
from medseg.quality.calibration import MIN_CLEAN_RESULTS
from medseg.training.calibration import list_unknown_labels
from medseg.training.leakage import (
    count_stated_cases,
    find_learned_cases,
    states_training_set,
)


def refuse_made_up(bundle: Bundle, data: Path) -> None:
    """Refuse made-up cases for a bundle that is for patients.

    Args:
        bundle: The bundle.
        data: The data set, which may say of itself that it is made up.

    Raises:
        DatasetError: If it does, and the bundle does not.
    """
    if states_made_up(data) and not bundle.is_made_up:
        raise DatasetError(
            "the data set says of itself that it is made up, and the bundle is for patients: "
            "what results on made-up scans are worth says nothing of patients' scans; give "
            "labelled cases of patients",
            source=data,
        )


def leave_out_learned(
    bundle: Bundle,
    labelled: LabelledCases,
    data: Path,
    listeners: Sequence[Listener],
) -> tuple[LabelledCases, frozenset[str]]:
    """Leave out the cases that the bundle has learned from.

    Args:
        bundle: The bundle.
        labelled: The cases of the data set.
        data: Where they lie.
        listeners: Told of what is left out, and of what nobody knows.

    Returns:
        The others, and the ids of those that it was validated on when it was trained.

    Raises:
        DatasetError: If too few are left, or the data set is what an imported model learned from.
    """
    found = find_learned_cases(bundle, labelled.ids)
    if found.remark:
        notify(listeners, Notice(found.remark))
    _refuse_training_set(bundle, labelled, data, listeners)
    positions = []
    for position, case_id in enumerate(labelled.ids):
        if case_id not in found.learned:
            positions.append(position)
    total = len(labelled.ids)
    left_out = total - len(positions)
    if left_out:
        message = (
            f"{left_out} of {total} cases are left out: the bundle has learned from them, and on "
            "them its results are better than on new ones"
        )
        notify(listeners, Notice(message))
    if len(positions) < MIN_CLEAN_RESULTS:
        learned = f", and {left_out} it has learned from" if left_out else ""
        raise DatasetError(
            f"{len(positions)} usable cases{learned}: at least {MIN_CLEAN_RESULTS} are needed, "
            "since a bound that fewer give would hold too seldom to be of use, and 20 or more "
            "make good estimates",
            source=data,
        )
    return labelled.keep(positions), found.held_out


def _refuse_training_set(
    bundle: Bundle,
    labelled: LabelledCases,
    data: Path,
    listeners: Sequence[Listener],
) -> None:
    """Refuse the cases that an imported model was trained on, by the ``dataset.json`` beside them.

    Other cases may have a copy of that file, and then another number.
    """
    if not states_training_set(bundle, data):
        return
    if not _holds_stated_cases(labelled, data):
        message = (
            "the dataset.json of these cases is that of the model's training data; what is said of "
            "its results holds only if none of them is of those"
        )
        notify(listeners, Notice(message))
        return
    raise DatasetError(
        "its dataset.json is that of the data set that the model was trained on, and on cases "
        "that it has learned from its Dice is better than on new ones; give others, such as "
        "imagesTs with their labels in a folder of its own",
        source=data,
    )


def _holds_stated_cases(labelled: LabelledCases, data: Path) -> bool:
    """Tell whether there are as many cases as the ``dataset.json`` beside them states.

    Those that are left out for a fault count, too; some have several faults.
    """
    stated = count_stated_cases(data)
    if stated is None:
        return True
    usable = len(labelled.ids)
    return usable <= stated <= usable + labelled.left_out


def say_unknown_labels(
    cases: LabelledCases, bundle: Bundle, listeners: Sequence[Listener]
) -> None:
    """Tell listeners which labels no case holds."""
    unknown = list_unknown_labels(cases, bundle.spec)
    if unknown:
        message = (
            f"no case holds {abbreviate(unknown)}: nothing is learned about it, and an estimate "
            "for it is that for the other labels"
        )
        notify(listeners, Notice(message))
