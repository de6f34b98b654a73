"""The cases of a tree as they are listed: their channels, labels, names, parts and patients."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import DatasetError, Fault, ScanError
from medseg.layouts.channel_names import find_channels
from medseg.layouts.contract import CaseListing, ListedCase, Selection
from medseg.layouts.structure_masks import (
    choose_structures,
    join_structures,
    warn_of_missing_masks,
)
from medseg.layouts.tree_case import Form, TreeCase
from medseg.layouts.tree_names import NamedFile, begins_with
from medseg.names import abbreviate, fold_name

_FOLD_OF_PART = {"val": 0, "train": 1}
"""Fold 0 is validated on and the other one trained on."""

_TIMEPOINT = re.compile(r"(?P<patient>.+-\d{5})-\d{3}")
"""``BraTS-GLI-00005-100``: patient and examination."""
_VISIT = re.compile(
    r"(?:visit|session|ses|time|timepoint|tp|scan|study|day|baseline|follow-?up)[_\-. ]?\d*",
    re.IGNORECASE,
)


def add_cases(
    form: Form,
    files: Sequence[NamedFile],
    selection: Selection,
    listing: CaseListing,
) -> None:
    """List the cases of a tree; say what is left out, and how cases are split and grouped.

    Args:
        form: The cases.
        files: All image files of the tree.
        selection: Channels and labels to take.
        listing: Takes cases, faults, warnings, and what is to be said.

    Raises:
        DatasetError: If most cases have several label maps, or none of the labels wanted.
    """
    _refuse_candidates(form, selection)
    cases = _leave_out_tests(form.cases, listing)
    names = _name_cases(cases)
    channels = _choose_channels(
        form,
        cases,
        selection,
    )
    structures = [name for case in cases for name in case.masks]
    values = choose_structures(
        structures,
        selection.labels,
        listing,
    )
    folds = _choose_folds(cases, listing)
    patients = _find_patients(cases, names)
    for case, name, fold, patient in zip(
        cases, names, folds, patients, strict=True
    ):
        fields = {"fold": fold, "patient": patient}
        try:
            listed = _list_case(
                case,
                name,
                channels,
                values,
                fields,
            )
        except ScanError as error:
            listing.faults.append(Fault.from_error(name, error))
            continue
        listing.cases.append(listed)
    orphans = _find_faulty_orphans(form)
    for label in orphans:
        where = "/".join((*label.folders, label.stem))
        listing.faults.append(Fault(where, "the label has no image"))
    _warn_of_unused(
        form,
        channels,
        files,
        orphans,
        listing,
    )
    warn_of_missing_masks(values, listing)
    _describe(
        channels,
        patients,
        listing,
    )


def _refuse_candidates(
    form: Form,
    selection: Selection,
) -> None:
    """Refuse a data set in which most cases have several label maps.

    Raises:
        DatasetError: It names the kinds of label files.
    """
    doubtful = [case for case in form.cases if len(case.labels) > 1]
    kinds = _list_rival_folders(form)
    if 2 * len(doubtful) > len(form.cases):
        kinds = sorted({label.pattern for label in doubtful[0].labels})
    if not kinds:
        return
    raise DatasetError(
        "most cases have several files that may be the label; choose one by --labels PATTERN",
        detail=f"patterns are {' and '.join(kinds)}",
    )


def _list_rival_folders(form: Form) -> list[str]:
    """Return the folders of labels, where most files of one of them have no image of their own.

    ``1st_manual`` beside ``mask``, which may be the field of view.
    """
    rivals = Counter(
        label.pattern for label in form.orphans if label.role_folder
    )
    found = [
        kind for kind, count in rivals.items() if 2 * count > len(form.cases)
    ]
    if not found or form.has_masks:
        return []
    own = {label.pattern for case in form.cases for label in case.labels}
    others = sorted({*found} - own)
    return sorted({*own, *others}) if others else []


def _leave_out_tests(
    cases: Iterable[TreeCase], listing: CaseListing
) -> list[TreeCase]:
    """Leave out the cases of a test set, where there are others."""
    others: list[TreeCase] = []
    tests: list[TreeCase] = []
    for case in cases:
        kind = tests if _part_of(case) == "test" else others
        kind.append(case)
    if not others:
        return tests
    if tests:
        listing.recognised += (
            f"cases of the test set, left out of training and validation: {len(tests)}",
        )
    return others


def _part_of(case: TreeCase) -> str:
    for file in case.files:
        if file.part:
            return file.part
    return ""


# --- names, folds, patients ---------------------------------------------------------------


def _name_cases(cases: Sequence[TreeCase]) -> list[str]:
    """Name each case by its last name alone, where no two have the same."""
    own = [_own_name(case) for case in cases]
    if len({fold_name(name) for name in own}) == len(own):
        return own
    return [_full_name(case) for case in cases]


def _own_name(case: TreeCase) -> str:
    stem = _stem_of(case)
    if stem:
        return stem
    return case.place[-1] if case.place else "case"


def _stem_of(case: TreeCase) -> str:
    """Return the name of a case within its folder, as its image is called."""
    (role, *others) = case.images
    (image, *_) = case.images[role]
    if not case.key or others:
        return case.key
    return image.name if not role else case.key


def _full_name(case: TreeCase) -> str:
    stem = _stem_of(case)
    return "/".join((*case.place, stem) if stem else case.place) or "case"


def _choose_folds(
    cases: Sequence[TreeCase], listing: CaseListing
) -> list[int | None]:
    """Return the fold of each case, where folders split them for training and validation."""
    parts = [_part_of(case) for case in cases]
    counts = Counter(parts)
    if counts["val"] in (0, len(cases)):
        return [None] * len(cases)
    listing.recognised += (
        f"the split is kept: fold 0 is the validation set ({counts['val']}), fold 1 the training "
        f"set ({len(cases) - counts['val']}). Train with --fold 0",
    )
    return [_FOLD_OF_PART.get(part, 1) for part in parts]


def _find_patients(
    cases: Sequence[TreeCase], names: Sequence[str]
) -> list[str | None]:
    """Return the patient of each case, where names say that some have the same."""
    patients = [
        _find_patient(case, name)
        for case, name in zip(cases, names, strict=True)
    ]
    known = [patient for patient in patients if patient is not None]
    if len(known) == len(patients) and len({*known}) < len(known):
        return patients
    return [None] * len(cases)


def _find_patient(
    case: TreeCase,
    name: str,
) -> str | None:
    """Return the patient that a case's folder or name speaks of."""
    timepoint = _TIMEPOINT.fullmatch(name)
    if timepoint:
        return timepoint["patient"]
    if not case.place:
        return None
    folder = case.place[-1]
    has_number = any(sign.isdigit() for sign in folder)
    is_called_so = begins_with(fold_name(name), fold_name(folder))
    if case.key and has_number and is_called_so:
        return "/".join(case.place)
    if not case.key and _VISIT.fullmatch(folder) and len(case.place) > 1:
        return "/".join(case.place[:-1])
    return None


