"""Inspects the label files of a data set for what their values and colours mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.datasets.cases import Case
from medseg.errors import DatasetError
from medseg.events import Listener, Notice, notify
from medseg.names import is_picture
from medseg.planning.description import DatasetDescription
from medseg.planning.mask_census import count_codes
from medseg.planning.mask_choice import choose_mask_labels
from medseg.planning.mask_labels import LabelWishes, MaskLabels
from medseg.planning.mask_names import find_code_names


def find_mask_labels(
    root: Path,
    cases: Sequence[Case],
    description: DatasetDescription,
    wishes: LabelWishes,
    listeners: Sequence[Listener],
) -> MaskLabels | None:
    """Find how label files show labels; ``None`` where each value is one and has no more to say.

    Only pictures are searched unless a person asks for more, since other label maps are large.

    Args:
        root: The data folder, or its list of cases.
        cases: The cases.
        description: What the data set says of itself.
        wishes: What a person asks of labels.
        listeners: Told of progress, and of stray values that are left out.

    Raises:
        DatasetError: If what a person asks for cannot be had.
    """
    if not _has_labels_to_choose(cases, description):
        if not wishes:
            return None
        raise DatasetError(
            "--labels and --leave-out-stray go with label files whose values are labels; the "
            "labels of this data set have names of their own, or are regions"
        )
    are_pictures = all(is_picture(case.label) for case in cases)
    if not (are_pictures or wishes):
        return None
    census = count_codes(cases, listeners)
    code_names = find_code_names(root, cases, census)
    mask_labels = choose_mask_labels(
        census,
        wishes,
        code_names,
        description.label_names,
        description.ignore,
    )
    if mask_labels is not None:
        for stray in mask_labels.strays:
            notify(listeners, Notice(f"left out as a stray value: {stray}"))
    return mask_labels


def _has_labels_to_choose(
    cases: Sequence[Case], description: DatasetDescription
) -> bool:
    """Tell whether labels are values or colours of files, and are not named otherwise."""
    if not cases or description.named_regions:
        return False
    return all(case.label_source is None for case in cases)
