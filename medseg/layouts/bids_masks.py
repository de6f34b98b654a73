"""Masks of a BIDS session, one file per label: which make up one label map, and with what values.

``sub-01_label-liver_mask.nii.gz`` and ``sub-01_label-kidney_mask.nii.gz`` are labels of one image,
called as their ``label-`` entity says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medseg.errors import DatasetError, ScanError
from medseg.layouts.bids_names import LABEL, BidsFile
from medseg.layouts.contract import CaseListing
from medseg.layouts.label_names import (
    find_known,
    normalize_label,
    number_names,
    select_labels,
)
from medseg.layouts.mask_files import MaskFiles
from medseg.names import abbreviate


def form_one_label_map(labels: Sequence[BidsFile]) -> bool:
    """Tell whether several label files are masks whose names differ in ``label-`` alone."""
    if not all(label.is_mask for label in labels):
        return False
    names = {normalize_label(label.entities.get(LABEL, "")) for label in labels}
    if "" in names or len(names) < len(labels):
        return False
    return len({_name_without_label(label) for label in labels}) == 1


def _name_without_label(label: BidsFile) -> tuple[Path, str]:
    """Return what masks of one label map share: the folder, and all entities but one."""
    entities = dict(label.entities)
    del entities[LABEL]
    return label.file.parent, repr(entities)


def choose_mask_values(
    sessions: Sequence[Sequence[BidsFile]],
    wanted: Mapping[str, int],
    listing: CaseListing,
) -> dict[str, int]:
    """Return ``label-`` → value, where masks are to be told by their names.

    They are where a session has several, and where sessions have masks of different labels. Else
    there is one label, and its value is that in the files.

    Args:
        sessions: The label files of each session.
        wanted: Name → value of the bundle's labels; empty where there is no bundle yet. Masks of
            other names are background.
        listing: Knows the names of other label files' values; takes a warning.

    Returns:
        The masks to take; empty where values in the files count.

    Raises:
        DatasetError: If the bundle names none of them, or values of other label files have no name.
    """
    masks = [
        [label for label in labels if label.is_mask] for labels in sessions
    ]
    names = _label_names(masks)
    if not _are_told_by_name(masks, names, wanted):
        return {}
    if wanted:
        return select_labels(names, wanted, listing, "mask")
    has_label_maps = any(not session for session in masks)
    if has_label_maps and not listing.label_names:
        raise DatasetError(
            "some sessions have masks and others _dseg files, and nothing says what the values "
            "of the latter mean; add a dseg.tsv with the columns index and name",
            source=listing.origin,
        )
    return number_names(names, listing.label_names)


def _label_names(masks: Iterable[Sequence[BidsFile]]) -> list[str]:
    names: set[str] = set()
    for session in masks:
        for mask in session:
            if LABEL in mask.entities:
                names.add(mask.entities[LABEL])
    return sorted(names)


def _are_told_by_name(
    masks: Sequence[Sequence[BidsFile]],
    names: Sequence[str],
    wanted: Mapping[str, int],
) -> bool:
    if any(len(session) > 1 for session in masks):
        return True
    differ = len({normalize_label(name) for name in names}) > 1
    has_wanted = bool(find_known(names, wanted)) or not wanted
    return differ and has_wanted


def join_masks(
    labels: Iterable[BidsFile], values: Mapping[str, int]
) -> MaskFiles:
    """Return the masks of one session as one label map.

    Raises:
        ScanError: If a mask does not say of which label it is, or none is one to take.
    """
    named = []
    for label in labels:
        if LABEL not in label.entities:
            raise ScanError(
                "a mask has no label- in its name, which says of which label it is",
                detail=label.file.name,
            )
        name = label.entities[LABEL]
        named.append((name, label.file))
    named.sort()
    taken = [(file, name) for name, file in named if name in values]
    if not taken:
        names = abbreviate(name for name, _ in named)
        raise ScanError(
            "has no mask of the labels", detail=f"its masks are {names}"
        )
    taken_values = {name: values[name] for _, name in taken}
    return MaskFiles(tuple(taken), taken_values)


def describe_missing(
    cases: Sequence[MaskFiles], values: Mapping[str, int]
) -> str:
    """Say which labels have no mask in some sessions, or nothing."""
    lacking = []
    for name, value in values.items():
        without = [case for case in cases if value not in case.values.values()]
        if without:
            lacking.append(f"{name} in {len(without)} of {len(cases)}")
    if not lacking:
        return ""
    return f"sessions without a mask of a label count as having none of it: {abbreviate(lacking)}"