# --- channels -----------------------------------------------------------------------------


def _choose_channels(
    form: Form, cases: Sequence[TreeCase], selection: Selection
) -> tuple[str, ...]:
    """Return the channels asked for, if the cases have them; else those of most cases."""
    counts: Counter[str] = Counter()
    for case in cases:
        counts.update(case.images.keys())
    asked = [channel.name for channel in selection.channels]
    found = find_channels(asked, sorted(counts))
    if found:
        return found
    if form.channels:
        return form.channels
    usual = [role for role in counts if 2 * counts[role] > len(cases)]
    return tuple(sorted(usual, key=fold_name))


def _list_case(
    case: TreeCase,
    name: str,
    channels: Sequence[str],
    values: Mapping[str, int],
    fields: Mapping[str, Any],
) -> ListedCase:
    """List one case.

    Raises:
        ScanError: If it lacks a channel or a label, or has one twice.
    """
    images = _take_images(case, channels)
    known = {key: value for key, value in fields.items() if value is not None}
    if not case.masks:
        label = _take_label(case)
        return ListedCase(
            images,
            label,
            name,
            known,
        )
    files = {name: mask.file for name, mask in case.masks.items()}
    masks = join_structures(files, values)
    return ListedCase(
        images,
        masks.paths[0],
        name,
        known,
        label_source=masks,
    )


def _take_images(
    case: TreeCase,
    channels: Sequence[str],
) -> tuple[Path, ...]:
    images = []
    for channel in channels:
        candidates = case.images.get(channel, [])
        if len(candidates) != 1:
            there = abbreviate(role or "one image" for role in case.images)
            what = "has several images" if candidates else "has no image"
            raise ScanError(
                f"{what} that may be one of the channels of most cases",
                detail=f"{channel or 'the image'}; it has {there}",
            )
        images.append(candidates[0].file)
    if not images:
        raise ScanError("has no image like those of the other cases")
    return tuple(images)


def _take_label(case: TreeCase) -> Path:
    if len(case.labels) > 1:
        names = abbreviate(label.file.name for label in case.labels)
        raise ScanError(
            "has several files that may be its label; keep one",
            detail=names,
        )
    return case.labels[0].file


# --- what is said -------------------------------------------------------------------------


def _find_faulty_orphans(form: Form) -> list[NamedFile]:
    """Return the labels without an image, but for those beside another label of their case.

    ``brainmask`` beside ``seg`` is another mask, and no label that lost its image.
    """
    labelled = {
        (case.place, label.role_folder)
        for case in form.cases
        for label in case.labels
        if case.place
    }
    return [
        label
        for label in form.orphans
        if (label.place, label.role_folder) not in labelled or label.role_folder
    ]


def _warn_of_unused(
    form: Form,
    channels: Sequence[str],
    files: Sequence[NamedFile],
    orphans: Iterable[NamedFile],
    listing: CaseListing,
) -> None:
    """Name the image files that belong to no case, or are no channel of one."""
    used = {label.file for label in orphans}
    for case in form.cases:
        used.update(file.file for file in case.files)
        for role, images in case.images.items():
            if role not in channels:
                used.difference_update(image.file for image in images)
    unused = [file for file in files if file.file not in used]
    if unused:
        names = abbreviate(
            "/".join((*file.folders, file.file.name)) for file in unused
        )
        listing.warnings.append(
            f"{len(unused)} of {len(files)} image files are not used: they are neither a "
            f"channel nor the label of a case: {names}"
        )


def _describe(
    channels: Sequence[str],
    patients: Sequence[str | None],
    listing: CaseListing,
) -> None:
    """Say which channels and patients there are; name the channels."""
    are_names = all(name and not name.isdigit() for name in channels)
    # What tells one image from another; of one case alone it may be the patient's name.
    if are_names and len(listing.cases) > 1:
        listing.channel_names = tuple(channels)
        if len(channels) > 1:
            listing.recognised += (f"channels {', '.join(channels)}",)
    groups = {patient for patient in patients if patient is not None}
    if groups:
        listing.recognised += (
            f"{len(patients)} cases of {len(groups)} patients, by their names; each patient "
            "stays in one fold",
        )
